"""What a scored data set says: comprehension and imbalance, overall and by category."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table

_ALL = "all pairs"


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
    """Groups (the first is all pairs), the most imbalanced pairs as (id, d), and the share of negative measures."""

    groups: list[GroupSummary]
    extremes: list[tuple[str, float]]
    negative: float  # share of replies with negative mutual information


def summarise_scores(rows: Dataset, *, extremes: int = 6) -> ScoreSummary:
    """Summarise a scored data set (columns of `bdpo.scored.COLUMNS`)."""
    chosen, rejected = (np.asarray(list(rows[f"{side}_mi"]), dtype=np.float64) for side in ("chosen", "rejected"))
    d = chosen - rejected
    members: dict[str, list[int]] = {_ALL: list(range(len(d)))}
    for i, categories in enumerate(rows["category"]):
        for category in categories or ["(no category)"]:
            members.setdefault(category, []).append(i)
    if set(members) == {_ALL, "(no category)"}:
        del members["(no category)"]
    names = [_ALL, *sorted(set(members) - {_ALL})]
    order = np.argsort(-np.abs(d), kind="stable")[:extremes]
    ids = list(rows["id"])
    return ScoreSummary(
        groups=[_group(name, chosen[members[name]], rejected[members[name]]) for name in names],
        extremes=[(ids[i], float(d[i])) for i in order],
        negative=float(np.concatenate([chosen < 0, rejected < 0]).mean()),
    )


def render_summary(summary: ScoreSummary, console: Console) -> None:
    """Print the summary as tables of at most 80 columns."""
    table = Table(title="Comprehension [nats/token]", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("pairs of", overflow="ellipsis", no_wrap=True, max_width=20)
    for heading in ("n", "chosen", "rejected", "imbalance", "sd", "r better"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    for g in summary.groups:
        row = (g.name, f"{g.n}", f"{g.chosen_mi:.2f}", f"{g.rejected_mi:.2f}", f"{g.imbalance:+.2f}",
               f"{g.imbalance_std:.2f}", f"{g.rejected_better:.0%}")  # fmt: skip
        table.add_row(*row, end_section=g.name == _ALL)
    console.print(table)
    console.print("imbalance = chosen - rejected; r better: share of pairs whose rejected reply is understood better.")
    most = ", ".join(f"{id} ({d:+.2f})" for id, d in summary.extremes)
    console.print(f"Most imbalanced: {most}.", highlight=False)
    console.print(f"{summary.negative:.0%} of the replies have negative mutual information.", highlight=False)


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


def render_metrics(metrics: dict[str, float], history: list[dict[str, float]], console: Console) -> None:
    """Print training (the last logged window) beside held-out figures, where there are any."""
    trained = next((entry for entry in reversed(history) if "loss" in entry), {})
    if not trained:
        console.print("No step was logged: the run has fewer steps than logging_steps.")
    if not trained and "eval_loss" not in metrics:
        return
    table = Table(title="Training (last logged window) and held-out pairs", title_justify="left")
    for heading in ("", "training", "held out"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = {
        "loss": "loss",
        "preference accuracy": "rewards/accuracies",
        "reward margin": "rewards/margins",
        "chosen log-ratio [nats]": "logratios/chosen",
        "rejected log-ratio [nats]": "logratios/rejected",
    }
    for text, name in rows.items():
        cells = (trained.get(name), metrics.get(f"eval_{name}"))
        table.add_row(text, *("-" if value is None else f"{value:.3f}" for value in cells))
    console.print(table)
