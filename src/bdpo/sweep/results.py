"""What a sweep has found.

sweep.json     the study, and each cell: how far it has come, its last metrics, its scores; written after each cell
compare.json   settings side by side, with differences to the baseline (see `evaluate.results.compare`), and methods as
               curves over their settings (see `curves_of`); compare.md
results.md     the tables that the command ends with

A comparison draws its resamples over all cells, so it is made when the sweep ends or stops, and not after each cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bdpo.evaluate.plan import Task
from bdpo.evaluate.results.compare import Comparison, compare, methods_of
from bdpo.evaluate.results.curve import curve_of
from bdpo.evaluate.results.curve_table import HARMFUL, HARMLESS, Curves, compared_curves, curve_grid
from bdpo.evaluate.results.outcomes import open_runs
from bdpo.evaluate.results.tables import Grid, comparison_grids, score_text, summary, worst_grids
from bdpo.files import one_at_a_time, read_json, write_json, write_whole
from bdpo.sweep.cells import State, state
from bdpo.sweep.plan import BASE, Cell, Study

_ACCURACY = "eval_rewards/accuracies"
_HELD_OUT = {
    _ACCURACY: "held-out accuracy [%]",
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
        return {cell.name: self.record(cell) for cell in self.cells}

    def record(self, cell: Cell) -> dict[str, Any]:
        """The record of one cell as it is now."""
        record = self._finished.get(cell.name) or self._record(cell)
        if record["state"] == "finished":
            self._finished[cell.name] = record
        return record

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
                curves = curves_of(evaluated, compared)
                drawn = [curve_grid(curves)] if curves else []
                write_json(self.out / "compare.json", compared.to_dict() | (curves.to_dict() if curves else {}))
                tables = comparison_grids(compared) + worst_grids(compared) + drawn
                _write_text(self.out / "compare.md", "Comparison", tables)
                grids = [setting_grid(compared), *drawn, *grids]
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


def curves_of(cells: Sequence[Cell], compared: Comparison) -> Curves | None:
    """Methods at equal harmless prompts answered, as `bdpo compare --curve` has them.

    None where no method has several settings, there is no other method, or prompts of one kind were not asked.
    """
    points = Counter(map(curve_of, compared.methods))
    if len(points) < 2 or max(points.values()) < 2 or not {HARMFUL, HARMLESS} <= compared.weights.keys():
        return None
    return compared_curves(methods_of([cell.evaluation for cell in cells]), compared.baseline)


def told(record: dict[str, Any]) -> str:
    """A cell in a line: its held-out accuracy and scores, or how far it has come.

    >>> told({"name": "DPO/seed-1", "state": "finished", "metrics": {"eval_rewards/accuracies": 0.925},
    ...       "scores": [{"task": "starter-safe", "score": 0.5}, {"task": "gsm8k", "score": None}]})
    'DPO/seed-1: held-out accuracy 92.5 %, starter-safe 50.0 %, gsm8k -'
    >>> told({"name": "DPO/seed-2", "state": "begun"})
    'DPO/seed-2: begun'
    """
    if record["state"] != "finished":
        return f"{record['name']}: {record['state']}"
    numbers = {"held-out accuracy": record["metrics"][_ACCURACY]} if _ACCURACY in record["metrics"] else {}
    numbers |= {score["task"]: score["score"] for score in record["scores"]}
    shown = (f"{name} -" if share is None else f"{name} {100 * share:.1f} %" for name, share in numbers.items())
    return f"{record['name']}: {', '.join(shown)}"


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
