"""A recipe from beginning to end: read the pairs, score them, train, evaluate on held-out pairs, save.

A run's folder (see `folder`) holds `recipe.yaml` (as resolved), `scores.json` (the manifest of the training scores) and
`step.json` (how many pairs a step has) from its first step on, which a resumed run must match; at the end also the
adapter or model with its tokenizer, `metrics.json`, `curves.svg`, what the report needs (see `record`) and README.md,
the model card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback
from transformers.utils import logging

from bdpo.errors import BdpoError, first_line
from bdpo.files import flat, key_difference, read_json, write_json, write_whole
from bdpo.method.balance import Balance
from bdpo.models import LoadedModel
from bdpo.pairs import PreferencePair
from bdpo.pairs.control import plain_marks
from bdpo.processes import Stop, processes, stoppable
from bdpo.recipe.card import method_name, model_card
from bdpo.recipe.checkpoints import Checkpoints
from bdpo.recipe.data import RunData, read_data, refuse_errors
from bdpo.recipe.folder import CARD, RECIPE, SCORES, STEP, TORN, claimed, explained, save_result
from bdpo.recipe.gap import generalisation_gap
from bdpo.recipe.keeper import CheckpointKeeper
from bdpo.recipe.parts import bdpo_config, load_model, lora_config
from bdpo.recipe.record import refusal_shares, write_record
from bdpo.recipe.sections import Recipe, parse_recipe
from bdpo.score import ScoredData, score
from bdpo.score.folder import differing, unmeasured
from bdpo.secrets import refuse_secrets
from bdpo.terminal import visible
from bdpo.train import BDPOTrainer
from bdpo.train.prepare import refuse_second_adapter
from bdpo.train.shown import EndTable
from bdpo.yaml_text import read_yaml

logger = logging.get_logger(__name__)
# What a resumed run may say otherwise, since no weight depends on it: what is shown and kept, and how scoring is done.
_MAY_DIFFER = {"train.logging_steps", "train.report_to", "train.save_total_limit", "train.disable_tqdm",
               "train.displacement_alarm", "score.batch_tokens", "score.dir", "score.endpoint", "score.endpoint_model",
               # how a step's pairs are split over processes and passes; `STEP` holds their number
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

    Ctrl-C and SIGTERM stop it after the step that is under way, with a checkpoint (see `processes.Stopped`).

    Args:
        resume: go on from the newest complete checkpoint in `out`; recipe and scores must be those it was made with.
        callbacks: handed to the trainer; one with a method `attach` is given it, so that it can log.
        on_data: called on the main process with the data, before the model is loaded.

    Raises:
        BdpoError: anything a user can mend, before training wherever that can be.
    """
    refuse_secrets(recipe.model_dump(), "recipe")  # one made in Python was not read by `parse_recipe`
    if recipe.model.device_map is not None:
        raise BdpoError(
            "model.device_map is for bdpo score and bdpo evaluate: train under FSDP or DeepSpeed without it, with "
            "score.dir naming the scores (docs/scaling.md)."
        )
    with claimed(Path(out), resume) as found, stoppable() as stop, explained(Path(out)):
        return _run(recipe, Path(out), found, stop, callbacks, on_data)


def _run(
    recipe: Recipe, out: Path, found: Checkpoints, stop: Stop, callbacks: Sequence[TrainerCallback],
    on_data: Callable[[RunData], None] | None,
) -> RunResult:  # fmt: skip
    started = datetime.now(UTC)
    args = bdpo_config(recipe, out)
    if found.complete:
        refuse_other_recipe(recipe, out)
        _refuse_other_step(args.pairs_per_step, out)
    data = read_data(recipe)
    if on_data is not None and processes().is_main_process:
        on_data(data)
    checked = refuse_errors(recipe, data)
    loaded = load_model(recipe)
    refuse_second_adapter(loaded.model, recipe.peft)
    peft_config = lora_config(recipe)
    _warn_of_plain_marks(loaded.tokenizer, data.train)
    scores, eval_scores = score_data(recipe, loaded, data)
    keeper = CheckpointKeeper(stop, args.save_total_limit, found.passed_over)
    args.save_total_limit = None
    trainer = BDPOTrainer(
        model=loaded.model,
        args=args,
        train_dataset=scores,
        eval_dataset=eval_scores,
        processing_class=loaded.tokenizer,
        peft_config=peft_config,
        callbacks=[*callbacks, keeper],
    )
    trainer.remove_callback(EndTable)  # the last evaluation is still to come
    for callback in callbacks:
        if hasattr(callback, "attach"):
            callback.attach(trainer)
    _have_weights_gathered(trainer)
    if found.complete:
        _refuse_other_scores(scores, out, args.needs_comprehension)
    if trainer.is_world_process_zero():
        _write_start(recipe, scores, args.pairs_per_step, out)
    trained = trainer.train(resume_from_checkpoint=str(found.complete) if found.complete else None)
    metrics = dict(trained.metrics)
    if eval_scores is not None:
        metrics |= trainer.evaluate()
    if trainer.is_fsdp_enabled:  # checkpoints may be sharded, the result is not
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")

    def record(to: Path) -> None:
        write_record(
            to, trainer, scores, eval_scores, started=started, method=method_name(recipe), label=loaded.label,
            report=checked, refusals=refusal_shares(data.train), counts=data.counts,
        )  # fmt: skip

    history = trainer.state.log_history
    metrics |= generalisation_gap(history, metrics)
    save_result(
        out, trainer,
        lambda to: _write_end(recipe, to, loaded.label, scores, trainer.balance, data.counts, metrics, history, record),
    )  # fmt: skip
    stop.now()
    return RunResult(out, metrics, scores, trainer)


