"""A recipe from beginning to end: read the pairs, score them, train, evaluate on held-out pairs, save.

A run's folder holds `recipe.yaml` (as resolved), `scores.json` (the manifest of the training scores) and `step.json`
(how many pairs a step has) from its first step on, which a resumed run must match; at the end also the adapter or model
with its tokenizer, `metrics.json` and README.md, the model card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from bdpo.errors import BdpoError
from bdpo.files import key_difference, read_json, write_json, write_whole
from bdpo.models import LoadedModel
from bdpo.pairs import (
    PreferencePair,
)
from bdpo.pairs.control import plain_marks
from bdpo.processes import processes
from bdpo.recipe.card import model_card
from bdpo.recipe.data import RunData, read_data, refuse_errors
from bdpo.recipe.parts import bdpo_config, load_model, lora_config
from bdpo.recipe.sections import Recipe, load_recipe
from bdpo.score import ScoredData, score
from bdpo.secrets import refuse_secrets
from bdpo.train import BDPOTrainer
from bdpo.train.prepare import refuse_second_adapter

logger = logging.get_logger(__name__)
_TORN = "bring it back, or choose another --out"
_RECORDS = _RECIPE, _SCORES, _STEP = "recipe.yaml", "scores.json", "step.json"
# What a resumed run may say otherwise, since no weight depends on it: what is shown and kept, and how scoring is done.
_MAY_DIFFER = {"train.logging_steps", "train.report_to", "train.save_total_limit", "train.disable_tqdm",
               "train.displacement_alarm", "score.batch_tokens", "score.dir",
               # how a step's pairs are split over processes and passes; `_STEP` holds their number
               "train.per_device_train_batch_size", "train.gradient_accumulation_steps", "train.tokens_per_batch",
               "train.per_device_eval_batch_size"}  # fmt: skip
_LENGTH = {"train.num_train_epochs", "train.max_steps"}  # likewise, where the learning rate does not depend on it


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    out: Path
    metrics: dict[str, float]  # of the last evaluation (eval_...) and of training (train_...)
    scores: ScoredData
    trainer: BDPOTrainer

    @property
    def history(self) -> list[dict[str, float]]:
        """What was logged, in the order of steps."""
        return self.trainer.state.log_history


def run_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    on_data: Callable[[RunData], None] | None = None,
) -> RunResult:
    """Train as the recipe says and leave everything in `out`.

    Args:
        resume: go on from the last checkpoint in `out`; recipe and scores must be those that it was made with.
        callbacks: handed to the trainer; one with a method `attach` is given it, so that it can log.
        on_data: called on the main process with the data, before the model is loaded.

    Raises:
        BdpoError: anything a user can mend, before training wherever that can be.
    """
    refuse_secrets(recipe.model_dump(), "recipe")  # one made in Python was not read by `parse_recipe`
    out = _claimed(out, resume)
    args = bdpo_config(recipe, out)
    if resume:
        _refuse_other_recipe(recipe, args.pairs_per_step, out)
    processes().wait_for_everyone()  # nothing is written in `out` before all have looked at it
    data = read_data(recipe)
    if on_data is not None and processes().is_main_process:
        on_data(data)
    refuse_errors(recipe, data)
    loaded = load_model(recipe)
    refuse_second_adapter(loaded.model, recipe.peft)
    _warn_of_plain_marks(loaded.tokenizer, data.train)
    scores, eval_scores = _scored(recipe, loaded, data)
    trainer = BDPOTrainer(
        model=loaded.model,
        args=args,
        train_dataset=scores,
        eval_dataset=eval_scores,
        processing_class=loaded.tokenizer,
        peft_config=lora_config(recipe),
        callbacks=list(callbacks),
    )
    for callback in callbacks:
        if hasattr(callback, "attach"):
            callback.attach(trainer)
    if resume:
        _refuse_other_scores(scores, out)
    if trainer.is_world_process_zero():
        _write_start(recipe, scores, args.pairs_per_step, out)
    trained = trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if resume else None)
    metrics = dict(trained.metrics)
    if eval_scores is not None:
        metrics |= trainer.evaluate()
    if trainer.is_fsdp_enabled:  # checkpoints may be sharded, the result is not
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model()
    if trainer.is_world_process_zero():
        _write_end(recipe, out, loaded.label, scores, data.counts, metrics, trainer.state.log_history)
    return RunResult(out, metrics, scores, trainer)


def _scored(recipe: Recipe, loaded: LoadedModel, data: RunData) -> tuple[ScoredData, ScoredData | None]:
    """Stage 1 over training and held-out pairs; scores already made are taken as they are."""
    options = recipe.options().scoring()
    scores = score(loaded.model, loaded.tokenizer, data.train, recipe.score.dir, options)
    if not data.eval:
        return scores, None
    return scores, score(loaded.model, loaded.tokenizer, data.eval, options=options, training=scores.manifest)


def _warn_of_plain_marks(tokenizer: Any, pairs: Sequence[PreferencePair]) -> None:
    marks = () if isinstance(pairs[0].prompt, str) else plain_marks(tokenizer)
    if marks:
        logger.warning(
            f"The chat template marks turns with plain text, which any text can imitate: {', '.join(marks)}."
        )


def _claimed(out: str | Path, resume: bool) -> Path:
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise BdpoError(f"{out} is a file: choose another --out.")
    if resume and not (out.is_dir() and get_last_checkpoint(str(out))):
        raise BdpoError(f"{out} holds no checkpoint to resume from: leave --resume out.")
    for record in _RECORDS if resume else ():
        if not (out / record).exists():
            raise BdpoError(f"{out} holds no {record} to compare with: {_TORN}.")
    if not resume and out.is_dir() and any(held.name not in _RECORDS for held in out.iterdir()):
        raise BdpoError(f"{out} is not empty: resume it (--resume), choose another --out, or remove it.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BdpoError(f"Cannot write in {out} ({error.strerror}): choose another --out.") from error
    return out


def _refuse_other_recipe(recipe: Recipe, pairs_per_step: int, out: Path) -> None:
    """Another learning rate or loss from a checkpoint on would be no run that any recipe describes."""
    there, now = _flat(load_recipe(out / _RECIPE)), _flat(recipe)
    free = _MAY_DIFFER | (_LENGTH if now.get("train.lr_scheduler_type") == "constant" else set())
    free |= {key for key in (*there, *now) if key.startswith("evaluate.")}
    different = key_difference(*({k: v for k, v in flat.items() if k not in free} for flat in (there, now)))
    if different:
        raise BdpoError(
            f"{out} was begun with another recipe; it differs in {'; '.join(different)}. Resume it as {_RECIPE} there "
            "says, or choose another --out."
        )
    begun_with = read_json(out / _STEP, _TORN)["pairs_per_step"]
    if begun_with != pairs_per_step:
        raise BdpoError(
            f"{out} was begun with {begun_with} pairs a step and these settings make {pairs_per_step}: choose "
            "train.gradient_accumulation_steps so that train.per_device_train_batch_size x it x processes is that."
        )


def _refuse_other_scores(scores: ScoredData, out: Path) -> None:
    different = key_difference(read_json(out / _SCORES, _TORN)["key"], scores.manifest["key"])
    if different:
        raise BdpoError(
            f"{out} was begun with other scores; they differ in {'; '.join(different)}. Bring back the model and the "
            "data of its first part, or choose another --out."
        )


def _flat(recipe: Recipe) -> dict[str, Any]:
    """`section.key` -> value; sections that are empty are left out."""
    content = recipe.model_dump(mode="json")
    return {f"{section}.{key}": value for section, keys in content.items() for key, value in (keys or {}).items()}


def _write_start(recipe: Recipe, scores: ScoredData, pairs_per_step: int, out: Path) -> None:
    content = recipe.model_dump(mode="json")
    write_whole(out / _RECIPE, yaml.safe_dump(content, sort_keys=False))
    write_json(out / _SCORES, scores.manifest)
    write_json(out / _STEP, {"pairs_per_step": pairs_per_step})


def _write_end(
    recipe: Recipe, out: Path, label: str, scores: ScoredData, counts: dict[str, int], metrics: dict[str, Any],
    history: list[dict[str, Any]],
) -> None:  # fmt: skip
    write_json(out / "metrics.json", {"final": metrics, "history": history})
    card = model_card(recipe, label, scores, counts, metrics, adapter=(out / "adapter_config.json").exists())
    write_whole(out / "README.md", card)
