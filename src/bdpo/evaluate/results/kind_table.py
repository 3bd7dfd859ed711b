"""Preferences by kind of all models in a folder, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdpo.evaluate.results.kinds import kind_rows
from bdpo.evaluate.results.outcomes import Run, open_runs
from bdpo.evaluate.results.statistics import Mean, Rate
from bdpo.evaluate.results.tables import Grid


def kind_grids(folder: str | Path) -> list[Grid]:
    """A table of the models whose preferences are whole, the first one the reference; none without such."""
    methods: dict[str, list[Run]] = {}
    for run in open_runs(folder):
        if any(record.suite == "preferences" and _is_whole(run, task) for task, record in run.tasks.items()):
            methods.setdefault(run.name, []).append(run)
    if not methods:
        return []
    task = next(task for task, record in next(iter(methods.values()))[0].tasks.items() if record.suite == "preferences")
    found = kind_rows(methods, task, next(iter(methods)), next(iter(methods)))
    rows: list[Sequence[str]] = [
        (row.name, str(row.n), *(_cell(row.scores.get(name), row.nats) for name in methods))
        for row in found
    ]  # fmt: skip
    notes = [f"{row.name}: {row.measure}." for row in found[:3]]
    return [Grid("preferences by kind [%; margins in nats]", ("", "prompts", *methods), rows, notes)] if rows else []


def _is_whole(run: Run, task: str) -> bool:
    return len(run.outcomes(task)) == run.tasks[task].expected


def _cell(score: Rate | Mean | None, nats: bool) -> str:
    if score is None:
        return "-"
    scale, digits = (1, 2) if nats else (100, 1)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (score.value, score.low, score.high))
    return f"{value} [{low}, {high}]"
