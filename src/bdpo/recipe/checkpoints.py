"""Checkpoints that training can go on from: what completes one, and the newest that is complete.

    checkpoint-N/manifest.json    size and SHA-256 of every other file, written after all of them

A checkpoint without it was not written to its end; one whose files are other ones is damaged. Neither is resumed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from bdpo.errors import BdpoError
from bdpo.files import file_hash, read_json, write_json
from bdpo.processes import Stop, processes

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoints:
    """What the checkpoints of a run are good for."""

    complete: Path | None = None  # the newest that training can go on from
    passed_over: dict[Path, str] = field(default_factory=dict)  # newer ones that it cannot go on from, and why
    alone: Path | None = None  # the newest that holds the model alone, as train.save_only_model says


def find_checkpoints(out: Path, *, read: bool = True) -> Checkpoints:
    """Look at the checkpoints in a run's folder, the newest first, down to one that training can go on from.

    Args:
        read: compare the files' bytes, and not their sizes only.
    """
    passed_over: dict[Path, str] = {}
    alone = None
    for checkpoint in sorted(out.glob("checkpoint-*"), key=_step, reverse=True):
        if _step(checkpoint) < 0 or not checkpoint.is_dir():
            continue
        fault, resumable = _looked_at(checkpoint, read)
        if fault is None and resumable:
            return Checkpoints(checkpoint, passed_over, alone)
        if fault is None:
            alone = alone or checkpoint
        else:
            passed_over[checkpoint] = fault
    return Checkpoints(None, passed_over, alone)


def write_manifest(checkpoint: Path, *, resumable: bool) -> None:
    """Complete a checkpoint all of whose other files are written."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / MANIFEST)
    write_json(
        checkpoint / MANIFEST,
        {
            "step": _step(checkpoint),
            "resumable": resumable,
            "files": {
                path.relative_to(checkpoint).as_posix(): {"size": path.stat().st_size, "sha256": file_hash(path)}
                for path in files
            },
        },
    )


def _looked_at(checkpoint: Path, read: bool) -> tuple[str | None, bool]:
    """What is wrong with a checkpoint, and whether it holds what resuming needs."""
    if not (checkpoint / MANIFEST).exists():
        return "it was not written to its end", False
    try:
        manifest = read_json(checkpoint / MANIFEST, "", step=int, resumable=bool, files=dict)
    except BdpoError:
        return f"its {MANIFEST} is damaged", False
    if manifest["step"] != _step(checkpoint):
        return f"it is a copy of checkpoint-{manifest['step']}", False
    for name, written in manifest["files"].items():
        path = checkpoint / name
        if not path.resolve().is_relative_to(checkpoint.resolve()):
            return f"its {MANIFEST} names {name}, which is not in it", False
        if not path.is_file():
            return f"{name} is missing", False
        there = {"size": path.stat().st_size, "sha256": file_hash(path)} if read else {"size": path.stat().st_size}
        if not isinstance(written, dict) or any(written.get(key) != value for key, value in there.items()):
            return f"{name} is damaged", False
    return None, manifest["resumable"]


def _step(checkpoint: Path) -> int:
    found = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(found[1]) if found else -1


class CheckpointKeeper(TrainerCallback):
    """Completes each checkpoint, then removes old ones; writes a last one where the run is told to stop.

    Trainer's own limit must be off: it would remove the last complete checkpoint before the next one is complete.

    Args:
        stop: says whether to stop.
        limit: how many checkpoints are kept (train.save_total_limit).
        passed_over: folders of checkpoints that are removed before the run comes to their steps again.
    """

    def __init__(self, stop: Stop, limit: int | None, passed_over: dict[Path, str]) -> None:
        self.stop, self.limit, self.passed_over = stop, limit, passed_over
        self.begun_at = self.saved_at = -1  # step
        self.stopping = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove what was passed over."""
        self.begun_at = self.saved_at = state.global_step
        if args.should_save:
            for checkpoint in self.passed_over:
                shutil.rmtree(checkpoint, ignore_errors=True)
        processes().wait_for_everyone()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Train no further than the end, which the checkpoint may be at."""
        if state.global_step >= state.max_steps:
            control.should_training_stop = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """From now on there is something to lose."""
        self.stop.waits = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop between two steps; after the last one of an epoch there may be more to do."""
        if state.epoch % 1 and state.global_step < state.max_steps:
            self._stop(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop between two epochs; do again nothing of what was done before the checkpoint that this run began at."""
        if state.global_step == self.begun_at:
            control.should_log = control.should_evaluate = control.should_save = False
        self._stop(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the checkpoint that was just written."""
        processes().wait_for_everyone()  # each wrote files of its own
        if args.should_save:
            out = Path(args.output_dir)
            write_manifest(out / f"checkpoint-{state.global_step}", resumable=not args.save_only_model)
            best = state.best_model_checkpoint
            rotate_checkpoints(str(out), save_total_limit=self.limit, best_model_checkpoint=best)
        self.saved_at = state.global_step
        if self.stopping:
            self.stop.now()

    def _stop(self, args: Any, state: Any, control: Any) -> None:
        """Have a checkpoint written if a signal came, after which the run ends."""
        if self.stop.noted is None:
            return
        if args.save_only_model or self.saved_at == state.global_step:
            self.stop.now()
        control.should_log = control.should_save = self.stopping = True
