"""A server that answers by a script, and answers as servers give them."""

from stub_server import serving

__all__ = ["ASKED", "AZURE", "refused", "said", "serving"]

ASKED = [{"role": "user", "content": "Name a river."}]


def said(text="The Loire.", reason="stop", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}} | more


AZURE = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
}  # fmt: skip


def refused(message, status=400, **more):
    return status, {"error": {"message": message, **more}}
