"""What the sections of a recipe say, as the objects that a run is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.files import read_bytes
from bdpo.pairs import PreferencePair
from bdpo.pairs.rendering import set_template_kwargs
from bdpo.recipe.sections import Recipe
from bdpo.tokens import refuse_unfit, tokenize_pairs
from bdpo.train import BDPOConfig


def bdpo_config(recipe: Recipe, out: str | Path) -> BDPOConfig:
    """The flat configuration of the trainer."""
    defaults: dict[str, Any] = {"report_to": "none", "save_total_limit": 2}
    try:
        args = BDPOConfig(**{**defaults, **recipe.train, "output_dir": str(out)}, **vars(recipe.options()))
    except (ValueError, ImportError) as error:  # TrainingArguments' own checks
        raise BdpoError(f"train: {' '.join(str(error).split())}") from error
    if args.eval_strategy != "no" and recipe.data.held_in() is None and not recipe.data.holdout:
        raise BdpoError("train.eval_strategy needs held-out pairs: set data.eval or data.holdout, or leave it out.")
    return args


def load_model(recipe: Recipe) -> models.LoadedModel:
    """The model of the recipe, on this process's device."""
    section = recipe.model
    loaded = models.load(
        section.name,
        dtype=section.dtype,
        attn_implementation=section.attn_implementation,
        revision=section.revision,
        quantization=section.quantization,
        chat_template=chat_template(recipe),
        trainable_adapter=recipe.peft is None,
        on_device=True,
        device_map=section.device_map,
    )
    set_template_kwargs(loaded.tokenizer, section.chat_template_kwargs)
    return loaded


def model_to_score(recipe: Recipe) -> models.LoadedModel:
    """The model as stage 1 needs it: where a server scores, without weights that are not at hand or too large."""
    if recipe.score.endpoint is None:
        return load_model(recipe)
    section = recipe.model
    named = models.without_weights(section.name, revision=section.revision, chat_template=chat_template(recipe))
    if named is None:
        return load_model(recipe)
    set_template_kwargs(named.tokenizer, section.chat_template_kwargs)
    return named


def load_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer as `load_model` gives it, without the model's weights."""
    tokenizer = models.load_tokenizer(recipe.model.name, revision=recipe.model.revision)
    tokenizer.chat_template = chat_template(recipe) or tokenizer.chat_template
    set_template_kwargs(tokenizer, recipe.model.chat_template_kwargs)
    return tokenizer


def chat_template(recipe: Recipe) -> str | None:
    """The recipe's own chat template, read from its file where a .jinja file is named."""
    template = recipe.model.chat_template
    if template is None or not template.endswith(".jinja"):
        return template
    try:
        return read_bytes(Path(template)).decode("utf-8-sig")
    except OSError as error:
        raise BdpoError(f"model.chat_template: {template} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise BdpoError(f"model.chat_template: {template} is not UTF-8: save it as UTF-8.") from None


def lora_config(recipe: Recipe) -> Any | None:
    """The peft section as a LoraConfig; all linear layers unless it says otherwise."""
    if recipe.peft is None:
        return None
    from peft import LoraConfig

    _refuse_unfit_adapter(recipe.peft)
    try:
        return LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **recipe.peft})
    except (TypeError, ValueError) as error:
        raise BdpoError(f"peft: {error}") from error


def _refuse_unfit_adapter(said: dict[str, Any]) -> None:
    """What peft looks at when the adapter is made, after scoring, or not at all."""
    for name, value in said.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BdpoError(f"peft.{name} is {value} and must be a finite number.")
    ranks: dict[str, Any] = {name: said[name] for name in ("r", "lora_alpha") if name in said}
    for pattern in ("rank_pattern", "alpha_pattern"):
        ranks |= {f"{pattern}.{layers}": rank for layers, rank in (said.get(pattern) or {}).items()}
    for name, rank in ranks.items():
        if not isinstance(rank, int | float) or not 1 <= rank < math.inf:
            raise BdpoError(f"peft.{name} is {rank}: it must be at least 1.")
    if not 0 <= said.get("lora_dropout", 0) < 1:
        raise BdpoError(f"peft.lora_dropout is {said['lora_dropout']}: it must be from 0 to below 1.")


def token_lengths(
    recipe: Recipe, tokenizer: Any, pairs: Sequence[PreferencePair], config: Any = None
) -> list[tuple[int, int, int]]:
    """Tokens of prompt, chosen and rejected of each pair, after truncation.

    With the model's `config`, BdpoError where a pair does not fit the model (`tokens.refuse_unfit`).
    """
    tokenized = tokenize_pairs(tokenizer, pairs, max_length=recipe.data.max_length)
    if config is not None:
        refuse_unfit(tokenizer, pairs, tokenized, config)
    return [(len(pair.prompt_ids), len(pair.chosen_ids), len(pair.rejected_ids)) for pair in tokenized.pairs]
