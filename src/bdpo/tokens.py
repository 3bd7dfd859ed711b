"""Chat template -> token ids. A conversation is rendered and tokenised once; the reply is its exact suffix."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from bdpo.errors import BdpoError
from bdpo.pairs import Message, PreferencePair, control_tokens
from bdpo.pairs.check_data import refuse_no_room
from bdpo.pairs.control import control_tokens_of, strip_messages
from bdpo.pairs.rendering import render, render_replies


@dataclass(frozen=True)
class TokenizedPair:
    """Token ids of one pair. Both replies continue the same `prompt_ids`, template suffix included."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_cut: int = 0  # tokens that truncation took from the left of the prompt
    response_cut: int = 0  # tokens that truncation took from the right of the two replies together


@dataclass(frozen=True)
class TokenizedPairs:
    """A tokenised data set: pair by pair, with the null prompt that is one and the same for all."""

    pairs: Sequence[TokenizedPair]
    null_ids: list[int]
    counts: dict[str, int] = field(default_factory=dict)  # what truncation changed, by kind


class PackedPairs(Sequence[TokenizedPair]):
    """Pairs whose ids lie end to end in one int32 array: as lists of ints 100,000 pairs would take a gigabyte."""

    def __init__(self, pairs: Iterable[TokenizedPair]) -> None:
        self._ids = array("i")
        self._ends = array("q")  # of each pair's prompt, chosen and rejected ids
        self._cuts = array("i")  # of each pair: prompt_cut, response_cut
        for pair in pairs:
            for ids in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids):
                self._ids.extend(ids)
                self._ends.append(len(self._ids))
            self._cuts.extend((pair.prompt_cut, pair.response_cut))

    def __len__(self) -> int:
        return len(self._ends) // 3

    def __getitem__(self, i: Any) -> Any:
        """A pair; of a slice, a list of pairs."""
        i = range(len(self))[i]
        if isinstance(i, range):
            return [self[k] for k in i]
        start = self._ends[3 * i - 1] if i else 0
        prompt, chosen, rejected = self._ends[3 * i : 3 * i + 3]
        ids = self._ids[start:rejected].tolist()
        prompt, chosen = prompt - start, chosen - start
        return TokenizedPair(ids[:prompt], ids[prompt:chosen], ids[chosen:], *self._cuts[2 * i : 2 * i + 2])


def refuse_unfit(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    tokenized: TokenizedPairs,
    config: Any,
    *,
    prefix: int = 0,
) -> None:
    """Refuse pairs whose ids are beyond the model's embedding, or whose positions are beyond those that it has.

    Args:
        config: the model's, with `vocab_size` and, where positions end, `max_position_embeddings`.
        prefix: longest other prompt that a reply is hung on [tokens].

    Raises:
        BdpoError: naming the first such pair.
    """
    config = config.get_text_config()
    rows, positions = config.vocab_size, getattr(config, "max_position_embeddings", None) or float("inf")
    for pair, ids in zip(pairs, tokenized.pairs, strict=True):
        longest = max(len(ids.chosen_ids), len(ids.rejected_ids))
        highest = max(max(part) for part in (ids.prompt_ids, ids.chosen_ids, ids.rejected_ids))
        if highest >= rows:
            token = tokenizer.convert_ids_to_tokens(highest)
            raise BdpoError(
                f"Pair {pair.id}: token {highest} ({token!r}) is beyond the {rows} rows of the model's embedding: take "
                "the tokenizer that belongs to the model, or resize the embedding first."
            )
        prompt = max(len(ids.prompt_ids), prefix)
        if prompt + longest > positions:
            raise BdpoError(
                f"Pair {pair.id}: a prompt of {prompt} tokens with a reply of {longest} is longer than the {positions} "
                "positions of the model: lower data.max_length (--max-length), or drop the pair."
            )


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], *, max_length: int | None = None
) -> TokenizedPairs:
    """Tokenise a data set of pairs, all chat or all plain text.

    Args:
        max_length: longest prompt + longer reply [tokens]; None cuts nothing. See `truncate`.

    Raises:
        BdpoError: no pairs, chat and plain text mixed, no chat template, or what `tokenize_pair` raises.
    """
    if not pairs:
        raise BdpoError("There are no pairs to tokenise: every row was dropped or the data set is empty.")
    kinds = {isinstance(pair.prompt, str) for pair in pairs}
    if len(kinds) == 2:
        raise BdpoError("The data mixes plain-text and chat prompts: split it, since they need different null prompts.")
    done = PackedPairs(_pair_ids(tokenizer, pair, max_length) for pair in _checked(tokenizer, pairs))
    counts = Counter[str]()
    for pair in done:
        counts["pairs with a truncated prompt"] += pair.prompt_cut > 0
        counts["pairs with a truncated reply"] += pair.response_cut > 0
    return TokenizedPairs(
        done, null_prompt_ids(tokenizer, chat=not kinds.pop()), {k: n for k, n in counts.items() if n}
    )


