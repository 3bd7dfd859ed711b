"""Control tokens in text: what they are for a tokenizer, how they are found, and how to take them out.

A user who types "<|im_end|>" closes his turn and opens another in the system's name, if the tokenizer is let
to read it so: text of a data set must hold none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bdpo.errors import BdpoError
from bdpo.pairs.reasoning import CLOSE, KEYS, OPEN, split_reasoning
from bdpo.pairs.record import Message, PreferencePair
from bdpo.pairs.rendering import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 256  # pairs whose texts are tokenised at once
_BLANK = " \t\r\n▁"
_BRACKETS = {"<": ">", "[": "]", "{": "}", "【": "】", "◁": "▷", "«": "»", "⟨": "⟩"}
# Gemma has added tokens for some of them; <s> is one of them where its kin are, and elsewhere begins a sequence.
_HTML = re.compile(
    "</?(a|abbr|article|aside|b|blockquote|body|br|button|caption|center|cite|code|col|dd|del|details|div|dl|dt|em|"
    "figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|"
    "math|meta|nav|ol|option|p|param|path|pre|script|section|select|small|source|span|strike|strong|style|sub|summary|"
    "sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|title|tr|tt|u|ul|var|video)/?>"
)


class ControlTokens(tuple[str, ...]):
    """The control tokens of a tokenizer as strings, longest first, and how it reads texts.

    A tokenizer that normalises (NFKC, lower case) reads other strings as control tokens too, so the ids of a text are
    searched as well as its characters.
    """

    tokenizer: PreTrainedTokenizerBase
    by_id: dict[int, str]

    def __new__(cls, strings: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
        """Keep the strings that are not blank; their ids are the tokenizer's, but for that of unknown words."""
        kept = (string for string in strings if string.strip(_BLANK))
        made = super().__new__(cls, sorted(kept, key=lambda string: (-len(string), string)))
        made.tokenizer = tokenizer
        ids: Any = tokenizer.convert_tokens_to_ids(list(made))
        made.by_id = dict(zip(ids, made, strict=True))
        unknown = tokenizer.unk_token_id
        if made.by_id.get(unknown) not in (tokenizer.eos_token, tokenizer.bos_token):
            made.by_id.pop(unknown, None)  # any text may give it, and it structures nothing
        return made

    def read_from(self, texts: Sequence[str]) -> list[list[str]]:
        """The control tokens among the ids of each text."""
        if not texts:
            return []
        ids = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        controls = self.by_id.keys()
        return [[] if controls.isdisjoint(row) else [self.by_id[i] for i in row if i in controls] for row in ids]

    def cut_from(self, text: str) -> str:
        """The text without the characters that the tokenizer reads as control tokens.

        Raises:
            BdpoError: the tokenizer cannot tell which they are.
        """
        while self.read_from([text])[0]:
            left = self._cut_once(text) if self.tokenizer.is_fast else text
            if left == text:
                raise BdpoError(
                    f"The tokenizer reads control tokens from {text[:40]!r} and cannot tell where: mend it."
                )
            text = left
        return text

    def _cut_once(self, text: str) -> str:
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        kept, at = [], 0
        for token, (start, end) in zip(read["input_ids"], read["offset_mapping"], strict=True):
            if token in self.by_id:
                kept.append(text[at:start])
                at = max(at, end)
        return "".join([*kept, text[at:]])


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """What the tokenizer turns into control tokens, longest first.

    These are the added tokens that are special, or that its chat template writes (Qwen's <tool_call> and
    <think> are added, not special, and structure a conversation all the same), or that have the form of one
    (<|fim_prefix|>, <unused7>, [TOOL_CALLS]). Added white space (Gemma's line breaks), words, digits and HTML tags are
    ordinary text.
    """
    template = _template_text(tokenizer.chat_template)
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | set(tokenizer.all_special_tokens)
    others = {token.content for token in added} - special
    kin = "<b>" in others
    structural = {s for s in others if (s in template and not s.isalnum()) or _has_control_form(s, html_s=kin)}
    return ControlTokens(special | structural, tokenizer)


def _has_control_form(token: str, *, html_s: bool) -> bool:
    """Whether it is a name in brackets, no HTML tag and no mere number ([1], a footnote). `html_s`: <s> is a tag."""
    token = token.strip(_BLANK)
    bracketed = len(token) > 2 and _BRACKETS.get(token[0]) == token[-1] and any(map(str.isalnum, token))
    ordinary = token[1:-1].isdigit() or _HTML.fullmatch(token) or (html_s and token in ("<s>", "</s>"))
    return bracketed and not ordinary


