"""What training says while it runs and at its end; trackers and metrics.json get all of it.

In a terminal one live line, on standard error; elsewhere, or with `disable_tqdm`, a plain line each time something is
logged.
"""

from __future__ import annotations

import logging
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from bdpo.terminal import LINE, LiveLine, bar, duration, fitting, is_terminal, plain, visible

STEPS, PAIRS = "window/steps", "window/pairs"  # of the mean that is logged
_VALUES = (  # key, its name in a long line and in a short one, and how it is written there
    ("loss", "loss", "loss", ".4f", ".3f"),
    ("rewards/accuracies", "accuracy", "acc", ".2f", ".2f"),
    ("rewards/margins", "margin", "margin", "+z.3f", "+z.2f"),
    ("logratios/chosen", "chosen log-ratio", "chosen", "+z.2f", "+z.1f"),
    ("learning_rate", "learning rate", "lr", ".1e", ".0e"),
)
_ROWS = {
    "loss": "loss",
    "preference accuracy": "rewards/accuracies",
    "reward margin": "rewards/margins",
    "chosen log-ratio [nats]": "logratios/chosen",
    "rejected log-ratio [nats]": "logratios/rejected",
}
_OFTEN = 0.1  # seconds between two writings of the live line

Logs = Mapping[str, Any]


@contextmanager
def without_noise() -> Iterator[None]:
    """Training without what transformers says of it that tells nothing: that a model gets its tokenizer's end token."""
    logger = logging.getLogger("transformers.trainer_utils")
    logger.addFilter(_tells)
    try:
        yield
    finally:
        logger.removeFilter(_tells)


def _tells(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("The tokenizer has new PAD/BOS/EOS tokens")


class LastStep(TrainerCallback):
    """Has the last step logged, wherever training ends, so that no pair is missing from what was logged."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the step at which training ends."""
        if args.logging_strategy != "no" and (control.should_training_stop or state.global_step >= state.max_steps):
            control.should_log = True  # Trainer logs no step twice

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log it where an evaluation ended training."""
        if args.logging_strategy != "no" and control.should_training_stop:
            control.should_log = True


class Shown(TrainerCallback):
    """Shows how training goes, in the main process."""

    def __init__(self) -> None:
        self.line: LiveLine | None = None
        self.bar: Any = None  # of held-out pairs
        self.logs: dict[str, Any] = {}  # of the last window of training
        self.begun, self.begun_at, self.written, self.held = 0.0, 0, 0.0, ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock runs."""
        self.begun, self.begun_at, self.logs = time.perf_counter(), state.global_step, {}
        if state.is_world_process_zero and not args.disable_tqdm and LiveLine.possible():
            self.line = LiveLine()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the line anew."""
        now = time.perf_counter()
        if self.line is not None and now - self.written >= _OFTEN:
            self.written = now
            self.line.show(forms(_at(state), self.logs, left=self._left(state)))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Keep a window of training for the live line; print everything else, and all where there is none."""
        if not state.is_world_process_zero or not logs:
            return
        self._end_bar()
        if "loss" in logs and self.line is not None:
            self.logs = dict(logs)
            self.line.show(forms(_at(state), self.logs, left=self._left(state)))
            return
        width = min(LINE, Console(stderr=True).width) if is_terminal() else LINE
        told = visible(self._told(state, logs, width))
        if told != self.held:  # the last evaluation of a run may be what was said already
            LiveLine.pause()
            print(textwrap.fill(told, width, subsequent_indent="  "), file=sys.stderr)
        self.held = told if "eval_loss" in logs else self.held

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A batch of held-out pairs is done."""
        if args.disable_tqdm or not is_terminal():
            return
        if self.bar is None:
            self.bar = bar("evaluating held-out pairs", len(kwargs["eval_dataloader"]), "batches", leave=False)
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the terminal as it was."""
        self.close()

    def close(self) -> None:
        """The same, also where training was stopped."""
        self._end_bar()
        if self.line is not None:
            self.line.close()
            self.line = None

    def _end_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _left(self, state: Any) -> str:
        done = state.global_step - self.begun_at
        if not done or state.global_step >= state.max_steps:
            return ""
        return f"{duration((time.perf_counter() - self.begun) / done * (state.max_steps - state.global_step))} left"

    def _told(self, state: Any, logs: Logs, width: int) -> str:
        at = _at(state)
        if "loss" in logs:
            return fitting(forms(at, logs, left=self._left(state)), width)
        if "eval_loss" in logs:
            return fitting(forms(f"{at}  held out:", logs, prefix="eval_"), width)
        if "train_loss" in logs:
            took, speed = duration(logs["train_runtime"]), logs["train_samples_per_second"]
            return f"{at}  trained in {took}, {speed:.3g} pairs/s, mean loss {logs['train_loss']:.4f}"
        values = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in logs.items()}
        return "  ".join([at, *(f"{key} {value}" for key, value in values.items() if key != "epoch")])


