"""Runs on the same prompts, side by side: rates, averages, and differences to a baseline.

Rows of a table are the benchmarks, then the average of each suite, then the overall average; its columns are methods.
Runs of one name are seeds of one method. Every difference is paired on the same prompts (see `statistics`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bdpo.errors import BdpoError
from bdpo.evaluate.judges import FILTERED, UNTAKEN
from bdpo.evaluate.results.kinds import KindRow, kind_rows
from bdpo.evaluate.results.outcomes import Run, open_runs, prompt_scores
from bdpo.evaluate.results.statistics import (
    Difference,
    Mean,
    Part,
    Rate,
    average,
    compare_means,
    compare_rates,
    holm,
    mean,
    rate,
)
from bdpo.evaluate.results.weights import shares_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A method on a row, and how it differs from the baseline (None for the baseline itself)."""

    score: Rate | Mean
    difference: Difference | None = None
    p_holm: float | None = None  # the difference's p, corrected for all of the table; None: several seeds or samples
    seeds: list[float] = field(default_factory=list)  # the score of each run, in the order of `Comparison.methods`
    gained: list[str] = field(default_factory=list)  # ids of the prompts on which the method alone succeeds, and the
    lost: list[str] = field(default_factory=list)  # baseline alone: the mean over seeds and samples is above 1/2, the
    # other's below


@dataclass(frozen=True)
class ComparedRow:
    """A benchmark, the average of a suite, or the overall average."""

    name: str
    kind: Literal["benchmark", "suite", "overall", "nats"]
    suite: str
    measure: str
    n: int  # prompts
    unread: int  # prompts left out of every method, since a judge's verdict on one of them could not be read
    filtered: int  # prompts left out of every method, since a provider's filter took one of them
    untaken: int  # prompts left out of every method, since a server did not take one of them
    cells: dict[str, Cell]  # by method


@dataclass(frozen=True)
class CategoryRow:
    """The prompts of one category of a benchmark, as its publishers have it; differences have no p."""

    benchmark: str
    category: str
    suite: str
    n: int  # prompts
    cells: dict[str, Cell]  # by method


@dataclass(frozen=True)
class Comparison:
    """A table, and what it was made of."""

    baseline: str
    reference: str
    methods: dict[str, list[str]]  # the models of each: its seeds
    weights: dict[str, float]  # of the suites in the overall average; they sum to 1
    settings: dict[str, dict[str, Any]]  # of each task, the same in all runs
    left_out: list[str]  # tasks that not every run was evaluated on
    rows: list[ComparedRow]
    categories: list[CategoryRow]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the end of an interval that is not finite is None."""
        return finite(asdict(self))


def finite(content: Any) -> Any:
    """Plain values, for JSON: a number that is not finite is None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def compare(
    folders: Sequence[str | Path], *, baseline: str | None = None, weights: Mapping[str, float] | None = None,
    reference: str | None = None,
) -> Comparison:  # fmt: skip
    """Compare all models evaluated in the folders.

    Args:
        baseline: name of the method that the others are compared with; None: the first one evaluated.
        reference: name of the model to which the rewards of preferences are log-ratios, the one that training began
            with; None: the first one evaluated.
        weights: of the suites in the overall average, in any scale; None: each suite that is there counts the same.

    Raises:
        BdpoError: no or incomplete results, runs that differ in prompts, judge or generation settings (the field is
            named), no such baseline, or weights that do not fit.
    """
    methods = methods_of(folders)
    first = next(iter(methods))
    baseline, reference = baseline or first, reference or first
    for name in (baseline, reference):
        if name not in methods:
            raise BdpoError(f"No method '{name}' to compare with; there are {', '.join(methods)}.")
    tables = shared_scores(methods)
    rows = _corrected([table.row(baseline) for table in tables.values()])
    averaged = {task: table for task, table in tables.items() if "+" not in task}  # the others: the same prompts again
    shares = shares_of(weights, {table.suite for table in averaged.values()})
    rows += [row for table in tables.values() for row in table.margins(baseline, reference)]
    rows += [_compared_kind(row) for task in tables for row in kind_rows(methods, task, baseline, reference)]
    rows += _averages(rows, averaged, shares, baseline)
    return Comparison(
        baseline=baseline,
        reference=reference,
        methods={name: [run.label for run in seeds] for name, seeds in methods.items()},
        weights=shares,
        settings={task: methods[first][0].tasks[task].settings for task in tables},
        left_out=sorted({task for seeds in methods.values() for run in seeds for task in run.tasks} - set(tables)),
        rows=rows,
        categories=[row for table in tables.values() for row in table.categories(baseline)],
    )


