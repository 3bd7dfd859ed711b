"""The endpoint's client against a stub server: what is sent, what is read, what is tried again, what is refused."""

import math
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from stub import ASKED, AZURE, refused, said, serving

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.completions import FILTERED, Completion
from bdpo.evaluate.replies.endpoint import ChatEndpoint, EndpointGenerator

pytestmark = pytest.mark.usefixtures("no_key_and_no_pauses")


def test_what_is_sent_and_read(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-stub")
    with serving(said()) as server:
        endpoint = ChatEndpoint(server.url + "/", "stub-1")
        completion = endpoint.complete(ASKED, max_tokens=64, temperature=0.7, top_p=0.9, seed=3)
    assert completion == Completion("The Loire.", "end", 9, 4)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer sk-stub", "application/json")
    assert body == {
        "model": "stub-1", "messages": ASKED, "max_tokens": 64, "temperature": 0.7, "top_p": 0.9, "seed": 3,
    }  # fmt: skip


def test_no_key_sends_none_and_no_seed_sends_none():
    with serving(said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    _, headers, body = server.seen[0]
    assert "Authorization" not in headers
    assert "seed" not in body and body["temperature"] == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said("Cut", "length"), Completion("Cut", "length", 9, 4)),
        (said("Cut", "MAX_TOKENS"), Completion("Cut", "length", 9, 4)),  # Gemini
        (said("Cut", "model_length"), Completion("Cut", "length", 9, 4)),  # Mistral
        (said(None), Completion("", "end", 9, 4)),
        (said("\ud83d \U0001f600"), Completion("\ufffd \U0001f600", "end", 9, 4)),  # half a character, and a whole one
        (said("No counts", usage=None), Completion("No counts", "end", 0, 0)),
        ((200, {"choices": [{"message": {"content": None, "refusal": "No."}}]}), Completion("No.", "end", 0, 0)),
    ],
)
def test_answers_as_servers_give_them(answer, expected):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == expected


def test_passing_failures_are_tried_again_with_growing_pauses(no_key_and_no_pauses):
    busy = (429, {"error": {"message": "slow down"}}, {"Retry-After": "7"})
    with serving((503, b""), None, busy, (500, b"oops"), said()) as server:
        assert ChatEndpoint(server.url, "m", backoff=0.5).complete(ASKED).text == "The Loire."
    assert len(server.seen) == 5
    assert no_key_and_no_pauses == [0.5, 1.0, 7.0, 4.0]  # 0.5, doubled each time; the third as the server asked


def test_an_answer_cut_off_is_tried_again():
    with serving((200, b"{", {"Content-Length": "500"}), said()) as server:
        endpoint = ChatEndpoint(server.url, "m", timeout=5)
        assert endpoint.complete(ASKED).text == "The Loire."


@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_without_end_is_given_up(monkeypatch, status):
    monkeypatch.setattr("bdpo.endpoint._LARGEST", 1 << 20)
    with serving((status, b"x" * (3 << 20))) as server, pytest.raises(BdpoError, match="more than 1 MiB"):
        ChatEndpoint(server.url, "m").complete(ASKED)


@pytest.mark.parametrize(
    "answer", [b"[" * 100_000, b'{"choices": ' + b"[" * 100_000, said()[1] | {"usage": {"prompt_tokens": math.inf}}]
)
def test_brackets_and_numbers_without_end_are_no_completion(answer):
    with serving((200, answer)) as server, pytest.raises(BdpoError, match="something other than a chat completion"):
        ChatEndpoint(server.url, "m").complete(ASKED)


