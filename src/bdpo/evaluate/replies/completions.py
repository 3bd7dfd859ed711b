"""What a server's answer says (pure): a completion, a prompt that was filtered, or an error in its words.

The form is that of https://platform.openai.com/docs/api-reference/chat/create, with what others make of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # keys of a message, and kinds of parts
_CODES = {  # of errors with which providers refuse one prompt, in small letters and without anything between them
    "contentfilter",  # OpenAI, Azure, Moonshot
    "contentpolicyviolation", "contentpolicyviolationerror", "responsibleaipolicyviolation", "invalidprompt",
    "moderationblocked", "datainspectionfailed", "sensitivewordsdetected", "prohibitedcontent", "contentmoderation",
    "guardrailintervened", "1301",
}  # fmt: skip
_PHRASES = re.compile(  # for those who give no code of their own: DeepSeek, OpenRouter, Moonshot, ...
    r"content exists risk|content (?:management|filtering) policy|content[ _-]filter|inappropriate content|"
    r"considered high risk|requires moderation|our safety system|"
    r"(?:prompt|input|request|messages?|content) (?:was|were|has been|is) (?:flagged|filtered|moderated|blocked by "
    r"(?:the |our )?(?:content|safety|guardrail))|violat\w+ [\w ]{0,40}(?:content|usage) polic",
    re.IGNORECASE,
)
_FILTERED_STOPS = ("content_filter", "sensitive", "safety", "prohibited_content", "blocklist")  # as finish_reason
# what reading an answer of another form, of numbers beyond all bounds or of a thousand brackets raises
_NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Completion:
    """What a model said to a conversation."""

    text: str
    stop: Literal["end", "length", "filtered"]  # it ended by itself, ran into max_tokens, or the provider's filter
    prompt_tokens: int  # as the server counts them; 0 where it does not
    tokens: int  # of the reply; 0 where the server does not count
    thought: str = ""  # what the server hands over apart from the reply


FILTERED = Completion("", "filtered", 0, 0)


def read_completion(answer: bytes) -> Completion | None:
    """The completion in the body of an answer; None where it is something else.

    No choice at all means that the prompt was filtered (Azure).
    """
    try:
        decoded = json.loads(answer)
        choices, usage = decoded["choices"], decoded.get("usage") or {}
        if choices == []:
            return FILTERED
        ended = str(choices[0].get("finish_reason") or "").lower()
        filtered = ended.startswith(_FILTERED_STOPS)
        message: Any = choices[0].get("message") or ({} if filtered else None)
        text, thought = _text(message.get("content")), _parts(message.get("content"), _THOUGHTS)
        return Completion(
            text or str(message.get("refusal") or ""),
            "filtered" if filtered else "length" if ended == "length" else "end",
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            thought or next((_text(message[key]) for key in _THOUGHTS if message.get(key)), ""),
        )
    except _NO_ANSWER:
        return None


def error_status(answer: bytes) -> int | None:
    """The status of an error that came as a success (OpenRouter); None where it is no error."""
    try:
        error = json.loads(answer)["error"]
        code = str(error.get("code")) if isinstance(error, dict) else ""
        return None if not error else int(code) if re.fullmatch("[45][0-9][0-9]", code) else 400
    except _NO_ANSWER:
        return None


def is_filtered(answer: bytes) -> bool:
    """Whether an error says that a filter refused this prompt, by its code or, for want of one, in its words.

    >>> is_filtered(b'{"error": {"code": "content_filter", "message": "The response was filtered."}}')
    True
    >>> is_filtered(b'{"error": {"code": "invalid_request_error", "message": "The prompt is too long."}}')
    False
    """
    try:
        said = json.loads(answer)
        texts = list(_texts(said)) if isinstance(said, dict) else []
    except _NO_ANSWER:
        return False
    return any(re.sub(r"[\W_]", "", text.lower()) in _CODES or _PHRASES.search(text) for text in texts)


def excerpt(answer: bytes) -> str:
    """The message of an error in OpenAI's form, else the beginning of what came, in one line."""
    text = answer.decode(errors="replace")
    try:
        said = json.loads(text)
        error = said.get("error", said)
        text = str(error["message"] if isinstance(error, dict) and "message" in error else error)
    except _NO_ANSWER:
        pass
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 200 else f"{text[:200]}..."


def _text(content: Any) -> str:
    """Text that is given whole or in parts."""
    return content if isinstance(content, str) else _parts(content, ("text", "output_text", "refusal"))


def _parts(content: Any, kinds: tuple[str, ...]) -> str:
    """The texts of the parts of these kinds, which lie under the kind's name, or under `text`."""
    parts = content if isinstance(content, list) else []
    found = ({"type": "text", "text": part} if isinstance(part, str) else part for part in parts)
    return "".join(_text(part.get(part["type"]) or part.get("text")) for part in found if part.get("type") in kinds)


def _texts(value: Any) -> Iterator[str]:
    """All texts within a JSON value, those of a filter's findings (which may find nothing) left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "filter_result" not in key:
                yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