# --- what is compared ---------------------------------------------------------------------------------------------


def methods_of(folders: Sequence[str | Path]) -> dict[str, list[Run]]:
    """The runs by name; the same weights under the same name, with the same tasks in two folders, are one run.

    Raises:
        BdpoError: the second folder has something that the first has not, which would be lost.
    """
    methods: dict[str, list[Run]] = {}
    for run in (run for folder in folders for run in open_runs(folder)):
        seeds = methods.setdefault(run.name, [])
        twin = next((other for other in seeds if other.key == run.key), None)
        if twin is None:
            seeds.append(run)
            continue
        differing = next((task for task, record in run.tasks.items() if twin.tasks.get(task) != record), None)
        if differing is not None:
            raise BdpoError(
                f"{run.folder} and {twin.folder} are the same weights under one name, and differ in {differing}: "
                "evaluate into one folder, or compare one of the folders at a time."
            )
    return methods


def shared_scores(methods: Mapping[str, Sequence[Run]]) -> dict[str, Scores]:
    """The tasks that all runs have, with every method's scores.

    Raises:
        BdpoError: there is none, or the runs differ in its settings.
    """
    runs = [run for seeds in methods.values() for run in seeds]
    shared = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    if not shared:
        raise BdpoError("The runs have no benchmark in common: evaluate them with the same --suite.")
    for task in shared:
        _refuse_unlike(runs, task)
    return {task: Scores.read(methods, task) for task in shared}


def _refuse_unlike(runs: Sequence[Run], task: str) -> None:
    first = runs[0].tasks[task].settings
    for run in runs[1:]:
        other = run.tasks[task].settings
        field = next((field for field in {**first, **other} if first.get(field) != other.get(field)), None)
        if field is not None:
            raise BdpoError(
                f"{task} was evaluated with another {field} in {runs[0].folder} ({first.get(field)}) than in "
                f"{run.folder} ({other.get(field)}): such runs cannot be compared; evaluate one of them again."
            )