def test_pauses_end_at_a_minute(no_key_and_no_pauses):
    with serving((429, b"", {"Retry-After": "86400"}), said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses == [60.0]


@pytest.mark.parametrize(
    ("answer", "says", "tries"),
    [
        ((503, {"error": {"message": "loading."}}), r"still fails after 3 tries \(HTTP 503: loading\): check that", 3),
        (None, r"still fails after 3 tries \(.+\): check that the server is up", 3),
        ((401, {"error": {"message": "bad key"}}), r"refuses the request \(HTTP 401: bad key\): set OPENAI_API_KEY", 1),
        ((404, {"error": "no"}), r"refuses the request \(HTTP 404: no\): check the URL .* knows a model 'm'\.", 1),
        ((400, b"max_tokens\n too large"), r"\(HTTP 400: max_tokens too large\): check the model's name and", 1),
        ((307, b"", {"Location": "http://127.0.0.1:9/v1"}), r"refuses the request \(HTTP 307\)", 1),
        ((200, b"<html>hello</html>"), "other than a chat completion .<html>hello</html>.: check that the URL ends", 1),
        ((200, {"choices": None}), "other than a chat completion", 1),
        (
            (429, {"error": {"code": "insufficient_quota", "message": "out"}}),
            "429: out.: the account behind OPENAI_",
            1,
        ),
        ((200, {"error": {"message": "bad model", "code": 404}}), "404: bad model.: check the URL", 1),
        (
            (200, {"error": {"message": "provider down", "code": 502}}),
            "still fails after 3 tries .HTTP 502: provider",
            3,
        ),
        ((200, {"error": "odd"}), "refuses the request .HTTP 400: odd.: check the model", 1),
    ],
)
def test_failures_are_one_sentence(answer, says, tries):
    with serving(answer) as server, pytest.raises(BdpoError, match=says) as refused:
        ChatEndpoint(server.url, "m", retries=2).complete(ASKED)
    assert len(server.seen) == tries
    assert str(refused.value).startswith(server.url) and "\n" not in str(refused.value)


def test_a_server_that_is_not_there():
    with serving(said()) as server:
        url = server.url
    with pytest.raises(BdpoError, match=r"still fails after 1 tries .*[Rr]efused"):
        ChatEndpoint(url, "m", retries=0).complete(ASKED)


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host/v1", "http://", "", "http://host:80000/v1", "http://host:http/v1", "http://[::1/v1",
     "http://my host/v1", "http://host:0/v1", "http://host/v1\n", "http://:8000/v1"],
)  # fmt: skip
def test_what_is_no_url(url):
    with pytest.raises(BdpoError, match="is not a URL: write it like http://localhost:8000/v1"):
        ChatEndpoint(url, "m")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_nobody_knows_or_a_server_without_tls_is_refused_at_once(no_key_and_no_pauses, scheme):
    with serving(None) as server:
        url = "http://nowhere.invalid/v1" if scheme == "http" else server.url.replace("http:", "https:")
        with pytest.raises(BdpoError, match=rf"The endpoint {url} cannot be reached \(.+\): check the URL\."):
            ChatEndpoint(url, "m").complete(ASKED)
    assert no_key_and_no_pauses == []


def test_a_server_that_never_answered_is_given_up_soon_and_one_that_did_is_waited_for(no_key_and_no_pauses):
    with serving(None) as server, pytest.raises(BdpoError, match="still fails after 4 tries"):
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses == [1.0, 2.0, 4.0]
    with serving((503, b""), None) as server, pytest.raises(BdpoError, match="still fails after 9 tries"):
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert no_key_and_no_pauses[3:] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_a_query_stays_behind_the_path():
    with serving(said()) as server:
        endpoint = ChatEndpoint(f"{server.url}/?api-version=2024-10-21", "m")
        endpoint.complete(ASKED)
    assert server.seen[0][0] == "/v1/chat/completions?api-version=2024-10-21"
    assert endpoint.url == f"{server.url}?api-version=2024-10-21"


def test_a_date_in_retry_after_is_waited_for(no_key_and_no_pauses):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    with serving((429, b"", {"Retry-After": later}), (429, b"", {"Retry-After": "soon"}), said()) as server:
        ChatEndpoint(server.url, "m").complete(ASKED)
    assert 25 < no_key_and_no_pauses[0] <= 30 and no_key_and_no_pauses[1] == 2.0


# --- what servers make of it -------------------------------------------------------------------------------------


def parts(*content, **more):
    message = {"role": "assistant", "content": list(content), **more}
    return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}


def text(said):
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("answer", "words", "thought"),
    [
        (parts(text("The "), text("Loire.")), "The Loire.", ""),
        (parts("The ", "Loire."), "The Loire.", ""),
        (parts({"type": "output_text", "text": "The Loire."}), "The Loire.", ""),
        (parts({"type": "thinking", "thinking": [text("A river?")]}, text("The Loire.")), "The Loire.", "A river?"),
        (parts({"type": "reasoning", "text": "A river?"}, text("The Loire.")), "The Loire.", "A river?"),
        (parts({"type": "image_url", "image_url": {"url": "x"}}, text("The Loire.")), "The Loire.", ""),
        (parts({"type": "refusal", "refusal": "No."}), "No.", ""),
        (parts(), "", ""),
        (parts(text("The Loire."), reasoning_content="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning_content=None, reasoning="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning_text="A river?"), "The Loire.", "A river?"),
        (parts(text("The Loire."), reasoning={"content": "A river?"}), "The Loire.", "A river?"),
        (
            parts(text("The Loire."), thinking_blocks=[{"type": "thinking", "thinking": "A river?"}]),
            "The Loire.",
            "A river?",
        ),
        (
            parts(text("The Loire."), reasoning_details=[{"type": "reasoning.text", "text": "A river?"}]),
            "The Loire.",
            "A river?",
        ),
    ],
)
def test_parts_and_thoughts(answer, words, thought):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == Completion(words, "end", 0, 0, thought)


