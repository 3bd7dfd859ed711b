"""What a sweep has found.

sweep.json     the study, and each cell: how far it has come, its last metrics, its scores; written after each cell
compare.json   settings side by side, with differences to the baseline (see `evaluate.results.compare`); compare.md
results.md     the tables that the command ends with

A comparison draws its resamples over all cells, so it is made when the sweep ends or stops, and not after each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bdpo.evaluate.plan import Task
from bdpo.evaluate.results.compare import Comparison, compare
from bdpo.evaluate.results.outcomes import open_runs
from bdpo.evaluate.results.tables import Grid, comparison_grids, score_text, summary, worst_grids
from bdpo.files import one_at_a_time, read_json, write_json, write_whole
from bdpo.sweep.cells import State, state
from bdpo.sweep.plan import BASE, Cell, Study

_HELD_OUT = {
    "eval_rewards/accuracies": "held-out accuracy [%]",
    "gap/accuracies": "training less held-out accuracy [points]",
    "eval_rewards/margins": "reward margin",
    "gap/margins": "training less held-out margin",
    "eval_logratios/chosen": "chosen log-ratio [nats]",
    "eval_logratios/rejected": "rejected log-ratio [nats]",
    "train_loss": "training loss",
}


class Progress:
    """How far the cells of a sweep have come. A finished cell stays one, so that it is looked into once."""

    def __init__(self, study: Study, cells: Sequence[Cell], tasks: Sequence[Task], out: Path) -> None:
        self.study, self.cells, self.tasks, self.out = study, cells, tasks, out
        self._finished: dict[str, dict[str, Any]] = {}  # the records of finished cells

    def look(self) -> dict[str, dict[str, Any]]:
        """The record of each cell as it is now, by its name; `state` in it is how far it has come."""
        records = {cell.name: self._finished.get(cell.name) or self._record(cell) for cell in self.cells}
        self._finished = {name: record for name, record in records.items() if record["state"] == "finished"}
        return records

    def write(self) -> None:
        """Write sweep.json."""
        with one_at_a_time(self.out / "sweep.json"):
            self._write(self.look())

    def write_results(self) -> list[Grid]:
        """Write what the finished cells show into the sweep's folder, and give the tables.

        Raises:
            BdpoError: something cannot be read or written.
        """
        with one_at_a_time(self.out / "sweep.json"):
            records = self.look()
            grids = held_out_grids(self.cells, {name: record["metrics"] for name, record in records.items()})
            evaluated = [cell for cell in self.cells if cell.name in self._finished]
            if evaluated:
                compared = compare_cells(evaluated, baseline_of(evaluated, self.study.baseline))
                write_json(self.out / "compare.json", compared.to_dict())
                tables = comparison_grids(compared) + worst_grids(compared)
                _write_text(self.out / "compare.md", "Comparison", tables)
                grids = [setting_grid(compared), *grids]
            self._write(records)
            _write_text(self.out / "results.md", "Sweep", grids)
        return grids

    def _write(self, records: dict[str, dict[str, Any]]) -> None:
        content = {"study": self.study.model_dump(mode="json"), "cells": list(records.values())}
        write_json(self.out / "sweep.json", content)

    def _record(self, cell: Cell) -> dict[str, Any]:
        reached = state(cell, self.tasks)
        return {
            "name": cell.name, "label": cell.label, "method": cell.method, "setting": cell.setting, "seed": cell.seed,
            "folder": cell.folder.relative_to(self.out).as_posix(), "state": reached,
            "metrics": _metrics(cell, reached),
            "scores": summary(open_runs(cell.evaluation)) if reached == "finished" else [],
        }  # fmt: skip


def baseline_of(cells: Sequence[Cell], named: str | None = None) -> str:
    """The setting that others are compared with: the one that was named, else the first that was trained."""
    labels = [cell.label for cell in cells]
    if named in labels:
        return str(named)
    return next((label for label in labels if label != BASE), BASE)


def reference(cells: Sequence[Cell]) -> str:
    """The model as it comes, to which a reward is a log-ratio; where it is not there, the baseline."""
    return BASE if any(cell.label == BASE for cell in cells) else baseline_of(cells)


def compare_cells(cells: Sequence[Cell], baseline: str) -> Comparison:
    """The evaluations of cells, the seeds of a setting as seeds of one method; rewards are against `reference`."""
    return compare([cell.evaluation for cell in cells], baseline=baseline, reference=reference(cells))


def _metrics(cell: Cell, reached: State) -> dict[str, float]:
    if cell.seed is None or reached not in ("trained", "finished"):
        return {}
    return dict(
        read_json(cell.folder / "metrics.json", "remove the cell's folder to train it again", final=dict)["final"]
    )


def _write_text(path: Path, title: str, grids: Sequence[Grid]) -> None:
    write_whole(path, f"# {title}\n\n" + "\n".join(grid.markdown() for grid in grids))


# --- tables -------------------------------------------------------------------------------------------------------


def setting_grid(compared: Comparison, title: str = "Settings") -> Grid:
    """A row for each setting, a column for each average and each benchmark that no average stands for."""
    averaged = {row.suite for row in compared.rows if row.kind == "suite"}
    columns = [row for row in compared.rows if row.kind != "benchmark" or row.suite not in averaged]
    rows: list[Sequence[str]] = [
        (label, str(len(models)), *(score_text(row.cells.get(label), row.kind) for row in columns))
        for label, models in compared.methods.items()
    ]
    head = ("setting", "seeds", *(f"{row.name}\n{'[nats]' if row.kind == 'nats' else '[%]'}" for row in columns))
    notes = (
        "Mean over prompts and seeds ± standard deviation of the seeds, [low, high]: 95 % interval. Higher is better: "
        "over-refusal is harmless prompts answered.",
    )
    return Grid(title, head, rows, notes)


def held_out_grids(cells: Sequence[Cell], metrics: dict[str, dict[str, float]]) -> list[Grid]:
    """What training reported of the held-out pairs, a row for each setting of which a seed is trained."""
    seeds = {
        label: [metrics[cell.name] for cell in cells if cell.label == label and metrics[cell.name]]
        for label in dict.fromkeys(cell.label for cell in cells)
    }
    seeds = {label: found for label, found in seeds.items() if found}
    names = [name for name in _HELD_OUT if any(name in of_seed for found in seeds.values() for of_seed in found)]
    if not names:
        return []
    rows: list[Sequence[str]] = [
        (
            label,
            str(len(found)),
            *(_over_seeds([of_seed[name] for of_seed in found if name in of_seed], name) for name in names),
        )
        for label, found in seeds.items()
    ]
    return [
        Grid(
            "Training",
            ("setting", "seeds", *(_HELD_OUT[name] for name in names)),
            rows,
            ("Mean ± standard deviation over seeds.",),
        )
    ]


def _over_seeds(values: Sequence[float], name: str) -> str:
    if not values:
        return "-"
    scale, digits = (100, 1) if name.endswith("accuracies") else (1, 3)
    spread = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{spread}"
