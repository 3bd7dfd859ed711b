"""Control tokens in text: what they are for a tokenizer, and how to take them out.

A user who types "<|im_end|>" closes his turn and opens another in the system's name, if the tokenizer is let
to read it so: text of a data set must hold none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bdpo.pairs.record import Message, PreferencePair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The strings that the tokenizer turns into control tokens, longest first.

    These are the added tokens that are special, or that its chat template writes (Qwen's <tool_call> and
    <think> are added, not special, and structure a conversation all the same). Added white space (Gemma's
    line breaks) and added words or digits are ordinary text.
    """
    template = _template_text(tokenizer.chat_template)
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    structural = {token.content for token in added if token.content in template and not token.content.isalnum()}
    strings = (string for string in special | structural if string.strip())
    return tuple(sorted(strings, key=lambda string: (-len(string), string)))


def found_control_tokens(pair: PreferencePair, tokens: Sequence[str]) -> list[str]:
    """The control tokens in the pair's prompt and replies, in the order in which they stand there."""
    turns = [pair.prompt] if isinstance(pair.prompt, str) else [message["content"] for message in pair.prompt]
    found = (hit for text in (*turns, pair.chosen, pair.rejected) for hit in _pattern(tuple(tokens)).findall(text))
    return list(dict.fromkeys(found))


def strip_control_tokens(pair: PreferencePair, tokens: Sequence[str]) -> PreferencePair:
    """The pair without these strings in its prompt and replies.

    >>> pair = PreferencePair("1", "Hi<<eos>eos>", "Hello<eos>", "Go away")
    >>> stripped = strip_control_tokens(pair, ["<eos>"])
    >>> stripped.prompt, stripped.chosen
    ('Hi', 'Hello')
    """
    pattern = _pattern(tuple(tokens))
    if isinstance(pair.prompt, str):
        prompt: Any = _strip(pair.prompt, pattern)
    else:
        prompt = strip_messages(pair.prompt, tokens)
    return replace(pair, prompt=prompt, chosen=_strip(pair.chosen, pattern), rejected=_strip(pair.rejected, pattern))


def strip_messages(messages: Sequence[Message], tokens: Sequence[str]) -> tuple[Message, ...]:
    """The conversation without these strings in its turns."""
    pattern = _pattern(tuple(tokens))
    return tuple({**message, "content": _strip(message["content"], pattern)} for message in messages)


def _strip(text: str, pattern: re.Pattern[str]) -> str:
    removed = 1
    while removed:  # taking one out can join the halves of another
        text, removed = pattern.subn("", text)
    return text


@lru_cache
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the tokens, the longest that fits; never an empty match, which would never end."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _template_text(template: Any) -> str:
    """All of a tokenizer's templates as one text: it may have none, one, or several by name."""
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""
