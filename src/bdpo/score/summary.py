"""What a scored data set says: comprehension and imbalance, overall and by category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.stats import rankdata

from bdpo.errors import BdpoError
from bdpo.method.balance import balance
from bdpo.score.folder import CHES

ALL = "all pairs"
_Z = 1.959964


@dataclass(frozen=True)
class GroupSummary:
    """Statistics of a group of n pairs [nats/token]; a pair with several categories counts in each."""

    name: str
    n: int
    chosen_mi: float  # mean comprehension of the chosen replies
    rejected_mi: float
    imbalance: float  # mean of d = chosen - rejected
    imbalance_std: float  # population standard deviation of d
    rejected_better: float  # share of pairs whose rejected reply is the better understood one


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over n pairs, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreSummary:
    """Groups (the first is all pairs), the most imbalanced pairs as (id, d), shares and means over all pairs."""

    groups: list[GroupSummary]
    extremes: list[tuple[str, float]]
    negative: float  # share of replies with negative mutual information
    tilt: tuple[float, float]  # mean w_c and mean w_r of the balance
    ches: tuple[Correlation, ...] = ()  # of CHES, plain and length-normalised, with d; none where it was not measured


def summarise_scores(rows: Dataset, *, extremes: int = 6, **balancing: Any) -> ScoreSummary:
    """Summarise a scored data set (columns of `bdpo.score.folder.COLUMNS`); `balancing` as `balance` takes it.

    Raises:
        BdpoError: comprehension was not measured.
    """
    if None in rows["chosen_mi"]:
        raise BdpoError("These scores are without comprehension: score again with another estimator than none.")
    chosen, rejected = (np.asarray(list(rows[f"{side}_mi"]), dtype=np.float64) for side in ("chosen", "rejected"))
    d = chosen - rejected
    members: dict[str, list[int]] = {ALL: list(range(len(d)))}
    for i, categories in enumerate(rows["category"]):
        for category in categories or ["(no category)"]:
            members.setdefault(category, []).append(i)
    if set(members) == {ALL, "(no category)"}:
        del members["(no category)"]
    names = [ALL, *sorted(set(members) - {ALL})]
    order = np.argsort(-np.abs(d), kind="stable")[:extremes]
    ids = list(rows["id"])
    return ScoreSummary(
        groups=[_group(name, chosen[members[name]], rejected[members[name]]) for name in names],
        extremes=[(ids[i], float(d[i])) for i in order],
        negative=float(np.concatenate([chosen < 0, rejected < 0]).mean()),
        tilt=balance(torch.from_numpy(chosen), torch.from_numpy(rejected), **balancing).tilt,
        ches=tuple(found for name in CHES if (found := spearman(rows[name], d)) is not None),
    )


def spearman(one: Sequence[float | None], other: Sequence[float] | NDArray[np.float64]) -> Correlation | None:
    """Spearman's correlation of two measures of the same n pairs (ranks of ties are averaged), with the interval of
    Bonett & Wright (2000, Psychometrika 65:23); None where a value is missing, n < 4, or all values are alike.

        tanh(atanh(r) -+ z sqrt((1 + r^2 / 2) / (n - 3)))        z = 1.959964

    Pairs that share a prompt count as if they were independent.

    By hand, ranks 1 2 3 4 5 against 2 1 4 3 5: the squared differences sum to 4, so r = 1 - 6 * 4 / (5 * 24) = 0.8;
    atanh(0.8) = 1.098612, and z sqrt(1.32 / 2) = 1.592282.

    >>> r = spearman([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0])
    >>> f"{r.value:.6f} {r.low:.6f} {r.high:.6f}"
    '0.800000 -0.457124 0.990843'
    """
    if len(one) < 4 or any(value is None for value in one) or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    r = float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
    if abs(r) > 1 - 1e-12:  # the interval of a perfect order has no width
        return Correlation(r, r, r)
    spread = _Z * np.sqrt((1 + r**2 / 2) / (len(one) - 3))
    low, high = np.tanh(np.arctanh(r) + spread * np.array([-1.0, 1.0]))
    return Correlation(r, float(low), float(high))


def _group(name: str, chosen: np.ndarray, rejected: np.ndarray) -> GroupSummary:
    d = chosen - rejected
    return GroupSummary(
        name,
        len(d),
        float(chosen.mean()),
        float(rejected.mean()),
        float(d.mean()),
        float(d.std()),
        float((d < 0).mean()),
    )
