"""What a scored data set says: comprehension and imbalance, overall and by category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from bdpo.method.balance import balance

ALL = "all pairs"


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
class ScoreSummary:
    """Groups (the first is all pairs), the most imbalanced pairs as (id, d), shares and means over all pairs."""

    groups: list[GroupSummary]
    extremes: list[tuple[str, float]]
    negative: float  # share of replies with negative mutual information
    tilt: tuple[float, float]  # mean w_c and mean w_r of the balance


def summarise_scores(rows: Dataset, *, extremes: int = 6, **balancing: Any) -> ScoreSummary:
    """Summarise a scored data set (columns of `bdpo.score.folder.COLUMNS`); `balancing` as `balance` takes it."""
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
    )


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