def _have_weights_gathered(trainer: BDPOTrainer) -> None:
    """Have ZeRO-3 save whole weights, as FSDP does at the end; unless it is told to, it leaves its shards instead."""
    if trainer.is_deepspeed_enabled:
        plugin = trainer.accelerator.state.deepspeed_plugin
        plugin.deepspeed_config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True


def score_data(
    recipe: Recipe, loaded: LoadedModel, data: RunData, *, measure: bool = False
) -> tuple[ScoredData, ScoredData | None]:
    """Stage 1 over training and held-out pairs; scores already made are taken as they are.

    Args:
        measure: comprehension, even where the recipe needs none.
    """
    options = recipe.options().scoring(measure=measure)
    scores = score(
        loaded.model, loaded.tokenizer, data.train, recipe.score.dir, options,
        elsewhere="name another score.dir, leave it out, or say the data section (holdout, limit, seed) as when it was "
                  "scored",
    )  # fmt: skip
    if not data.eval:
        return scores, None
    return scores, score(loaded.model, loaded.tokenizer, data.eval, options=options, training=scores.manifest)


def _warn_of_plain_marks(tokenizer: Any, pairs: Sequence[PreferencePair]) -> None:
    marks = () if isinstance(pairs[0].prompt, str) else plain_marks(tokenizer)
    if marks:
        told = f"The chat template marks turns with plain text, which any text can imitate: {', '.join(marks)}."
        logger.warning(visible(told))


def refuse_other_recipe(recipe: Recipe, out: Path) -> None:
    """Another learning rate or loss from a checkpoint on would be no run that any recipe describes.

    Raises:
        BdpoError: the run in `out` was begun with another recipe; names the fields.
    """
    there, now = (flat(one.model_dump(mode="json")) for one in (_begun_with(out / RECIPE), recipe))
    free = _MAY_DIFFER | (_LENGTH if now.get("train.lr_scheduler_type") == "constant" else set())
    free |= {key for key in (*there, *now) if key.startswith("evaluate.")}
    different = key_difference(*({k: v for k, v in flat.items() if k not in free} for flat in (there, now)))
    if different:
        raise BdpoError(
            f"{out} was begun with another recipe; it differs in {'; '.join(different)}. Resume it as {RECIPE} there "
            "says, or choose another --out."
        )


def _refuse_other_step(pairs_per_step: int, out: Path) -> None:
    begun_with = read_json(out / STEP, TORN, pairs_per_step=int)["pairs_per_step"]
    if begun_with != pairs_per_step:
        raise BdpoError(
            f"{out} was begun with {begun_with} pairs a step and these settings make {pairs_per_step}: choose "
            "train.gradient_accumulation_steps so that train.per_device_train_batch_size x it x processes is that."
        )


def _begun_with(path: Path) -> Recipe:
    """The recipe that a run wrote down, which names every section."""
    try:
        content = read_yaml(path)
        if set(content) == set(Recipe.model_fields):
            return parse_recipe(content, where=str(path))
        why = "sections are missing"
    except (OSError, ValueError, TypeError) as error:
        why = first_line(error)
    raise BdpoError(f"{path} is not as it was written ({why}): {TORN}.")


def _refuse_other_scores(scores: ScoredData, out: Path, needs_comprehension: bool) -> None:
    both = [read_json(out / SCORES, TORN, key=dict), scores.manifest]
    if not needs_comprehension:
        both = [manifest | {"key": unmeasured(manifest["key"])} for manifest in both]
    different = differing(*both)
    if different:
        raise BdpoError(
            f"{out} was begun with other scores; they differ in {'; '.join(different)}. Bring back the model and the "
            "data of its first part, or choose another --out."
        )


def _write_start(recipe: Recipe, scores: ScoredData, pairs_per_step: int, out: Path) -> None:
    content = recipe.model_dump(mode="json")
    write_whole(out / RECIPE, yaml.safe_dump(content, sort_keys=False))
    write_json(out / SCORES, scores.manifest)
    write_json(out / STEP, {"pairs_per_step": pairs_per_step})


def _write_end(
    recipe: Recipe, out: Path, label: str, scores: ScoredData, balance: Balance, counts: dict[str, int],
    metrics: dict[str, Any], history: list[dict[str, Any]], record: Callable[[Path], None],
) -> None:  # fmt: skip
    from bdpo.report.figures_training import at_a_glance  # matplotlib takes a while

    write_json(out / "metrics.json", {"final": metrics, "history": history})
    if curves := at_a_glance(history):
        curves.save(out, kinds=["svg"])
    record(out)
    asked = any(name.startswith("evaluate/") for entry in history for name in entry)
    adapter = (out / "adapter_config.json").exists()
    card = model_card(recipe, label, scores, balance, counts, metrics, adapter=adapter, asked=asked)
    write_whole(out / CARD, card)
