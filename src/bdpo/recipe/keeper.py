"""What keeps checkpoints while training: completes each, removes old ones, writes one where the run is stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from bdpo.processes import Stop, processes
from bdpo.recipe.checkpoints import write_manifest


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
