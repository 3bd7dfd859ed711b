"""How much better the training pairs are told apart than the held-out ones (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

GAPS = {"gap/accuracies": "rewards/accuracies", "gap/margins": "rewards/margins"}


def generalisation_gap(history: Sequence[Mapping[str, Any]], final: Mapping[str, Any]) -> dict[str, float]:
    """Means over the training pairs of the last epoch less those over the held-out pairs at the end.

    A training pair counts as it was before its step's update. A log belongs to the epoch in which it ends, and weighs
    as many pairs as it is of. Empty where either side was not logged.

    Args:
        history: the logs, each with `epoch` and, of training, `window/pairs`.
        final: the last values, with `eval_` before those of held-out pairs.
    """
    found = {}
    for gap, name in GAPS.items():
        logs = [log for log in history if name in log and log.get("window/pairs") and "epoch" in log]
        if not logs or f"eval_{name}" not in final:
            continue
        last = max(ceil(log["epoch"]) for log in logs)
        of_last = [log for log in logs if ceil(log["epoch"]) == last]
        pairs = sum(log["window/pairs"] for log in of_last)
        found[gap] = sum(log[name] * log["window/pairs"] for log in of_last) / pairs - final[f"eval_{name}"]
    return found
