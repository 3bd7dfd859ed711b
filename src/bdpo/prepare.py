"""What a trainer is given -> what it trains: scored rows with their balance, and the policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import set_seed
from transformers.utils import logging

from bdpo.balance import balance
from bdpo.batches import ScoredRows
from bdpo.errors import BdpoError
from bdpo.models import processes, weights_hash
from bdpo.pairs import PreferencePair, pairs_from_rows
from bdpo.score import score
from bdpo.scored import ScoredData, key_difference, open_scores
from bdpo.train_config import BDPOConfig

logger = logging.get_logger(__name__)

Pairs: TypeAlias = ScoredData | Dataset | Sequence[PreferencePair] | Sequence[dict[str, Any]] | str | Path


def scored_rows(
    data: Pairs, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, args: BDPOConfig, tau: float | None = None
) -> ScoredRows:
    """Open scores and check that they are this model's, or score raw pairs; then balance them.

    Args:
        name: folder of the scores below `args.scores_dir`, where that is set.
        tau: the training set's, for held-out pairs; None computes it.

    Raises:
        BdpoError: scores of another model, or pairs without the labels that the loss needs.
    """
    scored = _scored(data, name, model, tokenizer, args)
    balanced = balance(
        list(scored.rows["chosen_mi"]),
        list(scored.rows["rejected_mi"]),
        weighting=args.weighting,
        temperature=args.temperature if args.balance else float("inf"),
        tau=tau,
        weights=args.balance_weights,
        scale=args.balance_scale,
    )
    return ScoredRows(scored.rows, balanced, scored.manifest)


def refuse_second_adapter(model: Any, peft_config: Any) -> None:
    """A new adapter on a model that carries one would hide which of them the reference has."""
    if peft_config is not None and hasattr(model, "peft_config"):
        raise BdpoError(
            "The model already carries an adapter. Leave peft_config out to train that adapter further, or merge it "
            "first (bdpo merge) and train a new one on the merged model."
        )


def policy(model: Any, peft_config: Any | None, args: BDPOConfig) -> Any:
    """The model as it is trained: with a new adapter where one is configured, and without dropout."""
    if peft_config is not None:
        set_seed(args.seed)  # draws the adapter
        model = _with_adapter(model, peft_config)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BdpoError("No weight of the model is trainable: give peft_config, or load its adapter as trainable.")
    if args.disable_dropout:
        _disable_dropout(model)
    return model


def _scored(data: Pairs, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, args: BDPOConfig) -> ScoredData:
    if isinstance(data, (str, Path)):
        data = open_scores(data)
    if isinstance(data, ScoredData):
        different = key_difference({"weights": data.manifest["key"]["weights"]}, {"weights": weights_hash(model)})
        if different:
            raise BdpoError(f"The scores in {data.path} belong to another model: {'; '.join(different)}.")
        _refuse_unlabelled(args, {*data.rows["chosen_safe"], *data.rows["rejected_safe"]})
        return data
    pairs = _raw_pairs(data, name)
    _refuse_unlabelled(args, {label for pair in pairs for label in (pair.chosen_safe, pair.rejected_safe)})
    if not getattr(model, "is_quantized", False):
        model.to(processes().device)
    return score(
        model,
        tokenizer,
        pairs,
        None if args.scores_dir is None else Path(args.scores_dir) / name,
        estimator=args.estimator,
        max_length=args.max_length,
        batch_tokens=args.score_batch_tokens,
        seed=args.seed,
    )


def _raw_pairs(data: Any, name: str) -> list[PreferencePair]:
    if not isinstance(data, Dataset):
        data = list(data)
        if all(isinstance(row, PreferencePair) for row in data):
            return list(data)
    loaded = pairs_from_rows(data, source=f"{name}_dataset")
    for reason, n in loaded.counts.items():
        logger.warning(f"{name}_dataset: {n} rows {reason}")
    return loaded.pairs


def _refuse_unlabelled(args: BDPOConfig, labels: set[bool | None]) -> None:
    if args.loss_type == "safedpo" and None in labels:
        raise BdpoError("The loss safedpo needs chosen_safe and rejected_safe on every pair: label them.")


def _with_adapter(model: Any, peft_config: Any) -> Any:
    from peft import get_peft_model

    # prepare_model_for_kbit_training is not called: it would cast weights that were scored as they are
    try:
        return get_peft_model(model, peft_config, revision=getattr(model.config, "_commit_hash", None))
    except ValueError as error:
        raise BdpoError(f"The adapter does not fit the model: {error}") from error


def _disable_dropout(model: nn.Module) -> None:
    """Dropout is a module, a number that a module keeps, or one that it reads from its config (then saved as 0)."""
    for module in model.modules():
        if "Dropout" in type(module).__name__ and hasattr(module, "p"):
            module.p = 0.0  # type: ignore[assignment]
        for holder in (module, getattr(module, "config", None)):
            for name, value in vars(holder or object).items():
                if "drop" in name and isinstance(value, float):
                    setattr(holder, name, 0.0)
