"""What the checks of a data set look at: the pairs, and what several checks need of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bdpo.errors import BdpoError
from bdpo.pairs.load import LoadedPairs
from bdpo.pairs.mend import PairKey, pair_key
from bdpo.pairs.overlap import normalised
from bdpo.pairs.record import PreferencePair
from bdpo.pairs.rendering import render_replies

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 256  # pairs that are rendered and tokenised at once


@dataclass(frozen=True)
class CheckedData:
    """What the checks look at, and what several of them need."""

    loaded: LoadedPairs
    against: LoadedPairs | None
    tokenizer: PreTrainedTokenizerBase | None
    max_length: int | None

    @property
    def pairs(self) -> list[PreferencePair]:
        return self.loaded.pairs

    @cached_property
    def keys(self) -> list[PairKey]:
        """Normalised prompt, chosen and rejected of each pair: where they are equal, pairs are the same."""
        return list(map(pair_key, self.pairs))

    @cached_property
    def sides(self) -> tuple[list[str], list[str]]:
        """The chosen and the rejected replies."""
        return [pair.chosen for pair in self.pairs], [pair.rejected for pair in self.pairs]

    @cached_property
    def rendered(self) -> tuple[list[str], list[int]]:
        """What the template says of each pair that it refuses; of every pair, its prompt and longer reply [tokens]."""
        assert self.tokenizer is not None
        refused, lengths = [], []
        for start in range(0, len(self.pairs), _BATCH):
            texts = []
            for pair in self.pairs[start : start + _BATCH]:
                try:
                    texts += _whole_texts(pair, self.tokenizer, self.loaded.where(pair))
                except BdpoError as error:
                    refused.append(str(error))
                    texts += [_text_alone(pair, reply) for reply in (pair.chosen, pair.rejected)]
            counted = text_lengths(texts, self.tokenizer)
            lengths += [max(pair) for pair in zip(counted[::2], counted[1::2], strict=True)]
        return refused, lengths

    def ids(self, holds: Callable[[PreferencePair], bool]) -> list[str]:
        return [pair.id for pair in self.pairs if holds(pair)]


def refuse_no_room(max_length: int | None) -> None:
    """BdpoError where a pair can never fit into `max_length` [tokens]."""
    if max_length is not None and max_length < 2:
        raise BdpoError(f"max_length is {max_length}: it needs room for a prompt token and a reply token, at least 2.")


def asked(pair: PreferencePair) -> str:
    """The prompt's normalised text without a system message, which many prompts may share."""
    if isinstance(pair.prompt, str):
        return normalised(pair.prompt)
    return normalised(" ".join(m["content"] for m in pair.prompt if m["role"] != "system"))


def text_lengths(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Tokens of each text, without special ones; words where there is no tokenizer."""
    if tokenizer is None:
        return [len(text.split()) for text in texts]
    if not texts:
        return []
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def _whole_texts(pair: PreferencePair, tokenizer: PreTrainedTokenizerBase, where: str) -> list[str]:
    """The prompt with either reply, as training renders them."""
    if isinstance(pair.prompt, str):
        return [pair.prompt + reply for reply in (pair.chosen, pair.rejected)]
    prompt, added = render_replies(tokenizer, pair.prompt, (pair.chosen, pair.rejected), where)
    return [prompt + reply for reply in added]


def _text_alone(pair: PreferencePair, reply: str) -> str:
    """The texts of a conversation that no template takes, in a row: they are only counted."""
    return "\n".join([*(message["content"] for message in pair.prompt if isinstance(message, dict)), reply])
