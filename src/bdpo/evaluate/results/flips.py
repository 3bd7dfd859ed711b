"""The prompts on which a method succeeds and the baseline does not, or the other way round, with both replies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bdpo.evaluate.results.compare import Comparison
from bdpo.evaluate.results.outcomes import Outcome, Run


@dataclass(frozen=True)
class Flip:
    """A prompt of a benchmark, gained or lost against the baseline."""

    benchmark: str
    method: str
    gained: bool
    before: Outcome  # the baseline's
    after: Outcome


def flips(comparison: Comparison, methods: Mapping[str, Sequence[Run]], top: int) -> list[Flip]:
    """The first `top` prompts gained, and as many lost, of each benchmark and method.

    Of several seeds or samples the first reply stands for all that goes with the majority of its side.

    Args:
        methods: the runs compared (`compare.methods_of`).
    """
    found = []
    for row in comparison.rows:
        if row.name not in comparison.settings:  # an average, or another measure of a benchmark
            continue
        told = {name: cell for name, cell in row.cells.items() if cell.gained or cell.lost}
        outcomes = {name: _by_prompt(methods[name], row.name) for name in (comparison.baseline, *told)} if told else {}
        for name, cell in told.items():
            for gained, ids in ((True, cell.gained), (False, cell.lost)):
                for id in ids[:top]:
                    before = _first(outcomes[comparison.baseline][id], success=not gained)
                    found.append(Flip(row.name, name, gained, before, _first(outcomes[name][id], success=gained)))
    return found


def _by_prompt(runs: Sequence[Run], task: str) -> dict[str, list[Outcome]]:
    by_prompt: dict[str, list[Outcome]] = {}
    for run in runs:
        for outcome in run.whole(task):
            by_prompt.setdefault(outcome.id, []).append(outcome)
    return by_prompt


def _first(outcomes: Sequence[Outcome], *, success: bool) -> Outcome:
    return next(o for o in outcomes if o.score is not None and (o.score > 1 / 2 if success else o.score < 1 / 2))
