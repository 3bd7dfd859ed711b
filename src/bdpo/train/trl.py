"""TRL's arguments that bdpo does not offer: a table, so that a call written for TRL runs or says why not.

docs/switching-from-trl.md has the same rows, for reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdpo.errors import BdpoError


@dataclass(frozen=True)
class NotOffered:
    """Why an argument is not offered, what to do instead, and when it may be passed all the same."""

    why: str  # end of a sentence
    ignored: bool = False  # whatever its value, leaving it out changes no result: it is passed over with a warning
    neutral: tuple[Any, ...] = (None, False)  # values that ask for nothing: passed over without a word


_PADDING = NotOffered("padding is masked by position, so that any token will do", ignored=True)
_PACKED = NotOffered("the prompt is shared and short pairs are packed, so that there is little padding", ignored=True)
_SLICED = NotOffered("logits are made of response tokens alone, in slices", ignored=True)
_CUT = NotOffered("max_length holds for prompt + longer response; the prompt is cut first, from its left", ignored=True)
_MOVING = NotOffered("a reference that moves cannot be scored beforehand, and neither can comprehension")
_REFERENCE = NotOffered("the reference is the model as it is handed in, adapter included")
_NLL = NotOffered("an NLL term on the chosen response is loss_params={'nll_weight': ...}")
_DIVERGENCE = NotOffered("reverse KL only", neutral=(None, "reverse_kl"))

NOT_OFFERED: dict[str, NotOffered] = {
    "activation_offloading": NotOffered("use gradient_checkpointing to save memory", ignored=True),
    "base_model_attribute_name": _SLICED,
    "cpo_alpha": _NLL,
    "dataset_num_proc": NotOffered("tokenising is done in one process", ignored=True),
    "discopop_tau": NotOffered("the loss discopop is not offered", ignored=True),
    "f_alpha_divergence_coef": NotOffered(_DIVERGENCE.why, ignored=True),
    "f_divergence_type": _DIVERGENCE,
    "force_use_ref_model": _REFERENCE,
    "generate_during_eval": NotOffered("a recipe's evaluate section asks the model prompts while it trains"),
    "is_encoder_decoder": NotOffered("causal language models only"),
    "label_pad_token_id": _PADDING,
    "ld_alpha": NotOffered("for the pull of length see ipo and simpo, which go by the token", neutral=(None, 1.0)),
    "loss_weights": NotOffered(f"{_NLL.why}; other mixtures are not offered"),
    "max_completion_length": _CUT,
    "max_prompt_length": _CUT,
    "max_target_length": _CUT,
    "model_adapter_name": _REFERENCE,
    "model_init_kwargs": NotOffered(
        "load the model yourself, or use the model section of a recipe (dtype, revision, attention)", neutral=(None, {})
    ),
    "pad_to_multiple_of": _PACKED,
    "pad_token": _PADDING,
    "padding_free": _PACKED,
    "padding_value": _PADDING,
    "precompute_ref_batch_size": NotOffered("the pass is sized in tokens, by score_batch_tokens", ignored=True),
    "precompute_ref_log_probs": NotOffered("the reference is always scored beforehand, and kept", ignored=True),
    "ref_adapter_name": _REFERENCE,
    "ref_model_init_kwargs": NotOffered(_REFERENCE.why, neutral=(None, {})),
    "ref_model_mixup_alpha": NotOffered(_MOVING.why, ignored=True),
    "ref_model_sync_steps": NotOffered(_MOVING.why, ignored=True),
    "reference_free": NotOffered("losses without a reference are cpo, simpo and orpo"),
    "router_aux_loss_coef": NotOffered("no load-balancing loss is added for mixtures of experts", neutral=(None, 0.0)),
    "rpo_alpha": _NLL,
    "simpo_gamma": NotOffered("it is loss_params={'gamma': ...} of the loss simpo"),
    "sync_ref_model": _MOVING,
    "tools": NotOffered("text only, without calls of tools"),
    "truncation_mode": NotOffered(_CUT.why, ignored=True),
    "trust_remote_code": NotOffered(
        "--trust-remote-code on the command line; in Python load such a model and its tokenizer yourself"
    ),
    "use_liger_loss": _SLICED,
    "use_logits_to_keep": _SLICED,
    "use_num_logits_to_keep": _SLICED,
    "use_weighting": NotOffered("WPO weighs pairs against one another; bdpo weighs the two responses of a pair"),
}


def without_trl(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those of TRL that change nothing here, each of which is warned of.

    Raises:
        BdpoError: an argument of TRL that would change something, and is not offered.
    """
    from transformers.utils import logging

    for name in sorted(given.keys() & NOT_OFFERED.keys()):
        row = NOT_OFFERED[name]
        if any(given[name] == value and type(given[name]) is not int for value in row.neutral):
            continue
        if not row.ignored:
            raise BdpoError(f"{name} is TRL's and not offered: {row.why} (docs/switching-from-trl.md).")
        logging.get_logger(__name__).warning(f"{name} is TRL's and is passed over: {row.why}.")
    return {name: value for name, value in given.items() if name not in NOT_OFFERED}
