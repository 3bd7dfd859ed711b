"""SafeDPO's data step: the pairs it trains on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bdpo.errors import BdpoError
from bdpo.pairs.record import PreferencePair


def safedpo_pairs(pairs: Iterable[PreferencePair]) -> tuple[list[PreferencePair], dict[str, int]]:
    """Pairs in which the chosen reply is safe, and how many were changed or dropped, by reason.

    A safe chosen reply stays; an unsafe one is swapped with a safe rejected reply; where both are unsafe the
    pair is dropped. The margin of SafeDPO's loss then reads the labels `chosen_safe` and `rejected_safe`.

    Source: SafeDPO, arXiv:2505.20065, section 3 (the transformation T of the data set).

    Raises:
        BdpoError: a pair whose replies are not both labelled.
    """
    kept = []
    counts = {
        "changed: chosen and rejected swapped (SafeDPO)": 0,
        "dropped: both replies are unsafe (SafeDPO)": 0,
    }
    swapped, dropped = counts
    for pair in pairs:
        if pair.chosen_safe is None or pair.rejected_safe is None:
            raise BdpoError(f"Pair {pair.id}: SafeDPO needs chosen_safe and rejected_safe: label both replies.")
        if pair.chosen_safe:
            kept.append(pair)
        elif pair.rejected_safe:
            kept.append(_swapped(pair))
            counts[swapped] += 1
        else:
            counts[dropped] += 1
    return kept, {reason: n for reason, n in counts.items() if n}


def pairs_for_loss(loss: str, pairs: list[PreferencePair]) -> tuple[list[PreferencePair], dict[str, int]]:
    """The pairs that a loss trains on, and how many were changed or dropped: for `safedpo` its data step, else all.

    Raises:
        BdpoError: as `safedpo_pairs`.
    """
    return safedpo_pairs(pairs) if loss == "safedpo" else (pairs, {})


def _swapped(pair: PreferencePair) -> PreferencePair:
    return replace(
        pair,
        chosen=pair.rejected,
        rejected=pair.chosen,
        chosen_safe=pair.rejected_safe,
        rejected_safe=pair.chosen_safe,
    )
