"""Evaluation while training: a callback that asks the model a small named subset, logs the scores and may stop.

The command makes it and hands it to `run_recipe`; neither the trainer nor the run knows of evaluation.
"""

from __future__ import annotations

from typing import Any, Protocol

from transformers import TrainerCallback
from transformers.utils import logging

from bdpo.evaluate.evaluation import Subject, answers
from bdpo.evaluate.judges import DEGENERATE, UNFINISHED, UNJUDGED, Judge, make_judge
from bdpo.evaluate.plan import Plan, plan_tasks
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.evaluate.results.outcomes import Outcome
from bdpo.recipe.sections import EvaluateSection, Recipe
from bdpo.terminal import visible

logger = logging.get_logger(__name__)

_CHOSEN = "logratios/chosen"


def evaluation_callbacks(recipe: Recipe) -> list[TrainerCallback]:
    """What evaluates while training, as the recipe's `evaluate` section says; nothing where there is none."""
    if recipe.evaluate is None:
        return []
    return [EvaluationCallback(recipe.evaluate, make_judge("rules"), recipe.data.seed)]


class Logs(Protocol):
    """What is needed of a trainer: its log, which trackers and metrics.json get."""

    def log(self, logs: dict[str, float]) -> None: ...


class EvaluationCallback(TrainerCallback):
    """Evaluates at the beginning, every so many steps and at the end; stops on over-refusal or displacement.

    Logged are `evaluate/BENCHMARK`, the score of each benchmark, and `evaluate/degenerate`, the share of judged
    replies that are loops, echoes or empty; of a model that thinks also `evaluate/unfinished`, the share of replies
    whose thought never ends. Every process does the same, so that all stop at the same step.

    Args:
        section: what the recipe says (see `EvaluateSection`).
        judge: of the replies, `rules` for want of a reason to wait for another.
        seed: draws the prompts.

    Raises:
        BdpoError: an unknown benchmark, or one whose data is not to be had.
    """

    def __init__(self, section: EvaluateSection, judge: Judge, seed: int = 0) -> None:
        self.section, self.judge = section, judge
        sampling = Sampling(max_new_tokens=section.max_new_tokens)
        plan = Plan(suite=section.suite, limit=section.limit, seed=seed, sampling=sampling)
        self.tasks, missing = plan_tasks(plan, judge)
        for why in missing.values():
            logger.warning(visible(f"Not evaluated: {why}"))
        self.trainer: Logs | None = None
        self.evaluated_at = -1  # step

    def attach(self, trainer: Logs) -> None:
        """Be given the trainer to log through."""
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate the model as it comes: what is wrong with the prompts shows now, and not after training."""
        if state.global_step == 0:
            self._evaluate(state, control, kwargs["model"], kwargs["processing_class"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate where it is due."""
        if self.section.every and state.global_step % self.section.every == 0:
            self._evaluate(state, control, kwargs["model"], kwargs["processing_class"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate at the end, unless that was just done."""
        if state.global_step > self.evaluated_at:
            self._evaluate(state, control, kwargs["model"], kwargs["processing_class"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Stop on displacement, in training or on held-out pairs."""
        floor = self.section.stop_displacement
        for key in (_CHOSEN, f"eval_{_CHOSEN}"):
            fallen = (logs or {}).get(key, 0.0)
            if floor is not None and fallen < floor:
                self._stop(state, control, f"{key} is {fallen:.1f} nats (evaluate.stop_displacement: {floor:g})")

    def _evaluate(self, state: Any, control: Any, model: Any, tokenizer: Any) -> None:
        self.evaluated_at = state.global_step
        subject = Subject("", "", "", LocalGenerator(model, tokenizer), model, tokenizer)
        outcomes = {task.name: answers(task, subject, self.judge) for task in self.tasks}
        logs = {f"evaluate/{name}": _mean(found) for name, found in outcomes.items()}
        said = [outcome for found in outcomes.values() for outcome in found]
        judged = [outcome.verdict for outcome in said if outcome.verdict and outcome.verdict not in UNJUDGED]
        if judged:
            logs["evaluate/degenerate"] = judged.count(DEGENERATE) / len(judged)
        if any(outcome.thought for outcome in said):
            logs["evaluate/unfinished"] = sum(outcome.verdict == UNFINISHED for outcome in said) / len(said)
        if self.trainer is not None:
            due = control.should_log
            self.trainer.log(logs)
            control.should_log = due  # logging resets it, and the step's own values would be lost
        harmless = [task.name for task in self.tasks if task.record.suite == "over-refusal"]
        ceiling = self.section.stop_over_refusal
        if harmless and ceiling is not None and state.global_step > 0:
            refused = 1 - _mean([outcome for name in harmless for outcome in outcomes[name]])
            if refused > ceiling:
                self._stop(
                    state, control,
                    f"{refused:.0%} of the harmless prompts go unanswered (evaluate.stop_over_refusal: {ceiling:g})",
                )  # fmt: skip

    def _stop(self, state: Any, control: Any, why: str) -> None:
        if not control.should_training_stop and state.global_step < state.max_steps:
            logger.warning(visible(f"Training stops at step {state.global_step}: {why}."))
        control.should_training_stop = True


def _mean(outcomes: list[Outcome]) -> float:
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    return sum(scores) / len(scores) if scores else float("nan")
