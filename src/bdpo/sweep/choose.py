"""A setting of each method picked on validation prompts, and evaluated once on the rest.

    MEASURE                                 the highest
    MEASURE while MEASURE <= NUMBER         the highest of those that keep to the bound; also >=

A measure is a suite, `overall`, or a row of the table such as a benchmark, in per cent as the table has it (margins in
nats). One is turned round: `over-refusal` is the share of harmless prompts that are NOT answered, and lower is better.

A prompt belongs to the validation prompts or to the rest by a hash of its request, so that it does so in every
benchmark, in other wordings too, and in every sweep.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import ge, le
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError, unknown
from bdpo.evaluate.ask import AVERAGED
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.plan import Task, of_items
from bdpo.evaluate.results.compare import Comparison, compare
from bdpo.evaluate.results.kinds import REWARD, row_names
from bdpo.evaluate.results.tables import Grid, comparison_grids
from bdpo.files import key_difference, one_at_a_time, read_json, write_json
from bdpo.sweep.cells import evaluate_cells, is_evaluated
from bdpo.sweep.plan import BASE, Cell
from bdpo.sweep.results import baseline_of, compare_cells, reference, setting_grid

CHOSEN = "chosen.json"
_RULE = re.compile(r"(?P<best>[^<>=]+?)( while (?P<bounded>[^<>=]+?) ?(?P<bound><=|>=) ?(?P<number>-?\d+(\.\d+)?))?")
_BOUNDS: dict[str, Callable[[float, float], bool]] = {"<=": le, ">=": ge}
_TURNED = "over-refusal"


@dataclass(frozen=True)
class Rule:
    """By what a setting is picked."""

    best: str  # measure
    bounded: str | None = None  # measure
    bound: str = "<="
    number: float = 0.0

    @property
    def measures(self) -> list[str]:
        """The measures it needs."""
        return [self.best] if self.bounded is None else [self.best, self.bounded]


def parse_rule(text: str) -> Rule:
    """The rule of --choose.

    >>> parse_rule("safety while over-refusal <= 5")
    Rule(best='safety', bounded='over-refusal', bound='<=', number=5.0)

    Raises:
        BdpoError: it is none.
    """
    found = _RULE.fullmatch(" ".join(text.split()))
    if not found or " while" in found["best"]:
        raise BdpoError(
            f"--choose '{text}': write MEASURE, or MEASURE while MEASURE <= NUMBER (or >=), for example "
            "'safety while over-refusal <= 5'."
        )
    if found["bounded"] is None:
        return Rule(found["best"])
    return Rule(found["best"], found["bounded"], found["bound"], float(found["number"]))


def refuse_unmeasured(rule: Rule, tasks: Sequence[Task], *, based: bool) -> None:
    """Raise BdpoError where the tasks give no such measure.

    Args:
        based: the model as it comes is evaluated too, so that there are rewards.
    """
    known = measures(tasks, rewards=based)
    for measure in rule.measures:
        if measure not in known:
            raise unknown("measure of --choose", measure, known)


def measures(tasks: Sequence[Task], *, rewards: bool) -> list[str]:
    """The rows that a comparison of these tasks can have; of prompts in other wordings there is no average."""
    averaged = {task.record.suite for task in tasks if "+" not in task.name}
    names = [suite for suite in AVERAGED if suite in averaged]
    names += ["overall"] if names else []
    for task in tasks:
        names.append(task.name)
        if task.scorer.margins:
            names += [f"{task.name} margin", *([f"{task.name}{REWARD}"] if rewards else [])]
            names += row_names(task.name, {item.kind for item in task.items}, rewards=rewards)
    return names


def is_validation(request: str) -> bool:
    """Whether a prompt is one of those that settings are picked on: half of all.

    >>> [is_validation(text) for text in ("How do I knot a tie?", "How do I sew a button?")]
    [False, True]
    """
    return hashlib.sha256(request.encode()).digest()[0] % 2 == 0


def halves(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """Every task on its validation prompts, and on the rest.

    Raises:
        BdpoError: a half would be empty.
    """
    found: tuple[list[Task], list[Task]] = [], []
    for task in tasks:
        for part, validation in zip(found, (True, False), strict=True):
            items = [item for item in task.items if is_validation(item.request) == validation]
            if not items:
                raise BdpoError(f"--choose: {task.name} has too few prompts to be split in two; raise --limit.")
            part.append(of_items(task, items))
    return found


def pick(rule: Rule, compared: Comparison, methods: dict[str, list[str]]) -> dict[str, str]:
    """Of each method the best of its settings that keep to the bound; a method none of whose settings does is left out.

    Of equals, the first.

    Args:
        methods: the settings of each, as the comparison names them.
    """
    picked = {}
    for method, labels in methods.items():
        kept = [label for label in labels if rule.bounded is None or _keeps(rule, compared, label)]
        if kept:
            sign = -1 if rule.best == _TURNED else 1
            picked[method] = max(kept, key=lambda label: sign * measured(compared, label, rule.best))
    return picked


def _keeps(rule: Rule, compared: Comparison, label: str) -> bool:
    return _BOUNDS[rule.bound](measured(compared, label, str(rule.bounded)), rule.number)


def measured(compared: Comparison, label: str, measure: str) -> float:
    """What a setting reached, in per cent or nats.

    Raises:
        BdpoError: there is no such row.
    """
    row = next((row for row in compared.rows if row.name == measure), None)
    if row is None or label not in row.cells:
        raise unknown("measure of --choose", measure, dict.fromkeys(row.name for row in compared.rows))
    value = row.cells[label].score.value
    if row.kind == "nats":
        return value
    return 100 * (1 - value) if measure == _TURNED else 100 * value


def choose(rule: Rule, cells: Sequence[Cell], rest: Sequence[Task], out: Path, judge: Judge) -> list[Grid]:
    """Pick on what the cells' evaluations hold, and evaluate the picks, all their seeds, on the rest.

    The pick stands in `chosen.json` before the rest is asked, and another one is refused: the rest would no longer be
    unseen.

    Raises:
        BdpoError: no setting keeps to the bound, or something else was picked here before.
    """
    compared = compare_cells(cells, reference(cells))
    methods: dict[str, list[str]] = {}
    for cell in cells:
        if cell.label != BASE and cell.label not in methods.setdefault(cell.method, []):
            methods[cell.method].append(cell.label)
    picked = pick(rule, compared, methods)
    if not picked:
        raise BdpoError(
            "--choose: no setting keeps to the bound on the validation prompts; loosen it, or widen --grid."
        )
    has = {row.name: row.cells.keys() for row in compared.rows}  # the reference has no reward
    values = {
        label: {measure: measured(compared, label, measure) for measure in rule.measures if label in has[measure]}
        for label in compared.methods
    }
    record = {"rule": vars(rule), "picked": picked, "validation": values}
    taken = [cell for cell in cells if cell.label in (BASE, *picked.values())]
    folder = out / "chosen"
    with one_at_a_time(folder):
        _settle(out / CHOSEN, record)
        if not all(is_evaluated(cell.label, folder, rest, _seeds(taken, cell.label)) for cell in taken):
            evaluate_cells(taken, rest, folder, judge)
        found = compare([folder], baseline=baseline_of(taken))
        write_json(folder / "compare.json", found.to_dict())
    return [
        setting_grid(
            compare([folder], baseline=reference(taken), reference=reference(taken)),
            "Picked on validation prompts, evaluated on the rest",
        ),
        comparison_grids(found)[-1],
    ]


def _settle(path: Path, record: dict[str, Any]) -> None:
    """Write down what was picked, or refuse another pick than the one that is there."""
    if path.exists():
        there = read_json(path, "choose another --out", picked=dict, rule=dict)
        different = key_difference(*({"rule": of["rule"], "picked": of["picked"]} for of in (there, record)))
        if different:
            raise BdpoError(
                f"{path} holds another pick, whose evaluation has seen the rest of the prompts; it differs in "
                f"{'; '.join(different)}. Choose another --out, or leave --choose out."
            )
    write_json(path, record)


def _seeds(cells: Sequence[Cell], label: str) -> int:
    return sum(cell.label == label for cell in cells)
