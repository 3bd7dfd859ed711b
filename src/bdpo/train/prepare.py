"""What a trainer is given -> what it trains: scored rows with their balance, and the policy."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import set_seed
from transformers.utils import logging

from bdpo.errors import BdpoError, first_line
from bdpo.files import key_difference
from bdpo.forward.lora import fuse_lora
from bdpo.method.balance import balance
from bdpo.models.patterns import refuse_endless
from bdpo.models.strict import LOADING_ERRORS
from bdpo.pairs import PreferencePair, mend_pairs, pairs_for_loss, pairs_from_rows
from bdpo.pairs.check import TEXT_PROMPTS
from bdpo.pairs.kinds import KINDS, kind_of
from bdpo.processes import processes, weights_are_sharded
from bdpo.score import ScoredData, open_scores, score
from bdpo.score.folder import is_served
from bdpo.score.sources import weights_now
from bdpo.terminal import visible
from bdpo.train.batches import ScoredRows, StepSampler, fewest_batches
from bdpo.train.config import BDPOConfig

logger = logging.get_logger(__name__)

Pairs: TypeAlias = ScoredData | Dataset | Sequence[PreferencePair] | Sequence[dict[str, Any]] | str | Path


def scored_rows(
    data: Pairs, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, args: BDPOConfig,
    training: ScoredRows | None = None,
) -> ScoredRows:  # fmt: skip
    """Open scores and check that they are this model's, or score raw pairs; then balance them.

    Args:
        name: folder of the scores below `args.scores_dir`, where that is set.
        training: for held-out pairs, the training set's rows, whose fit of the balance and contrastive prompts count.

    Raises:
        BdpoError: scores of another model or without the comprehension that the balance needs, or pairs without the
            labels that the loss needs.
    """
    if not getattr(model, "is_quantized", False) and not weights_are_sharded():
        model.to(processes().device)
    scored = _scored(data, name, model, tokenizer, args, None if training is None else training.manifest)
    if args.needs_comprehension and not scored.measured:
        raise BdpoError(
            f"{scored.path} holds scores without comprehension, which the balance needs: run bdpo score, or give the "
            "raw pairs."
        )
    unknown = [0.0] * len(scored.rows)  # then there is nothing to balance
    balanced = balance(
        *(list(scored.rows[f"{side}_mi"]) if scored.measured else unknown for side in ("chosen", "rejected")),
        fit=None if training is None else training.balance.fit,
        **args.balancing(),
    )
    kinds = None if training is None else _kinds(scored.rows, tokenizer)
    return ScoredRows(scored.rows, balanced, scored.manifest, kinds)


def _kinds(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The kind of each held-out pair, as `PairStatistics` has it: what the data says, else labels and openings.

    Scores keep ids and no texts, which are decoded again.
    """
    replies = (
        [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows[f"{side}_ids"]]
        for side in ("chosen", "rejected")
    )
    told = map(kind_of, *replies, rows["chosen_safe"], rows["rejected_safe"])
    kinds = [said or kind for said, kind in zip(rows["prompt_kind"], told, strict=True)]
    return [1 + KINDS.index(kind) if kind else 0 for kind in kinds]


def refuse_second_adapter(model: Any, peft_config: Any) -> None:
    """A new adapter on a model that carries one would hide which of them the reference has."""
    if peft_config is not None and hasattr(model, "peft_config"):
        raise BdpoError(
            "The model already carries an adapter. Leave peft_config out to train that adapter further, or merge it "
            "first (bdpo merge) and train a new one on the merged model."
        )


def training_steps(args: BDPOConfig, lengths: list[int]) -> tuple[BDPOConfig, dict[str, Any]]:
    """How pairs of these lengths [tokens] are dealt into steps, as arguments of `StepSampler`.

    Under a token budget the returned `args` have as little accumulation as it allows; the pairs of a step stay.
    """
    sampling: dict[str, Any] = {
        "per_step": args.pairs_per_step,
        "micro": args.per_device_train_batch_size,
        "shuffle": args.train_sampling_strategy != "sequential",
        "drop_last": args.dataloader_drop_last,
        "seed": args.seed if args.data_seed is None else args.data_seed,
    }
    if args.tokens_per_batch is None:
        return args, sampling
    sampler = StepSampler(lengths, world=args.world_size, **sampling)
    epochs = args.max_steps / max(1, sum(1 for _ in sampler.steps())) if args.max_steps > 0 else args.num_train_epochs
    dealt = fewest_batches(sampler, math.ceil(epochs), args.tokens_per_batch)
    args = copy.copy(args)
    args.gradient_accumulation_steps = dealt // args.world_size
    return args, {**sampling, "dealt": dealt}


