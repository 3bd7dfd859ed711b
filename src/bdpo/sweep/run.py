"""A sweep from beginning to end, or from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bdpo.errors import BdpoError, unknown
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.plan import Task, plan_tasks
from bdpo.evaluate.results.tables import Grid
from bdpo.report.page import write_report
from bdpo.report.runs import TRAINED as SHOWN
from bdpo.sweep.cells import refuse_unfit_cell, run_cell, state
from bdpo.sweep.choose import choose, halves, parse_rule, refuse_unmeasured
from bdpo.sweep.plan import Cell, Study, cells
from bdpo.sweep.queue import Told, devices, run_here, run_on
from bdpo.sweep.results import write_results


def planned(study: Study, out: Path, judge: Judge, tell: Told) -> tuple[list[Cell], list[Task], list[Task]]:
    """The cells of a sweep, what each is asked, and what only the picked ones are; checked before anything runs.

    Raises:
        BdpoError: whatever can be known to fail.
    """
    found = cells(study, out)
    if study.baseline is not None and study.baseline not in (labels := [cell.label for cell in found]):
        raise unknown("baseline", study.baseline, dict.fromkeys(labels))
    tasks, missing = plan_tasks(study.evaluate.plan(), judge)
    for why in missing.values():
        tell(f"Left out: {why}")
    rest: list[Task] = []
    if study.choose is not None:
        refuse_unmeasured(parse_rule(study.choose), tasks)
        tasks, rest = halves(tasks)
    for cell in found:
        refuse_unfit_cell(cell, tasks)
    return found, tasks, rest


def run_sweep(
    study: Study, out: Path, judge: Judge, tell: Told, command: Callable[[Cell], Sequence[str]], only: str | None = None
) -> list[Grid]:
    """Run the cells that are not finished, several at once where there are several devices; at the end write the
    page, and give the tables.

    Args:
        command: the words of a command that runs one cell, for a process of its own.
        only: the name of the one cell to be run.

    Raises:
        BdpoError: before anything runs where that can be; else at the end, where a cell failed.
    """
    found, tasks, rest = planned(study, out, judge, tell)
    if only is not None and only not in (names := [cell.name for cell in found]):
        raise unknown("cell", only, names)

    def run(cell: Cell) -> None:
        run_cell(cell, tasks, judge)
        write_results(study, found, tasks, out)

    todo = [cell for cell in found if only in (None, cell.name) and state(cell, tasks) != "finished"]
    if only is None:
        tell(f"{len(found)} cells, {len(found) - len(todo)} of them finished.")
    several = devices() if only is None else []
    failed = run_on(several, todo, command, tell) if len(several) > 1 else run_here(todo, run, tell)
    grids = write_results(study, found, tasks, out)
    whole = all(state(cell, tasks) == "finished" for cell in found)
    if study.choose is not None and only is None and whole and not failed:
        grids += choose(parse_rule(study.choose), found, rest, out, judge)
    if only is None and any(state(cell, tasks) in SHOWN for cell in found):
        write_report([out], out / "report.html")
    if failed:
        name, why = next(iter(failed.items()))
        raise BdpoError(
            f"{len(failed)} of {len(found)} cells failed, first {name}: {why.rstrip('.')}. Mend that and run the same "
            "command again; what is finished is kept."
        )
    return grids
