"""One cell: its scores made once for all that share them, trained or gone on with, then evaluated."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.evaluate.evaluation import evaluate, local_models
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.plan import Task
from bdpo.evaluate.results.outcomes import RUN_FILE, open_runs, refuse_other_settings
from bdpo.files import one_at_a_time
from bdpo.recipe.callback import evaluation_callbacks
from bdpo.recipe.checkpoints import find_checkpoints
from bdpo.recipe.data import read_data, refuse_errors
from bdpo.recipe.folder import RECIPE, is_finished
from bdpo.recipe.parts import bdpo_config, chat_template, load_model, lora_config
from bdpo.recipe.run import refuse_other_recipe, run_recipe, score_data
from bdpo.recipe.sections import Recipe
from bdpo.score.folder import open_scores
from bdpo.sweep.plan import Cell

State = Literal["waiting", "begun", "trained", "finished"]


def refuse_unfit_cell(cell: Cell, tasks: Sequence[Task]) -> None:
    """Refuse before any cell runs what can be known to fail, or what lies in the folder and is something else.

    Raises:
        BdpoError: the trainer or the adapter does not take the recipe; the folder holds a run of another recipe, or an
            evaluation with other settings.
    """
    try:
        bdpo_config(cell.recipe, cell.folder)
        lora_config(cell.recipe)
    except BdpoError as error:
        raise BdpoError(f"{cell.label}: {error}") from None
    if cell.seed is not None and (cell.folder / RECIPE).exists():
        refuse_other_recipe(cell.recipe, cell.folder)
    refuse_other_settings(cell.evaluation, {task.name: task.record.settings for task in tasks})


def state(cell: Cell, tasks: Sequence[Task]) -> State:
    """How far a cell has come."""
    if cell.seed is not None and not is_finished(cell.folder):
        return "begun" if (cell.folder / RECIPE).exists() else "waiting"
    if is_evaluated(cell.label, cell.evaluation, tasks):
        return "finished"
    return "waiting" if cell.seed is None else "trained"


def is_evaluated(label: str, folder: Path, tasks: Sequence[Task], seeds: int = 1) -> bool:
    """Whether a folder holds all outcomes of so many models of this name on all of these tasks."""
    if not any(folder.glob(f"*/{RUN_FILE}")):
        return False
    runs = [run for run in open_runs(folder) if run.name == label]
    return len(runs) >= seeds and all(
        run.tasks.get(task.name) == task.record and len(run.outcomes(task.name)) == task.record.expected
        for run in runs
        for task in tasks
    )


def run_cell(cell: Cell, tasks: Sequence[Task], judge: Judge) -> None:
    """Do of a cell what is not done yet.

    Raises:
        Held: another process is at it.
        BdpoError: what training and evaluating raise.
    """
    with one_at_a_time(cell.folder, wait=False):
        if cell.seed is not None and not is_finished(cell.folder):
            _score_once(cell.recipe)
            resume = find_checkpoints(cell.folder).complete is not None
            try:
                run_recipe(cell.recipe, cell.folder, resume=resume, callbacks=evaluation_callbacks(cell.recipe))
            finally:
                gc.collect()  # a trainer is a ring of references, which would hold its model while the next is loaded
        if not is_evaluated(cell.label, cell.evaluation, tasks):
            evaluate_cells([cell], tasks, cell.evaluation, judge)


def evaluate_cells(cells: Sequence[Cell], tasks: Sequence[Task], out: Path, judge: Judge) -> None:
    """The ordinary evaluation of cells that are trained, all of one model section."""
    recipe = cells[0].recipe
    subjects = local_models(
        [(cell.label, _model(cell)) for cell in cells],
        dtype=recipe.model.dtype,
        chat_template=chat_template(recipe),
        template_variables=recipe.model.chat_template_kwargs,
    )
    evaluate(subjects, tasks, out, judge)


def _model(cell: Cell) -> str:
    if cell.seed is not None:
        return str(cell.folder)
    section = cell.recipe.model
    return section.name if section.revision is None else str(models.resolve(section.name, revision=section.revision))


def _score_once(recipe: Recipe) -> None:
    """Make the scored data set of a recipe where it is not there; other processes that need it wait meanwhile.

    With comprehension, whether this cell needs it or not: others do, and by its terciles cells are compared.
    """
    folder = Path(str(recipe.score.dir))
    if _is_scored(folder):
        return
    with one_at_a_time(folder):
        if not _is_scored(folder):
            data = read_data(recipe)
            refuse_errors(recipe, data)
            score_data(recipe, load_model(recipe), data, measure=True)


def _is_scored(folder: Path) -> bool:
    try:
        return open_scores(folder).measured
    except BdpoError:
        return False