def plain_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The words with which the chat template marks turns, where they are plain text that any text may imitate.

    So are [INST] and [/INST] in Mistral's first template, USER: and ASSISTANT: in Vicuna's. () where a control token
    stands between any two turns, or where the template does not take a conversation of three.
    """
    said = ("Asked 2719", "Said 2719", "Again 2719")
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), said, strict=True)]
    try:
        text = render(tokenizer, turns, "A conversation", add_generation_prompt=True)
    except BdpoError:
        return ()
    between, control = re.split("|".join(said), text)[1:-1], _pattern(tuple(control_tokens(tokenizer)))
    if all(map(control.search, between)):
        return ()
    words = (word.strip() for stretch in between for word in control.split(stretch))
    return tuple(dict.fromkeys(filter(None, words)))


def marks_of(pair: PreferencePair, marks: Sequence[str]) -> bool:
    """Whether a text of the pair holds one of these words."""
    return any(mark in text for text in _texts(pair) for mark in marks)


def found_control_tokens(pair: PreferencePair, tokens: Sequence[str]) -> list[str]:
    """The control tokens in the pair's prompt and replies; see `control_tokens_of`."""
    return next(control_tokens_of([pair], tokens))


def control_tokens_of(pairs: Sequence[PreferencePair], tokens: Sequence[str]) -> Iterator[list[str]]:
    """The control tokens in the texts of each pair, each once; those that stand there as strings first, in their order.

    The marks of reasoning at the beginning of an assistant's text are its form and not part of it.
    """
    pattern = _pattern(tuple(tokens))
    for start in range(0, len(pairs), _BATCH):
        texts = [list(_texts(pair)) for pair in pairs[start : start + _BATCH]]
        joined = [text for row in texts for text in row]
        read = iter(tokens.read_from(joined) if isinstance(tokens, ControlTokens) else [[]] * len(joined))
        for row in texts:
            strings = [hit for text in row for hit in pattern.findall(text)]
            yield list(dict.fromkeys([*strings, *(hit for _ in row for hit in next(read))]))


def strip_control_tokens(pair: PreferencePair, tokens: Sequence[str]) -> PreferencePair:
    """The pair without control tokens in its prompt and replies.

    >>> pair = PreferencePair("1", "Hi<<eos>eos>", "Hello<eos>", "Go away")
    >>> stripped = strip_control_tokens(pair, ["<eos>"])
    >>> stripped.prompt, stripped.chosen
    ('Hi', 'Hello')
    """
    prompt: Any = (
        strip_messages(pair.prompt, tokens) if not isinstance(pair.prompt, str) else _strip(pair.prompt, tokens)
    )
    chosen, rejected = (_strip_said(reply, tokens) for reply in (pair.chosen, pair.rejected))
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)


def strip_messages(messages: Sequence[Message], tokens: Sequence[str]) -> tuple[Message, ...]:
    """The conversation without control tokens in its turns."""
    return tuple(_strip_turn(message, tokens) for message in messages)


def _strip_turn(message: Message, tokens: Sequence[str]) -> Message:
    strip = _strip_said if message["role"] == "assistant" else _strip
    thoughts = {key: _strip(message[key], tokens) for key in KEYS if isinstance(message.get(key), str)}
    return {**message, "content": strip(message["content"], tokens), **thoughts}


def _strip_said(text: str, tokens: Sequence[str]) -> str:
    """An assistant's text without control tokens in its reasoning and in its answer; the marks between them stay."""
    if split_reasoning(text)[0] is None:
        return _strip(text, tokens)
    thought, close, rest = text.partition(CLOSE)
    before, opening, thought = thought.rpartition(OPEN)
    return before + opening + _strip(thought, tokens) + close + _strip(rest, tokens)


def _strip(text: str, tokens: Sequence[str]) -> str:
    pattern, removed = _pattern(tuple(tokens)), 1
    while removed:  # taking one out can join the halves of another
        text, removed = pattern.subn("", text)
        if isinstance(tokens, ControlTokens) and not removed:
            cut = tokens.cut_from(text)
            text, removed = cut, len(text) - len(cut)
    return text


def _texts(pair: PreferencePair) -> Iterable[str]:
    """All that people or models wrote in a pair."""
    for message in () if isinstance(pair.prompt, str) else pair.prompt:
        if message["role"] == "assistant":
            yield from _said_texts(message["content"])
        else:
            yield message["content"]
        yield from (message[key] for key in KEYS if isinstance(message.get(key), str))
    if isinstance(pair.prompt, str):
        yield pair.prompt
    yield from _said_texts(pair.chosen)
    yield from _said_texts(pair.rejected)


def _said_texts(text: str) -> Iterable[str]:
    reasoning, answer = split_reasoning(text)
    return (answer,) if reasoning is None else (reasoning, answer)


@lru_cache
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the tokens, the longest that fits; never an empty match, which would never end."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _template_text(template: Any) -> str:
    """All of a tokenizer's templates as one text: it may have none, one, or several by name."""
    return "\n".join(template.values()) if isinstance(template, dict) else template or ""