def tokenize_pair(
    tokenizer: PreTrainedTokenizerBase,
    pair: PreferencePair,
    *,
    max_length: int | None = None,
) -> TokenizedPair:
    """Token ids of one pair.

    A prompt and its reply are tokenised as one text, a conversation as the template renders it, plain text with EOS
    added; the reply is what follows the prompt's ids. Where a token straddles that boundary (a reply that begins
    with a line break may merge with the prompt's last one), the reply's text is tokenised apart, as a model that
    generates from `prompt_ids` would meet it.

    Raises:
        BdpoError: a control token in the text, a template that does not render the prompt as a prefix of
            the conversation, or an empty prompt or reply.
    """
    (checked,) = _checked(tokenizer, [pair])
    return _pair_ids(tokenizer, checked, max_length)


def _pair_ids(tokenizer: PreTrainedTokenizerBase, pair: PreferencePair, max_length: int | None) -> TokenizedPair:
    plain = isinstance(pair.prompt, str)
    if isinstance(pair.prompt, str):
        prompt, replies = _text_ids(tokenizer, pair.prompt, (pair.chosen, pair.rejected))
    else:
        prompt, replies = _conversation_ids(tokenizer, pair.prompt, (pair.chosen, pair.rejected), f"Pair {pair.id}")
    if not prompt or not all(replies):
        mend = (
            "fill it in, or drop the pair"
            if plain
            else "the chat template leaves it out; give another (model.chat_template)"
        )
        raise BdpoError(f"Pair {pair.id}: the prompt or a reply has no tokens: {mend}.")
    return truncate(TokenizedPair(prompt, replies[0], replies[1]), max_length)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], where: str) -> list[int]:
    """Token ids of a conversation up to where the reply begins.

    Control tokens are taken out of the turns: what is asked of a model, by a benchmark or an attack, must not
    become the structure of the conversation. A last turn of the assistant is how its reply begins, and stays open.

    Args:
        where: what to call the conversation in an error.

    Raises:
        BdpoError: no chat template, or one that refuses the conversation or makes nothing of it, or that does not
            leave the beginning of a reply as it is.
    """
    stripped = strip_messages(messages, control_tokens(tokenizer))
    if stripped[-1]["role"] == "assistant":
        return _begun_ids(tokenizer, stripped[:-1], stripped[-1]["content"], where)
    ids = _ids(tokenizer, render(tokenizer, stripped, where, add_generation_prompt=True))
    if not ids:
        raise BdpoError(f"{where}: the chat template makes no text of the conversation: give another one.")
    return ids


def _begun_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], opening: str, where: str) -> list[int]:
    """Token ids of a conversation and of how its reply begins, where the template writes a reply; no end of turn."""
    text, [added] = render_replies(tokenizer, messages, [opening], where)
    before, found, _ = added.partition(opening)
    if not found:
        raise BdpoError(f"{where}: the chat template does not write the reply's beginning as it is: give another one.")
    prompt = _ids(tokenizer, text)
    return prompt + _following(tokenizer, prompt, _ids(tokenizer, text + before + opening), before + opening)


def options_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], options: Sequence[str], where: str
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a conversation, as `prompt_ids`, and of each possible reply to it, as those of pairs.

    Raises:
        BdpoError: as `tokenize_pair` on a chat prompt, though control tokens are taken out and not refused.
    """
    controls = control_tokens(tokenizer)
    said = strip_messages([{"role": "assistant", "content": option} for option in options], controls)
    replies = [message["content"] for message in said]
    return _conversation_ids(tokenizer, strip_messages(messages, controls), replies, where)


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end a reply: EOS, and the control token with which the chat template closes a turn.

    The two differ where a base model was given a template, whose end of turn its settings do not know.
    """
    said = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."})
    after = render(tokenizer, said, "A reply", add_generation_prompt=False).rpartition("Yes.")[2]
    closing = min((token for token in control_tokens(tokenizer) if token in after), key=after.find, default=None)
    ids = {tokenizer.eos_token_id, None if closing is None else tokenizer.convert_tokens_to_ids(closing)}
    return {token for token in ids if isinstance(token, int)}


