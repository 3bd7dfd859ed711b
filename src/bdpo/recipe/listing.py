"""The runs below a folder, a line each: what they were told, and what came of it.

A run is a folder whose run.json is that of training (see `record`). The folder of an evaluated model has a run.json too
(`evaluate.results.outcomes`): what it says of a run listed is that run's safety and over-refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bdpo.errors import BdpoError, first_line, unknown
from bdpo.evaluate.results.outcomes import Run, open_runs, prompt_scores
from bdpo.files import read_json
from bdpo.recipe.folder import RECIPE, RUN
from bdpo.recipe.gap import GAPS
from bdpo.yaml_text import read_yaml

_FAULT = "it is no run of this version of `bdpo train`"
COLUMNS = {
    "run": "", "method": "", "beta": "g", "temperature": "g", "lr": "g", "seed": "", "accuracy": ".1f", "gap": "+.1f",
    "margin-gap": "+.2f", "chosen": ".2f", "rejected": ".2f", "safety": ".1f", "over-refusal": ".1f",
}  # fmt: skip
"""The names of a line's values, and how they are written."""

Line = dict[str, str | float | None]  # by the names of COLUMNS


@dataclass(frozen=True)
class Listing:
    """Runs, and a sentence for each that cannot be read."""

    lines: list[Line]
    faults: list[str]


def list_runs(folder: Path, sort: str = "run") -> Listing:
    """All runs below a folder: numbers from the largest on, texts from A on, what a run lacks last.

    Raises:
        BdpoError: no such folder or column, or no run in it.
    """
    if sort not in COLUMNS:
        raise unknown("column", sort, COLUMNS)
    if not folder.is_dir():
        raise BdpoError(f"{folder} is no folder: name one that holds runs of `bdpo train`.")
    lines: list[Line] = []
    faults: list[str] = []
    evaluations = set()
    for path in _records(folder):
        try:
            if {"tasks", "key", "order"} <= read_json(path, _FAULT).keys():
                evaluations.add(path.parents[1])
            else:
                lines.append(_line(path.parent, folder))
        except BdpoError as error:
            faults.append(str(error))
    if not lines and not faults:
        raise BdpoError(f"{folder} holds no run (no {RUN} of `bdpo train` in it).")
    for place in sorted(evaluations):
        try:
            _add_scores(lines, folder, place)
        except BdpoError as error:
            faults.append(str(error))
    return Listing(_sorted(lines, sort), faults)


def _records(folder: Path) -> list[Path]:
    """Every run.json, but for what is half written."""
    found = sorted(folder.rglob(RUN))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _add_scores(lines: Sequence[Line], folder: Path, evaluation: Path) -> None:
    for run, scores in _evaluated(evaluation):
        for line in lines:
            if _is_of(run, folder / str(line["run"])):
                line.update(scores)


def _sorted(lines: Sequence[Line], column: str) -> list[Line]:
    numbers = [line for line in lines if isinstance(line[column], int | float)]
    numbers.sort(key=lambda line: -float(line[column] or 0))
    texts = sorted((line for line in lines if isinstance(line[column], str)), key=lambda line: str(line[column]))
    return [*numbers, *texts, *(line for line in lines if line[column] is None)]


def _line(run: Path, below: Path) -> Line:
    record = read_json(run / RUN, _FAULT, format=int, method=str, scores=dict)
    final = read_json(run / "metrics.json", _FAULT, final=dict, history=list)["final"]
    try:
        recipe = read_yaml(run / RECIPE)
        loss, balance, train = (dict(recipe[section] or {}) for section in ("loss", "balance", "train"))
        keys = ("eval_rewards/accuracies", *GAPS, "eval_logratios/chosen", "eval_logratios/rejected")
        accuracy, gap, margin_gap, chosen, rejected = (_number(final.get(key)) for key in keys)
        return {
            "run": run.relative_to(below).as_posix(),
            "method": record["method"],
            "beta": _number(record["beta"]) if "beta" in record else _beta(loss),
            "temperature": _number(balance["temperature"]) if balance["enabled"] else None,
            "lr": _number(train.get("learning_rate")),
            "seed": int(train.get("seed", 42)),
            "accuracy": None if accuracy is None else 100 * accuracy,
            "gap": None if gap is None else 100 * gap,
            "margin-gap": margin_gap,
            "chosen": chosen,
            "rejected": rejected,
            "safety": None,
            "over-refusal": None,
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BdpoError(f"{run} cannot be read ({first_line(error)}): {_FAULT}.") from error


def _beta(loss: dict[str, Any]) -> float | None:
    """Of a run that was made before run.json had it."""
    from bdpo.method.losses import loss_parameters

    given = {key: value for key, value in loss.items() if key != "name" and value is not None}
    return loss_parameters(loss["name"], **given).get("beta")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _evaluated(folder: Path) -> Iterator[tuple[Run, Line]]:
    """Safety and over-refusal of each model of an evaluation: the mean over benchmarks as they are, in percent."""
    for run in open_runs(folder):
        found: dict[str, list[float]] = {"safety": [], "over-refusal": []}
        for task, record in run.tasks.items():
            if record.suite in found and "+" not in task:
                outcomes = run.outcomes(task)
                scores = [score for score in prompt_scores(outcomes).values() if score is not None]
                if scores and len(outcomes) == record.expected:
                    found[record.suite].append(mean(scores))
        yield run, {suite: 100 * mean(shares) for suite, shares in found.items() if shares}


def _is_of(evaluated: Run, run: Path) -> bool:
    """Whether a run is the model that was evaluated: its path, or that within the run's own folder its name."""
    model = Path(evaluated.model)
    if model.resolve() == run.resolve():
        return True
    return evaluated.folder.parents[1].resolve() == run.resolve() and model.name == run.resolve().name


def cells(line: Line) -> list[str]:
    """A line as texts, a value that is not there as -."""
    return ["-" if line[name] is None else format(line[name], how) for name, how in COLUMNS.items()]