class EndTable(TrainerCallback):
    """Prints the table at the end of `train()`, for those who call it themselves."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print it."""
        if state.is_world_process_zero and not args.disable_tqdm:
            print_training(state.log_history, Console())


def forms(at: str, logs: Logs, *, prefix: str = "", left: str = "") -> list[str]:
    """One line about training, from its longest form to its shortest.

    >>> forms("step 3/8", {"loss": 0.6931, "rewards/accuracies": 0.5, "grad_norm": 1.5}, left="9 s left")
    ['step 3/8  loss 0.6931  accuracy 0.50  9 s left', '3/8  loss 0.6931  acc 0.50  9 s left', \
'3/8  loss 0.693  acc 0.50  9 s left', '3/8 loss 0.693 acc 0.50 9 s left']

    Args:
        at: what stands in front.
        prefix: of the keys in `logs`; what is not there is left out.
    """
    there = [(logs[prefix + key], *how) for key, *how in _VALUES if prefix + key in logs]
    end = [left] if left else []
    long = [at, *(f"{name} {value:{how}}" for value, name, _, how, _ in there), *end]
    at = at.removeprefix("step ")
    middle = [at, *(f"{name} {value:{how}}" for value, _, name, how, _ in there), *end]
    short = [at, *(f"{name} {value:{how}}" for value, _, name, _, how in there), *end]
    return ["  ".join(long), "  ".join(middle), "  ".join(short), " ".join(short)]


def print_training(history: Iterable[Logs], console: Console) -> None:
    """Print the last window of training beside the last held-out values, where there are any.

    Args:
        history: what was logged, in the order of steps.
    """
    logged = list(history)
    trained: Logs = next((entry for entry in reversed(logged) if "loss" in entry), {})
    held: Logs = next((entry for entry in reversed(logged) if "eval_loss" in entry), {})
    if not trained:
        console.print(plain("No step of training was logged."))
    if not trained and not held:
        return
    table = Table(title=plain("Training and held-out pairs"), title_justify="left", show_edge=False, pad_edge=False)
    held_at = f"held out, step {held['step']}" if "step" in held else "held out"
    table.add_column("")
    of = window(trained)
    if len(of) > console.width - len(held_at) - max(map(len, _ROWS)) - 6:
        of = of.replace(", ", ",\n", 1)
    table.add_column(plain(of), justify="right")
    table.add_column(plain(held_at), justify="right")
    for text, name in _ROWS.items():
        cells = (trained.get(name), held.get(f"eval_{name}"))
        table.add_row(plain(text), *("-" if value is None else f"{value:.3f}" for value in cells))
    console.print(table)


def mean_loss(history: Iterable[Logs]) -> dict[str, float]:
    """The loss of all steps that were logged: after a resume transformers' own mean is of the steps since then alone.

    >>> mean_loss([{"loss": 0.6, "window/steps": 3}, {"eval_loss": 0.5}, {"loss": 0.2, "window/steps": 1}])
    {'train_loss': 0.5}
    """
    logged = [(entry[STEPS], entry["loss"]) for entry in history if entry.get(STEPS) and "loss" in entry]
    steps = sum(count for count, _ in logged)
    return {"train_loss": round(sum(count * loss for count, loss in logged) / steps, 12)} if steps else {}


def window(entry: Logs) -> str:
    """Of which steps and how many pairs a logged entry is the mean.

    >>> window({"loss": 0.6, "step": 8, "window/steps": 3, "window/pairs": 24})
    'training, steps 6-8, 24 pairs'
    """
    if not {"step", STEPS, PAIRS} <= entry.keys():
        return "training"
    last, first = entry["step"], entry["step"] - entry[STEPS] + 1
    return f"training, {f'step {last}' if first == last else f'steps {first}-{last}'}, {entry[PAIRS]} pairs"


def _at(state: Any) -> str:
    return f"step {state.global_step}/{state.max_steps}" if state.max_steps else f"step {state.global_step}"