def test_a_server_that_wants_max_completion_tokens_gets_it_from_then_on(no_key_and_no_pauses):
    said_so = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )

    def answer(body):
        refused = {"error": {"message": said_so, "param": "max_tokens", "code": "unsupported_parameter"}}
        return (400, refused) if "max_tokens" in body else said()

    with serving(answer) as server:
        endpoint = ChatEndpoint(server.url, "o9")
        assert [endpoint.complete(ASKED, max_tokens=7).text for _ in range(2)] == ["The Loire."] * 2
    limits = [{k: v for k, v in body.items() if k.startswith("max")} for _, _, body in server.seen]
    assert limits == [{"max_tokens": 7}, {"max_completion_tokens": 7}, {"max_completion_tokens": 7}]
    assert no_key_and_no_pauses == []


@pytest.mark.parametrize(
    "answer",
    [
        (400, AZURE),
        (200, {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        refused("Content Exists Risk", type="invalid_request_error", code="invalid_request_error"),
        refused("Input data may contain inappropriate content.", code="data_inspection_failed"),
        refused("Invalid prompt: your prompt was flagged as potentially violating our policy.", code="invalid_prompt"),
        refused("The request was rejected because it was considered high risk", type="content_filter"),
        refused("Your request was rejected by our safety system.", code="content_policy_violation"),
        refused("Your input was flagged", 403, code=403, metadata={"reasons": ["violence"], "flagged_input": "..."}),
        refused("Eingabe", code="1301"),
        (200, {"error": {"message": "x", "code": "content_filter"}}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}),
        (200, {"choices": [{"message": {"content": ""}, "finish_reason": "SAFETY"}]}),
        (200, {"choices": [{"finish_reason": "content_filter: PROHIBITED_CONTENT"}]}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "SPII"}]}),
        (200, {"choices": [{"message": {"content": None}, "finish_reason": "refusal"}]}),
        (200, {"choices": [{"message": None, "finish_reason": "guardrail_intervened"}]}),
        (200, {"prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}),
        (200, {"choices": None, "promptFeedback": {"blockReason": "SAFETY"}}),
        (200, {"choices": [{"error": {"code": 403, "message": "Your input was flagged"}, "message": {"content": ""}}]}),
        (403, {"code": "no permission", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK"}),
        refused("NSFW content detected"),
        refused("The prompt contains sensitive words that violate Google's Responsible AI practices."),
        refused("Blocked.", code="safety_violation"),
    ],
)
def test_a_filtered_prompt_is_no_error(answer):
    with serving(answer) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == FILTERED
    assert len(server.seen) == 1


def test_a_reply_that_the_filter_cut_is_filtered_and_keeps_its_words():
    with serving(said("Sure, fir", "content_filter")) as server:
        assert ChatEndpoint(server.url, "m").complete(ASKED) == Completion("Sure, fir", "filtered", 9, 4)


@pytest.mark.parametrize(
    "answer",
    [
        refused("This model's maximum context length is 8192 tokens.", code="context_length_exceeded"),
        refused("Unknown parameter: 'safety_settings'.", code="unknown_parameter"),
        refused("Content-Type must be application/json"),
        refused("[] is too short - 'messages'", code="invalid_request_error"),
        (403, b"<html>Your request was blocked by the firewall: content policy</html>"),
        refused("bad key", 401, code="content_filter"),
        refused("ok", content_filter_results={"hate": {"severity": "safe", "filtered": "content_filter"}}),
    ],
)
def test_other_refusals_are_not_taken_for_a_filter(answer):
    with serving(answer) as server, pytest.raises(BdpoError, match="refuses the request"):
        ChatEndpoint(server.url, "m").complete(ASKED)


def test_variables_of_the_template_are_sent():
    with serving(said()) as server:
        endpoint = ChatEndpoint(server.url, "m", template_variables={"enable_thinking": False})
        endpoint.complete(ASKED)
    assert server.seen[0][2]["chat_template_kwargs"] == {"enable_thinking": False}
    key = {"endpoint": server.url, "model": "m", "chat_template_kwargs": {"enable_thinking": False}}
    assert EndpointGenerator(endpoint).key == key


def test_several_threads_at_once():
    with serving(lambda body: said(body["messages"][0]["content"])) as server:
        endpoint, heard = ChatEndpoint(server.url, "m"), {}
        asked = [[{"role": "user", "content": f"number {i}"}] for i in range(12)]

        def ask(i):
            heard[i] = endpoint.complete(asked[i]).text

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
    assert heard == {i: f"number {i}" for i in range(12)}