# --- one benchmark ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """What every method reached on a task: one column a prompt, the same prompts in the same order for all."""

    task: str
    suite: str
    measure: str
    ids: list[str]  # (N) of the prompts
    category: list[str]  # (N) of the prompts; empty texts where the data have none
    scores: dict[str, Array]  # method -> (S, N), in [0, 1]
    nats: dict[str, Array]  # method -> (S, N) margins of preferences; empty elsewhere
    unread: int
    filtered: int
    untaken: int
    single: bool  # one sample a prompt, so that scores are outcomes

    @classmethod
    def read(cls, methods: Mapping[str, Sequence[Run]], task: str) -> Scores:
        outcomes = {name: [run.whole(task) for run in seeds] for name, seeds in methods.items()}
        scored = {name: [prompt_scores(of_seed) for of_seed in seeds] for name, seeds in outcomes.items()}
        everyone = [of_seed for seeds in scored.values() for of_seed in seeds]
        ids = [id for id in everyone[0] if all(of_seed[id] is not None for of_seed in everyone)]
        if not ids:
            raise BdpoError(f"{task}: there is no prompt on which every run's reply could be judged.")
        margins = {
            name: np.array([[outcome.margin for outcome in of_seed] for of_seed in seeds], dtype=float)
            for name, seeds in outcomes.items()
            if seeds[0][0].margin is not None
        }
        record = next(iter(methods.values()))[0].tasks[task]
        arrays = {name: np.array([[of_seed[id] for id in ids] for of_seed in seeds]) for name, seeds in scored.items()}
        single = record.settings.get("samples", 1) == 1
        gone = {o.id: o.verdict for seeds in outcomes.values() for of_seed in seeds for o in of_seed if o.score is None}
        filtered, untaken = (list(gone.values()).count(verdict) for verdict in (FILTERED, UNTAKEN))
        unread = len(gone) - filtered - untaken
        categories = {outcome.id: outcome.category for outcome in next(iter(outcomes.values()))[0]}
        of_ids = [categories[id] for id in ids]
        return cls(task, record.suite, record.measure, ids, of_ids, arrays, margins, unread, filtered, untaken, single)

    @property
    def n(self) -> int:
        return next(iter(self.scores.values())).shape[1]

    def row(self, baseline: str) -> ComparedRow:
        return ComparedRow(
            self.task, "benchmark", self.suite, self.measure, *_counts([self]), self.cells(baseline)
        )  # fmt: skip

    def cells(self, baseline: str) -> dict[str, Cell]:
        cells = {}
        for name, scores in self.scores.items():
            seeds = scores.mean(axis=1).tolist()
            if name == baseline:
                cells[name] = Cell(self.score(name), seeds=seeds)
            else:
                difference = self._difference(scores, self.scores[baseline])
                gained, lost = self.flipped(name, baseline)
                cells[name] = Cell(self.score(name), difference, seeds=seeds, gained=gained, lost=lost)
        return cells

    def flipped(self, name: str, baseline: str) -> tuple[list[str], list[str]]:
        """Ids of the prompts gained and lost, by the mean over seeds: above 1/2 on one side, below on the other."""
        ours, theirs = (np.sign(self.scores[method].mean(axis=0) - 1 / 2) for method in (name, baseline))
        places = np.flatnonzero((ours > 0) & (theirs < 0)), np.flatnonzero((ours < 0) & (theirs > 0))
        gained, lost = ([self.ids[place] for place in side] for side in places)
        return gained, lost

    def categories(self, baseline: str) -> list[CategoryRow]:
        """A row for each category, where there are any; prompts without one are left out."""
        rows = []
        for category in sorted(set(self.category) - {""}):
            places = [place for place, name in enumerate(self.category) if name == category]
            scores = {name: of_method[:, places] for name, of_method in self.scores.items()}
            part = replace(self, ids=[self.ids[place] for place in places], scores=scores)
            cells = {name: _without_p(cell) for name, cell in part.cells(baseline).items()}
            rows.append(CategoryRow(self.task, category, self.suite, part.n, cells))
        return rows

    def margins(self, baseline: str, reference: str) -> list[ComparedRow]:
        """Of preferences: the margin, and the accuracy of the reward, which is the log-ratio to the reference."""
        if not self.nats:
            return []
        cells = {
            name: Cell(mean(nats), None if name == baseline else compare_means(nats, self.nats[baseline]))
            for name, nats in self.nats.items()
        }
        won = {
            name: (nats > self.nats[reference].mean(axis=0)).astype(float)
            for name, nats in self.nats.items()
            if name != reference
        }
        gained = {
            name: Cell(
                self._score(wins),
                None if name == baseline or baseline == reference else self._difference(wins, won[baseline]),
            )
            for name, wins in won.items()
        }
        margin = f"margin of log-probabilities [nats]; its difference is the log-ratio margin against {baseline}"
        accuracy = f"pairs whose chosen reply gained more on {reference} than the rejected one (reward accuracy)"
        return [
            ComparedRow(f"{self.task} margin", "nats", self.suite, margin, self.n, 0, 0, 0, cells),
            *(
                [ComparedRow(f"{self.task} reward", "benchmark", self.suite, accuracy, self.n, 0, 0, 0, gained)]
                if gained
                else []
            ),
        ]

    def score(self, method: str) -> Rate | Mean:
        return self._score(self.scores[method])

    def _score(self, scores: Array) -> Rate | Mean:
        """A rate with Wilson's interval where there is one run of outcomes, else a mean with a bootstrap interval."""
        return rate(int(scores.sum()), scores.shape[1]) if self._outcomes(scores) else mean(scores, shares=True)

    def _difference(self, scores: Array, baseline: Array) -> Difference:
        plain = self._outcomes(scores) and self._outcomes(baseline)
        return compare_rates(scores, baseline) if plain else compare_means(scores, baseline, shares=True)

    def _outcomes(self, scores: Array) -> bool:
        """Whether these are 0s and 1s of one run (some tasks of lm-eval score in between)."""
        return self.single and len(scores) == 1 and bool(((scores == 0) | (scores == 1)).all())


