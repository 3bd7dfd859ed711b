"""Pairs that were annotated more than once: what is kept of them.

People label the same two replies again, and not always alike. Training on both directions of one pair teaches
nothing, so that of each two replies to a prompt one direction is kept at most, and by default once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bdpo.errors import BdpoError
from bdpo.pairs.overlap import normalised
from bdpo.pairs.record import PreferencePair

Conflicts = Literal["majority", "drop", "error"]
Duplicates = Literal["keep", "drop"]

OUTVOTED = "dropped: most annotations prefer these two replies the other way round"
TIED = "dropped: as many annotations prefer these two replies one way as the other"
DISPUTED = "dropped: annotations prefer these two replies both ways"
IDENTICAL = "dropped: chosen and rejected are the same text"
REPEATED = "dropped: the same pair stands there already"

PairKey = tuple[str, str, str]


@dataclass(frozen=True)
class Decision:
    """What was done about the annotations of two replies to one prompt, and why."""

    reason: str
    dropped: tuple[str, ...]  # ids
    kept: tuple[str, ...]  # ids of the pairs that stay for these two replies
    votes: tuple[int, int]  # annotations that prefer the one and the other reply, the larger number first


@dataclass(frozen=True)
class Mended:
    """The pairs that are kept, in their order, and an account of the others."""

    pairs: list[PreferencePair]
    decisions: list[Decision]

    @property
    def counts(self) -> dict[str, int]:
        """Pairs dropped, by reason."""
        counts = Counter[str]()
        for decision in self.decisions:
            counts[decision.reason] += len(decision.dropped)
        return dict(counts)


def mend_pairs(
    pairs: Sequence[PreferencePair], *, conflicts: Conflicts = "majority", duplicates: Duplicates = "drop"
) -> Mended:
    """Decide between annotations of the same two replies to the same prompt.

    Args:
        conflicts: where both directions stand there, "majority" keeps the one that more rows prefer and none where
            they are as many; "drop" keeps none; "error" leaves them, so that the data check finds them. A pair whose
            replies are the same text is a tie with itself.
        duplicates: "drop" keeps the first of equal pairs, "keep" all of them, which then count as often.

    Raises:
        BdpoError: another word for `conflicts` or `duplicates`.

    >>> def pair(name, chosen, rejected): return PreferencePair(name, "Tea?", chosen, rejected)
    >>> mended = mend_pairs([pair("a", "Yes", "No"), pair("b", "No", "Yes"), pair("c", "Yes", "No")])
    >>> [pair.id for pair in mended.pairs], [(d.dropped, d.votes) for d in mended.decisions]
    (['a'], [(('b',), (2, 1)), (('c',), (2, 0))])
    """
    for name, given, known in (("conflicts", conflicts, Conflicts), ("duplicates", duplicates, Duplicates)):
        if given not in get_args(known):
            raise BdpoError(f"{name} is '{given}': choose one of {', '.join(get_args(known))}.")
    annotations: dict[tuple[str, frozenset[str]], dict[PairKey, list[str]]] = {}
    for pair in pairs:
        key = pair_key(pair)
        annotations.setdefault((key[0], frozenset(key[1:])), {}).setdefault(key, []).append(pair.id)
    decisions = []
    for directions in annotations.values():
        decided, left = _decide(directions, conflicts)
        decisions += decided
        if duplicates == "drop":
            decisions += [Decision(REPEATED, tuple(ids[1:]), (ids[0],), (len(ids), 0)) for ids in left if ids[1:]]
    gone = {name for decision in decisions for name in decision.dropped}
    return Mended([pair for pair in pairs if pair.id not in gone], decisions)


def _decide(directions: dict[PairKey, list[str]], conflicts: Conflicts) -> tuple[list[Decision], list[list[str]]]:
    """Decisions on one pair of replies, and the ids that are left of each direction."""
    ranked = sorted(directions.values(), key=len, reverse=True)
    identical = any(chosen == rejected for _, chosen, rejected in directions)
    if conflicts == "error" or (len(ranked) == 1 and not identical):
        return [], ranked
    everyone = tuple(name for ids in directions.values() for name in ids)
    votes = (len(ranked[0]), len(ranked[-1]))
    if conflicts == "majority" and votes[0] > votes[1]:
        return [Decision(OUTVOTED, tuple(ranked[1]), tuple(ranked[0]), votes)], ranked[:1]
    reason = IDENTICAL if identical else TIED if conflicts == "majority" else DISPUTED
    return [Decision(reason, everyone, (), votes)], []


def pair_key(pair: PreferencePair) -> PairKey:
    """Normalised prompt, chosen and rejected: where they are equal, pairs are the same."""
    return prompt_key(pair), pair.chosen.strip(), pair.rejected.strip()


def prompt_key(pair: PreferencePair) -> str:
    """The prompt with its roles, normalised."""
    if isinstance(pair.prompt, str):
        return normalised(pair.prompt)
    return "\n".join(f"{message['role']}: {normalised(message['content'])}" for message in pair.prompt)
