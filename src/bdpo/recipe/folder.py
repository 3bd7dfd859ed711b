"""A run's folder: held by one process, what may be begun or resumed in it, and its result, which comes all at once.

recipe.yaml, scores.json, step.json   from the first step on; a resumed run must match them
checkpoint-N/                         see `checkpoints`
.lock                                 who holds the folder
.saving/, .saved/                     the result, half and wholly written; what is in .saved is moved up, the
                                      model card last, by whoever comes next if a stop kept the run from it
"""

from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError
from bdpo.files import NotWritable, folder_held, not_writable
from bdpo.processes import processes
from bdpo.recipe.checkpoints import MANIFEST, Checkpoints, find_checkpoints
from bdpo.terminal import visible

RECORDS = RECIPE, SCORES, STEP = "recipe.yaml", "scores.json", "step.json"
RUN, HELD_OUT = "run.json", "heldout.parquet"  # see `record`
CARD = "README.md"
TORN = "bring it back, or choose another --out"
_SAVING, _SAVED = ".saving", ".saved"


@contextmanager
def claimed(out: Path, resume: bool) -> Iterator[Checkpoints]:
    """Hold a run's folder while the run lives, and give the checkpoint to go on from.

    Raises:
        BdpoError: another process holds it, or what is in it can be neither begun nor resumed as asked for.
    """
    if out.exists() and not out.is_dir():
        raise BdpoError(f"{out} is a file: choose another --out.")
    if resume and not out.is_dir():
        raise BdpoError(f"{out} holds no checkpoint to resume from: leave --resume out, to begin again.")
    from accelerate.utils import broadcast_object_list

    if not processes().is_main_process:
        yield broadcast_object_list([None])[0]
        return
    with folder_held(out):
        _move_result(out)
        found = find_checkpoints(out)
        if resume:
            _refuse_to_resume(out, found)
        else:
            _refuse_to_begin(out, found)
        for checkpoint, why in found.passed_over.items():
            print(visible(f"{checkpoint} is passed over: {why}."), file=sys.stderr)
        try:
            yield broadcast_object_list([found])[0] if processes().num_processes > 1 else found
        finally:
            _move_result(out)


def is_finished(out: Path) -> bool:
    """Whether a run came to its end; a result that a stop kept from its place is moved there."""
    if (out / _SAVED).is_dir():
        with folder_held(out):
            _move_result(out)
    return (out / CARD).exists()


def how_to_go_on(out: Path) -> str:
    """What can be done with a run's folder after a stop, as the end of a sentence."""
    if not out.is_dir():
        return "run the same command again"
    found = find_checkpoints(out, read=False)
    if found.complete:
        return "run the same command again with --resume"
    if (out / CARD).exists():
        return "the run is finished"
    if found.alone or _held(out):
        return "to begin again choose another --out, or remove it"
    return "run the same command again"


def _refuse_to_resume(out: Path, found: Checkpoints) -> None:
    if found.complete is None:
        faults = {path.name: fault for path, fault in found.passed_over.items()}
        if found.alone:
            faults[found.alone.name] = "it holds the model alone, as train.save_only_model says"
        why = f" ({'; '.join(f'{name}: {fault}' for name, fault in faults.items())})" if faults else ""
        kept = found.alone or _held(out)
        mend = "choose another --out" if kept else "leave --resume out, to begin again"
        raise BdpoError(f"{out} holds no checkpoint to resume from{why}: {mend}.")
    for record in RECORDS:
        if not (out / record).exists():
            raise BdpoError(f"{out} holds no {record} to compare with: {TORN}.")


def _refuse_to_begin(out: Path, found: Checkpoints) -> None:
    if found.complete:
        raise BdpoError(f"{out} is not empty: resume it (--resume), choose another --out, or remove it.")
    if found.alone or _held(out):
        holds = "holds a finished run" if (out / CARD).exists() else "is not empty"
        raise BdpoError(f"{out} {holds}: choose another --out, or remove it.")


def _held(out: Path) -> list[str]:
    """What beginning anew could spoil: everything but records, checkpoints and hidden files."""
    names = (held.name for held in out.iterdir())
    return [name for name in names if not name.startswith((".", "checkpoint-")) and name not in RECORDS]


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Make one sentence of what cannot be written in a run's folder, and remove a half-written checkpoint.

    Raises:
        BdpoError: there is no room, or the like; or a pickle of a checkpoint holds more than tensors.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise BdpoError(
            f"A checkpoint in {out} is damaged or holds more than tensors, and then it could run code: {TORN}."
        ) from error
    except Exception as error:
        reason = not_writable(error)
        elsewhere = isinstance(error, NotWritable) and out not in error.path.parents  # in the cache
        if reason is None or elsewhere:
            raise
        for checkpoint in out.glob("checkpoint-*"):
            if processes().is_main_process and not (checkpoint / MANIFEST).exists():
                shutil.rmtree(checkpoint, ignore_errors=True)
        raise BdpoError(f"Cannot write in {out} ({reason}): make room; then {how_to_go_on(out)}.") from error


def save_result(out: Path, trainer: Any, write: Callable[[Path], None]) -> None:
    """Save a trainer's model, and what `write` adds in the main process, so that all of it comes at once."""
    saving = out / _SAVING
    main = processes().is_main_process
    if main:
        shutil.rmtree(saving, ignore_errors=True)
    processes().wait_for_everyone()
    try:
        trainer.save_model(str(saving))
        processes().wait_for_everyone()
        if main:
            write(saving)
            saving.rename(out / _SAVED)
            _move_result(out)
    finally:
        if main:
            shutil.rmtree(saving, ignore_errors=True)
    processes().wait_for_everyone()


def _move_result(out: Path) -> None:
    """Move a result that is whole to where it belongs, the model card last; remove one that is not."""
    shutil.rmtree(out / _SAVING, ignore_errors=True)
    saved = out / _SAVED
    if not saved.is_dir():
        return
    for path in sorted(saved.iterdir(), key=lambda path: path.name == CARD):
        if (out / path.name).is_dir():
            shutil.rmtree(out / path.name)
        path.replace(out / path.name)
    saved.rmdir()