def truncate(pair: TokenizedPair, max_length: int | None) -> TokenizedPair:
    """Cut a pair so that prompt + longer reply <= `max_length` [tokens].

    The prompt gives way first, from its left, down to half of `max_length`; then both replies are cut at the
    right to the same ceiling, so that neither side of the pair is favoured. A reply always keeps tokens.

    >>> truncate(TokenizedPair([1, 2, 3, 4, 5], [6, 7, 8], [9]), 6)
    TokenizedPair(prompt_ids=[3, 4, 5], chosen_ids=[6, 7, 8], rejected_ids=[9], prompt_cut=2, response_cut=0)
    """
    refuse_no_room(max_length)
    longest = max(len(pair.chosen_ids), len(pair.rejected_ids))
    if max_length is None or len(pair.prompt_ids) + longest <= max_length:
        return pair
    kept_prompt = min(len(pair.prompt_ids), max(max_length - longest, max_length // 2))
    ceiling = max_length - kept_prompt
    chosen, rejected = pair.chosen_ids[:ceiling], pair.rejected_ids[:ceiling]
    return TokenizedPair(
        pair.prompt_ids[-kept_prompt:],
        chosen,
        rejected,
        prompt_cut=len(pair.prompt_ids) - kept_prompt,
        response_cut=len(pair.chosen_ids) - len(chosen) + len(pair.rejected_ids) - len(rejected),
    )


def null_prompt_ids(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[int]:
    """The null prompt x0: the template with one empty user turn; for plain text BOS, or EOS where there is none."""
    if chat:
        text = render(tokenizer, ({"role": "user", "content": ""},), "null prompt", add_generation_prompt=True)
        ids = _ids(tokenizer, text)
        if not ids:
            raise BdpoError("The chat template renders an empty user turn as nothing, so there is no null prompt.")
        return ids
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise BdpoError("The tokenizer has neither a BOS nor an EOS token, so plain text has no null prompt: set one.")
    return [token]


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Hashes of the vocabulary and of the chat template, for the manifest of scores."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    template = tokenizer.chat_template or ""
    return {
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "chat_template": hashlib.sha256(json.dumps(template).encode()).hexdigest(),
    }


def _conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], replies: Sequence[str], where: str
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a conversation before the reply, and of each reply as what follows them."""
    text, added = render_replies(tokenizer, messages, replies, where)
    prompt = _ids(tokenizer, text)
    wholes = [_ids(tokenizer, text + reply) for reply in added]
    return prompt, [_following(tokenizer, prompt, whole, reply) for whole, reply in zip(wholes, added, strict=True)]


def _text_ids(
    tokenizer: PreTrainedTokenizerBase, prompt_text: str, replies: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """The same for plain text: BOS (where the tokenizer puts one) before the prompt, EOS after each reply."""

    def opened(text: str) -> list[int]:
        ids = list(tokenizer(text)["input_ids"])
        return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids  # some tokenizers close every text

    prompt = opened(prompt_text)
    wholes = [opened(prompt_text + reply) for reply in replies]
    ids = [_following(tokenizer, prompt, whole, reply) for whole, reply in zip(wholes, replies, strict=True)]
    return prompt, [reply + _eos(tokenizer) for reply in ids]


def _following(tokenizer: PreTrainedTokenizerBase, prompt: list[int], whole: list[int], reply: str) -> list[int]:
    """What follows the prompt's ids in those of the whole text; the reply tokenised apart where that is not there."""
    return whole[len(prompt) :] if whole[: len(prompt)] == prompt else _ids_apart(tokenizer, reply)


def _ids_apart(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that continues another one, with which nothing of it may merge.

    Tokenised by itself it would get SentencePiece's blank before its first word. So it is tokenised behind an anchor,
    the first that stays whole, swallows no blank and brings none: after a control token nothing merges, but some
    tokenizers put the blank there too.
    """
    anchors = (tokenizer.eos_token or "", "\n", ".")
    behind = {anchor: _behind(tokenizer, anchor, text) for anchor in anchors}
    fit = (ids for anchor, ids in behind.items() if ids is not None and _is_neutral(tokenizer, anchor))
    ids = next(fit, behind[anchors[0]])
    return _ids(tokenizer, text) if ids is None else ids


def _behind(tokenizer: PreTrainedTokenizerBase, anchor: str, text: str) -> list[int] | None:
    lead, ids = _ids(tokenizer, anchor), _ids(tokenizer, anchor + text)
    return ids[len(lead) :] if ids[: len(lead)] == lead else None


def _is_neutral(tokenizer: PreTrainedTokenizerBase, anchor: str) -> bool:
    """Whether text behind the anchor is read with just its own blanks (U+2581 in pieces, U+0120 in bytes)."""
    bare, blank = _behind(tokenizer, anchor, "x"), _behind(tokenizer, anchor, " x")
    pieces = "".join(tokenizer.convert_ids_to_tokens(bare or []))
    return bare != blank and "▁" not in pieces and "Ġ" not in pieces


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _eos(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _checked(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair]) -> Iterator[PreferencePair]:
    """The pairs, whose text must not turn into control tokens: a `<|im_end|>` typed by a user would close the turn."""
    for pair, found in zip(pairs, control_tokens_of(pairs, control_tokens(tokenizer)), strict=True):
        if found:
            raise BdpoError(
                f"Pair {pair.id}: its text contains the control token {found[0]!r}, or what the tokenizer reads as it, "
                "a prompt-injection risk. Remove it from the data, or let it be stripped (strip_control_tokens)."
            )
        yield pair
