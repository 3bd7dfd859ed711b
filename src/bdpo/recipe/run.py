"""A recipe from beginning to end: read the pairs, score them, train, evaluate on held-out pairs, save.

A run's folder holds `recipe.yaml` (as resolved), `scores.json` (the manifest of the training scores) and `step.json`
(how many pairs a step has) from its first step on, which a resumed run must match; at the end also the adapter or model
with its tokenizer, `metrics.json` and README.md, the model card.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.files import key_difference, read_json, write_json, write_whole
from bdpo.pairs import LoadedPairs, PreferencePair, check_pairs, control_tokens, load_pairs, pairs_for_loss
from bdpo.processes import processes
from bdpo.recipe.card import model_card
from bdpo.recipe.sections import DataSection, Recipe, load_recipe
from bdpo.score import ScoredData, score
from bdpo.tokens import tokenize_pairs
from bdpo.train import BDPOConfig, BDPOTrainer
from bdpo.train.prepare import refuse_second_adapter

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
class RunData:
    """The pairs of a run, and what happened to rows on the way (by reason)."""

    train: list[PreferencePair]
    eval: list[PreferencePair]
    counts: dict[str, int]


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


def bdpo_config(recipe: Recipe, out: str | Path) -> BDPOConfig:
    """The flat configuration of the trainer."""
    defaults: dict[str, Any] = {"report_to": "none", "save_total_limit": 2}
    try:
        args = BDPOConfig(**{**defaults, **recipe.train, "output_dir": str(out)}, **vars(recipe.options()))
    except (ValueError, ImportError) as error:  # TrainingArguments' own checks
        raise BdpoError(f"train: {' '.join(str(error).split())}") from error
    if args.eval_strategy != "no" and recipe.data.eval is None and not recipe.data.holdout:
        raise BdpoError("train.eval_strategy needs held-out pairs: set data.eval or data.holdout, or leave it out.")
    return args


def run_recipe(
    recipe: Recipe, out: str | Path, *, resume: bool = False, callbacks: Sequence[TrainerCallback] = ()
) -> RunResult:
    """Train as the recipe says and leave everything in `out`.

    Args:
        resume: go on from the last checkpoint in `out`; recipe and scores must be those that it was made with.
        callbacks: handed to the trainer; one with a method `attach` is given it, so that it can log.

    Raises:
        BdpoError: anything a user can mend, before training wherever that can be.
    """
    out = _claimed(out, resume)
    args = bdpo_config(recipe, out)
    if resume:
        _refuse_other_recipe(recipe, args.pairs_per_step, out)
    processes().wait_for_everyone()  # nothing is written in `out` before all have looked at it
    data = read_data(recipe)
    _refuse_errors(recipe, data)
    loaded = load_model(recipe)
    refuse_second_adapter(loaded.model, recipe.peft)
    peft_config = lora_config(recipe)
    options = args.scoring()
    scores = score(loaded.model, loaded.tokenizer, data.train, recipe.score.dir, options)
    eval_scores = None
    if data.eval:
        eval_scores = score(loaded.model, loaded.tokenizer, data.eval, options=options, training=scores.manifest)
    trainer = BDPOTrainer(
        model=loaded.model,
        args=args,
        train_dataset=scores,
        eval_dataset=eval_scores,
        processing_class=loaded.tokenizer,
        peft_config=peft_config,
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


def read_data(recipe: Recipe) -> RunData:
    """Training and held-out pairs as the recipe's data section says; needs no weights of the model."""
    section, model = recipe.data, recipe.model
    strip = section.strip_control_tokens
    controls = control_tokens(models.load_tokenizer(model.name, revision=model.revision)) if strip else ()
    loaded = _load(section, section.train, section.split, controls)
    counts, pairs = dict(loaded.counts), loaded.pairs
    if section.eval is not None:
        held = _load(section, section.eval, section.eval_split, controls).pairs
    else:
        pairs, held = hold_out(pairs, section.holdout, section.seed)
    if section.limit is not None and section.limit < len(pairs):
        counts["dropped: beyond data.limit"] = len(pairs) - section.limit
        pairs = random.Random(section.seed).sample(pairs, section.limit)
    pairs, changed = pairs_for_loss(recipe.loss.name, pairs)
    held, _ = pairs_for_loss(recipe.loss.name, held)
    counts |= changed
    if not pairs:
        raise BdpoError(
            f"{section.train}: no pairs are left to train on; lower data.holdout or look at the data check."
        )
    return RunData(pairs, held, counts)


def _refuse_errors(recipe: Recipe, data: RunData) -> None:
    """Stop at what `bdpo data check` calls an error in the training pairs."""
    source = recipe.data.train
    report = check_pairs(LoadedPairs(data.train, source, "as read", len(data.train), data.counts))
    for error in report.findings:
        if error.severity == "error":
            raise BdpoError(
                f"{source}: {error.name.replace('_', ' ')} in {error.count} pairs (first: {error.examples[0]}). "
                f"{error.explanation} `bdpo data check {shlex.quote(source)}` shows all."
            )


def hold_out(pairs: list[PreferencePair], size: int, seed: int) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Split off about `size` pairs, drawn by prompt, so that no prompt stands on both sides: (rest, held out)."""
    by_prompt: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_prompt.setdefault(repr(pair.prompt), []).append(pair)
    prompts = list(by_prompt)
    random.Random(seed).shuffle(prompts)
    held: list[PreferencePair] = []
    while prompts and len(held) < size:
        held += by_prompt[prompts.pop()]
    chosen = {pair.id for pair in held}
    return [pair for pair in pairs if pair.id not in chosen], held


def load_model(recipe: Recipe) -> models.LoadedModel:
    """The model of the recipe, on this process's device."""
    section = recipe.model
    return models.load(
        section.name,
        dtype=section.dtype,
        attn_implementation=section.attn_implementation,
        revision=section.revision,
        quantization=section.quantization,
        chat_template=chat_template(recipe),
        trainable_adapter=recipe.peft is None,
        on_device=True,
    )


def chat_template(recipe: Recipe) -> str | None:
    """The recipe's own chat template, read from its file where a .jinja file is named."""
    template = recipe.model.chat_template
    if template is None or not template.endswith(".jinja"):
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except OSError as error:
        raise BdpoError(f"model.chat_template: {template} cannot be read ({error.strerror}).") from error


def lora_config(recipe: Recipe) -> Any | None:
    """The peft section as a LoraConfig; all linear layers unless it says otherwise."""
    if recipe.peft is None:
        return None
    from peft import LoraConfig

    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **recipe.peft})
    except (TypeError, ValueError) as error:
        raise BdpoError(f"peft: {error}") from error


def token_lengths(recipe: Recipe, tokenizer: Any, pairs: Sequence[PreferencePair]) -> list[tuple[int, int, int]]:
    """Tokens of prompt, chosen and rejected of each pair, after truncation."""
    tokenized = tokenize_pairs(tokenizer, pairs, max_length=recipe.data.max_length).pairs
    return [(len(pair.prompt_ids), len(pair.chosen_ids), len(pair.rejected_ids)) for pair in tokenized]


def _load(section: DataSection, data: str, split: str | None, controls: Sequence[str]) -> LoadedPairs:
    return load_pairs(
        data,
        split=split,
        config=section.config,
        format=section.format,
        prefer=section.prefer,
        sample=section.sample,
        seed=section.seed,
        strip_control_tokens=controls,
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
