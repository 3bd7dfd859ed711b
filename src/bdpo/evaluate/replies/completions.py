"""What a server's answer says (pure): a completion, or a prompt that was filtered.

The form is that of https://platform.openai.com/docs/api-reference/chat/create, with what others make of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bdpo.endpoint import NO_ANSWER, error_status

_THOUGHTS = (  # keys of a message, and kinds of parts
    "reasoning_content", "reasoning", "thinking", "reasoning_text", "thinking_blocks", "reasoning_details",
    "reasoning.text", "reasoning.summary",
)  # fmt: skip
_CODES = {  # of errors with which providers refuse one prompt, in small letters and without anything between them
    "contentfilter",  # OpenAI, Azure, Moonshot
    "contentpolicyviolation", "contentpolicyviolationerror", "responsibleaipolicyviolation", "invalidprompt",
    "moderationblocked", "datainspectionfailed", "sensitivewordsdetected", "prohibitedcontent", "contentmoderation",
    "guardrailintervened", "contentblocked", "contentsafety", "safetyviolation", "promptblocked", "inputblocked",
    "outputblocked", "unsafecontent", "1301",
}  # fmt: skip
_PHRASES = re.compile(  # for those who give no code of their own: DeepSeek, OpenRouter, Moonshot, ...
    r"content exists risk|content (?:management|filtering) policy|content[ _-]filter|inappropriate content|"
    r"considered high risk|requires moderation|our safety system|"
    r"(?:prompt|input|request|messages?|content) (?:was|were|has been|is) (?:flagged|filtered|moderated|blocked by "
    r"(?:the |our )?(?:content|safety|guardrail))|violat\w+ [\w' ]{0,40}(?:content polic|usage polic|"
    r"usage guideline|responsible ai)|nsfw content|(?:contains?|due to) (?:sensitive words|unsafe content)|"
    r"blocked (?:input|output|prompt|due to content)",
    re.IGNORECASE,
)
# As finish_reason, in small letters: what filters say, and what a limit of tokens is called.
_FILTERED_STOPS = ("content_filter", "sensitive", "safety", "prohibited_content", "blocklist", "spii", "recitation",
                   "refusal", "guardrail", "moderation")  # fmt: skip
_LENGTH_STOPS = ("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length")


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

    No choice at all means that the prompt was filtered (Azure), and so do findings of a filter in place of choices.
    """
    try:
        decoded = json.loads(answer)
        choices, usage = decoded.get("choices"), decoded.get("usage") or {}
        if error_status(answer) is not None:
            return None
        if choices == [] or (choices is None and _blocked(decoded)):
            return FILTERED
        ended = str(choices[0].get("finish_reason") or "").lower()
        filtered = ended.startswith(_FILTERED_STOPS)
        message: Any = choices[0].get("message") or ({} if filtered else None)
        text, thought = _text(message.get("content")), _parts(message.get("content"), _THOUGHTS)
        return Completion(
            text or str(message.get("refusal") or ""),
            "filtered" if filtered else "length" if ended in _LENGTH_STOPS else "end",
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            thought or next(filter(None, map(_thought, map(message.get, _THOUGHTS))), ""),
        )
    except NO_ANSWER:
        return None


def _blocked(decoded: dict[str, Any]) -> bool:
    """Whether an answer without choices says that a filter took the prompt (Azure, Gemini)."""
    said = decoded.get("prompt_filter_results") or decoded.get("prompt_annotations") or []
    found = [inner for part in said for inner in (part.get("content_filter_results") or {}).values()]
    blocked = any(isinstance(inner, dict) and inner.get("filtered") is True for inner in found)
    return blocked or bool((decoded.get("promptFeedback") or {}).get("blockReason"))


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
    except NO_ANSWER:
        return False
    return any(re.sub(r"[\W_]", "", text.lower()) in _CODES or _PHRASES.search(text) for text in texts)


def _text(content: Any) -> str:
    """Text that is given whole, in parts, or under `content`; half a character, which no file takes, becomes U+FFFD."""
    if isinstance(content, dict):
        return _text(content.get("content") or content.get("text"))
    if isinstance(content, str):
        return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _parts(content, ("text", "output_text", "refusal"))


def _thought(said: Any) -> str:
    return _text(said) or _parts(said, _THOUGHTS)


def _parts(content: Any, kinds: tuple[str, ...]) -> str:
    """The texts of the parts of these kinds, which lie under the kind's name, or under `text`."""
    parts = content if isinstance(content, list) else []
    found = ({"type": "text", "text": part} if isinstance(part, str) else part for part in parts)
    return "".join(
        _text(part.get(part["type"]) or part.get("text") or part.get("summary"))
        for part in found
        if part.get("type") in kinds
    )


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