def policy(model: Any, peft_config: Any | None, args: BDPOConfig) -> Any:
    """The model as it is trained: with a new adapter where one is configured, and without dropout."""
    if peft_config is not None:
        set_seed(args.seed)  # draws the adapter
        model = with_adapter(model, peft_config)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BdpoError("No weight of the model is trainable: give peft_config, or load its adapter as trainable.")
    if args.disable_dropout:
        _disable_dropout(model)
    fuse_lora(model)
    return model


def _scored(
    data: Pairs, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, args: BDPOConfig,
    training: dict[str, Any] | None,
) -> ScoredData:  # fmt: skip
    if isinstance(data, (str, Path)):
        data = open_scores(data)
    if isinstance(data, ScoredData):
        _refuse_other_model(data, model, training)
        _refuse_unlabelled(args, {*data.rows["chosen_safe"], *data.rows["rejected_safe"]})
        if args.loss_type == "safedpo" and False in data.rows["chosen_safe"]:
            raise BdpoError(
                f"{data.path} holds pairs whose chosen reply is unsafe, which SafeDPO swaps or drops before scoring: "
                "give the raw pairs, or score them with --set loss.name=safedpo."
            )
        return data
    pairs = _raw_pairs(data, name)
    if tokenizer.chat_template and any(isinstance(pair.prompt, str) for pair in pairs):
        logger.warning(f"{name}_dataset: {TEXT_PROMPTS}")
    _refuse_unlabelled(args, {label for pair in pairs for label in (pair.chosen_safe, pair.rejected_safe)})
    pairs, counts = pairs_for_loss(args.loss_type, pairs)
    mended = mend_pairs(pairs)  # as a recipe does by default; scored data is taken as it was scored
    _warn(name, counts | mended.counts)
    if not mended.pairs:
        raise BdpoError(f"{name}_dataset: no pair is left of {len(pairs)}; look at them with bdpo data check.")
    out = None if args.scores_dir is None else Path(args.scores_dir) / name
    elsewhere = "set scores_dir to another folder, or leave it out"
    return score(model, tokenizer, mended.pairs, out, args.scoring(), training=training, elsewhere=elsewhere)


def _refuse_other_model(data: ScoredData, model: Any, training: dict[str, Any] | None) -> None:
    if data.scored_by is not None and data.scored_by() is model:  # the first batch is checked all the same
        return
    if is_served(data.manifest):  # nobody here has hashed those weights; the first batch is checked
        return
    weights = weights_now(model, training)
    different = key_difference({"weights": data.manifest["key"]["weights"]}, {"weights": weights})
    if different:
        raise BdpoError(f"The scores in {data.path} belong to another model: {'; '.join(different)}.")


def _raw_pairs(data: Any, name: str) -> list[PreferencePair]:
    if not isinstance(data, Dataset):
        data = list(data)
        if all(isinstance(row, PreferencePair) for row in data):
            return list(data)
    loaded = pairs_from_rows(data, source=f"{name}_dataset")
    _warn(name, loaded.counts)
    return loaded.pairs


def _warn(name: str, counts: dict[str, int]) -> None:
    for reason, n in counts.items():
        logger.warning(visible(f"{name}_dataset: {n} rows {reason}"))


def _refuse_unlabelled(args: BDPOConfig, labels: set[bool | None]) -> None:
    if args.loss_type == "safedpo" and None in labels:
        raise BdpoError("The loss safedpo needs chosen_safe and rejected_safe on every pair: label them.")


def with_adapter(model: Any, peft_config: Any) -> Any:
    """Put a new adapter on the model. Raises BdpoError where it does not fit."""
    from peft import get_peft_model

    names = [name for name, _ in model.named_modules()]
    for saved in getattr(peft_config, "modules_to_save", None) or ():  # peft passes over what is not there
        if not any(name.endswith(saved) for name in names):
            raise BdpoError(f"The adapter does not fit the model: no module is called {saved} (modules_to_save).")
    if hasattr(peft_config, "to_dict"):
        refuse_endless(peft_config.to_dict(), names, "peft")
    # prepare_model_for_kbit_training is not called: it would cast weights that were scored as they are
    try:
        return get_peft_model(model, peft_config, revision=getattr(model.config, "_commit_hash", None))
    except LOADING_ERRORS as error:  # a pattern that is none, a layer that is not there, or no room in memory
        raise BdpoError(f"The adapter does not fit the model: {first_line(error)}") from error


def _disable_dropout(model: nn.Module) -> None:
    """Dropout is a module, a number that a module keeps, or one that it reads from its config (then saved as 0)."""
    for module in model.modules():
        if "Dropout" in type(module).__name__ and hasattr(module, "p"):
            module.p = 0.0  # type: ignore[assignment]
        for holder in (module, getattr(module, "config", None)):
            for name, value in vars(holder or object).items():
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)