def _without_p(cell: Cell) -> Cell:
    """What stands beside the table's p values, and is not among those that Holm's correction takes together."""
    return replace(cell, difference=cell.difference and replace(cell.difference, p=None))


def _compared_kind(row: KindRow) -> ComparedRow:
    cells = {name: Cell(score, row.differences.get(name)) for name, score in row.scores.items()}
    return ComparedRow(row.name, "nats" if row.nats else "benchmark", "preferences", row.measure, row.n, 0, 0, 0, cells)


def _corrected(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """The rows with Holm's correction over all p values of the table, of every method and benchmark."""
    tested = [
        (row, name, cell.difference.p)
        for row in rows
        for name, cell in row.cells.items()
        if cell.difference is not None and cell.difference.p is not None
    ]
    adjusted = holm([p for *_, p in tested]) if tested else []
    for (row, name, _), p in zip(tested, adjusted, strict=True):
        row.cells[name] = replace(row.cells[name], p_holm=p)
    return list(rows)


# --- averages -----------------------------------------------------------------------------------------------------


def _averages(
    rows: Sequence[ComparedRow], tables: Mapping[str, Scores], weights: Mapping[str, float], baseline: str
) -> list[ComparedRow]:
    """A row for the mean over the benchmarks of each suite, and one for their weighted mean."""
    averages = []
    of_suite = {suite: [table for table in tables.values() if table.suite == suite] for suite in weights}
    for suite, members in of_suite.items():
        if len(members) == 1:
            cells = next(row.cells for row in rows if row.name == members[0].task)
        else:
            cells = _average(members, [1 / len(members)] * len(members), baseline)
        names = ", ".join(table.task for table in members)
        averages.append(ComparedRow(suite, "suite", suite, f"mean of {names}", *_counts(members), cells))
    if not averages:
        return []
    everything = [table for members in of_suite.values() for table in members]
    shares = [weight / len(of_suite[suite]) for suite, weight in weights.items() for _ in of_suite[suite]]
    told = ", ".join(f"{weight:.2f} {suite}" for suite, weight in weights.items())
    cells = _average(everything, shares, baseline)
    return [*averages, ComparedRow("overall", "overall", "", f"weighted mean: {told}", *_counts(everything), cells)]


def _average(tables: Sequence[Scores], weights: Sequence[float], baseline: str) -> dict[str, Cell]:
    parts = [Part(table.n, weight) for table, weight in zip(tables, weights, strict=True)]
    joined = {name: np.concatenate([table.scores[name] for table in tables], axis=1) for name in tables[0].scores}
    cells = {}
    for name, scores in joined.items():
        found = [table.score(name) for table in tables]
        rates = [score for score in found if isinstance(score, Rate)]
        score = average(rates, weights) if len(rates) == len(found) else mean(scores, shares=True, parts=parts)
        seeds = sum(weight * table.scores[name].mean(axis=1) for table, weight in zip(tables, weights, strict=True))
        if name == baseline:
            cells[name] = Cell(score, seeds=np.asarray(seeds).tolist())
            continue
        flipped = [table.flipped(name, baseline) for table in tables]
        gained, lost = ([id for of_table in flipped for id in of_table[side]] for side in (0, 1))
        difference = compare_means(scores, joined[baseline], shares=True, parts=parts)
        cells[name] = Cell(score, difference, seeds=np.asarray(seeds).tolist(), gained=gained, lost=lost)
    return cells


def _counts(tables: Sequence[Scores]) -> tuple[int, int, int, int]:
    """Prompts, and prompts left out for each reason, of several benchmarks."""
    counts = ((table.n, table.unread, table.filtered, table.untaken) for table in tables)
    n, unread, filtered, untaken = map(sum, zip(*counts, strict=True))
    return n, unread, filtered, untaken
