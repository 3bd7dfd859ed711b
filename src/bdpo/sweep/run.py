"""A sweep from beginning to end, or from where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bdpo.errors import BdpoError, unknown
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.plan import Task, plan_tasks
from bdpo.evaluate.results.tables import Grid
from bdpo.report.page import write_report
from bdpo.report.runs import TRAINED as SHOWN
from bdpo.sweep.cells import refuse_unfit_cell, run_cell
from bdpo.sweep.choose import choose, halves, parse_rule, refuse_unmeasured
from bdpo.sweep.plan import BASE, Cell, Study, cells
from bdpo.sweep.queue import Told, devices, run_here, run_on
from bdpo.sweep.results import Progress, reference, told


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
        tasks, rest = halves(tasks)
        refuse_unmeasured(parse_rule(study.choose), tasks, based=reference(found) == BASE)
    for cell in found:
        refuse_unfit_cell(cell, tasks)
    return found, tasks, rest


def run_sweep(
    study: Study, out: Path, judge: Judge, tell: Told, command: Callable[[Cell], Sequence[str]], only: str | None = None
) -> list[Grid]:
    """Run the cells that are not finished, several at once where there are several devices; at the end write results
    and page, and give the tables. A sweep that stops leaves the results of what it has.

    Args:
        command: the words of a command that runs one cell, for a process of its own.
        only: the name of the one cell to be run, after which nothing is compared: the cells of a cluster's array would
            each compare all the others.

    Raises:
        BdpoError: before anything runs where that can be; else at the end, where a cell failed.
    """
    found, tasks, rest = planned(study, out, judge, tell)
    if only is not None and only not in (names := [cell.name for cell in found]):
        raise unknown("cell", only, names)

    progress = Progress(study, found, tasks, out)

    def run(cell: Cell) -> None:
        run_cell(cell, tasks, judge)
        progress.write()
        done(cell)

    def done(cell: Cell) -> None:
        tell(told(progress.record(cell)))

    before = progress.look()
    todo = [cell for cell in found if only in (None, cell.name) and before[cell.name]["state"] != "finished"]
    if only is None:
        tell(f"{len(found)} cells, {len(found) - len(todo)} of them finished.")
    several = devices() if only is None else []
    grids: list[Grid] = []
    try:
        failed = run_on(several, todo, command, tell, done) if len(several) > 1 else run_here(todo, run, tell)
    except BaseException:
        if only is None and progress.look() != before:
            with suppress(BdpoError):  # what stopped the sweep is what is to be told
                progress.write_results()
        raise
    if only is None:
        grids = _end(progress, rest, judge, complete=not failed)
    if failed:
        name, why = next(iter(failed.items()))
        raise BdpoError(
            f"{len(failed)} of {len(found)} cells failed, first {name}: {why.rstrip('.')}. Mend that and run the same "
            "command again; what is finished is kept."
        )
    return grids


def _end(progress: Progress, rest: list[Task], judge: Judge, *, complete: bool) -> list[Grid]:
    """The results of all cells, of the picks where all is there to pick from, and the page."""
    study, found, out = progress.study, progress.cells, progress.out
    grids = progress.write_results()
    reached = [record["state"] for record in progress.look().values()]
    if study.choose is not None and complete and set(reached) == {"finished"}:
        grids += choose(parse_rule(study.choose), found, rest, out, judge)
    if any(one in SHOWN for one in reached):
        write_report([out], out / "report.html")
    return grids
