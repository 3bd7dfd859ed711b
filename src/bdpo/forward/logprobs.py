"""THE function from (model, batch) to log-probabilities; scoring, training and evaluation all go through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from bdpo.errors import BdpoError
from bdpo.forward.attention import flex_mask, let_sdpa_take_blocks
from bdpo.forward.head import token_statistics
from bdpo.forward.layout import BranchBatch, Layout, Tree, attention_mask, block_table, lay_out
from bdpo.models import device_of
from bdpo.processes import processes, weights_are_sharded

# Architectures whose two layouts were compared (tests/forward/test_logprobs.py); others are probed on one pair.
_SHARED_KNOWN = {"llama", "qwen2", "mistral", "gemma", "gpt2"}
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")  # what configs call it
_MASKED_KERNELS = {"sdpa", "eager"}  # attention implementations that take an arbitrary mask
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}  # nats, on 8 tokens


@dataclass(frozen=True)
class BranchLogps:
    """Sums over the response tokens of K branches."""

    logps: Tensor  # (K,) float32, log-probability of the branch given its prefix [nats]
    entropies: Tensor | None  # (K,) float32, summed predictive entropy [nats], where asked for
    hidden: Tensor | None = None  # (K, D) float32, sum of the hidden states that predict the tokens, where asked for


def branch_logps(model: nn.Module, batch: BranchBatch, *, entropy: bool = False, hidden: bool = False) -> BranchLogps:
    """Log-probability of every branch of `batch` under `model`, with gradient where grad mode is on.

    The forward is the model's own, however it is wrapped (PEFT, DDP, FSDP, DeepSpeed), so that their hooks run. The
    LM head is applied at the M predicting positions only, and the softmax is taken in float32.

    Args:
        model: a causal language model; `batch` is on its device.
        entropy: also sum the entropy of the predictive distribution at each response token.
        hidden: also sum what the LM head is given at each response token: the last layer's state, after its norm.

    Raises:
        BdpoError: the model has no LM head that can be kept to the predicting positions.
    """
    inputs = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": _mask_for(model, batch),
        "use_cache": False,
    }
    with _states_at_head(model, batch, hidden) as states:
        statistics = _through_sliced_head(model, inputs, batch, entropy)  # (N, 2)
        if statistics is None:
            statistics = _through_whole_head(model, inputs, batch, entropy)
    logps, entropies = statistics.float().T
    return BranchLogps(
        _sum_by_branch(logps, batch),
        _sum_by_branch(entropies, batch) if entropy else None,
        _sum_states(states[-1], batch) if hidden else None,
    )


def choose_layout(model: nn.Module, longest: int) -> tuple[Layout, str]:
    """Which layout `model` can take, and why: `packed` or `shared` wherever a custom mask works, else `padded`.

    Architectures not known are probed: one pair of that length is computed in both layouts and compared.

    Args:
        longest: the longest prefix + branch that will be laid out [tokens]; a custom mask replaces a sliding
            window, which is right only while the window is not shorter than that.
    """
    kind = inner_model(model).config.model_type
    config = inner_model(model).config.get_text_config()
    implementation = _implementation(model)
    # an engine that shares out the weights moves them to the device only when they are at work
    layouts = _layouts_of(implementation, processes().device if weights_are_sharded() else device_of(model))
    if not layouts:
        return "padded", f"{implementation} attention takes no custom mask"
    window = window_of(config)
    if window is not None and window < longest:
        return (
            "padded",
            f"the sliding window of {window} tokens is shorter than the longest branch, {longest}",
        )
    if kind in _SHARED_KNOWN:
        return layouts[0], f"{kind} under {implementation}"
    why = ""
    for layout in layouts:
        why = _objection(model, layout, longest)
        if not why:
            return layout, f"a probe of {kind} agreed"
    return "padded", why


def _implementation(model: nn.Module) -> str:
    return str(inner_model(model).config.get_text_config()._attn_implementation)


def _layouts_of(implementation: str, device: torch.device) -> tuple[Layout, ...]:
    """The layouts with a pair in one sequence that an attention implementation may take, the fastest first."""
    if implementation == "flex_attention":
        return ("packed",)
    if implementation == "sdpa" and device.type == "cpu":
        return ("packed", "shared")
    return ("shared",) if implementation in _MASKED_KERNELS else ()


def _objection(model: nn.Module, layout: Layout, longest: int) -> str:
    """What a probe of a layout has against it; nothing where it gives the numbers of the padded one."""
    kind = inner_model(model).config.model_type
    try:
        gap = _layout_gap(model, layout, longest)
    except (BdpoError, ValueError, TypeError, RuntimeError, IndexError, NotImplementedError) as error:
        return f"{kind} refuses a custom mask ({type(error).__name__})"
    agreed = gap <= _PROBE_TOLERANCE.get(next(model.parameters()).dtype, 0.25)
    return "" if agreed else f"a probe of {kind} differed by {gap:.2g} nats between the layouts"


def window_of(config: Any) -> int | None:
    """Sliding window or chunk of attention in a model config [tokens], None where every layer sees all there is.

    A prefix and branch that fit within it together are safe in either layout.
    """
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and not any("sliding" in kind or "chunked" in kind for kind in kinds):
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    windows = [getattr(config, name, None) for name in _WINDOWS]
    return min((int(window) for window in windows if window), default=None)


def inner_model(model: nn.Module) -> Any:
    """The model without the wrappers that engines put around it (DDP, FSDP, DeepSpeed, compile); PEFT stays."""
    return extract_model_from_parallel(model, keep_fp32_wrapper=True)


def _layout_gap(model: nn.Module, layout: Layout, longest: int) -> float:
    """Largest difference to `padded` on a pair whose prompt fills `longest` tokens, so that windows show."""
    device = device_of(model)
    ids = torch.randint(3, 100, (max(longest - 4, 4) + 8,), generator=torch.Generator().manual_seed(0)).tolist()
    tree = Tree(ids[:-8], [ids[-8:-4], ids[-4:]])
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            found, padded = (
                branch_logps(model, lay_out([tree], layout=which).to(device)).logps for which in (layout, "padded")
            )
    finally:
        model.train(was_training)
    return float((found - padded).abs().max())


def _mask_for(model: nn.Module, batch: BranchBatch) -> Tensor | BlockMask:
    """The mask as the model's attention takes it: blocks for `packed`, one for each token for `padded`.

    Additive for `shared`: eager adds it to the scores (a boolean one would add 1 and hide nothing), and sdpa would
    turn a boolean one into this, and keep it for the backward pass, once a layer.
    """
    if batch.layout == "packed" and _implementation(model) == "flex_attention":
        return flex_mask(batch.block, batch.parent)
    if batch.layout == "packed":
        let_sdpa_take_blocks()
        return block_table(batch)[None, None]
    mask = attention_mask(batch)
    if batch.layout == "padded":
        return mask
    device = mask.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else next(inner_model(model).parameters()).dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


# Heads whose output is the model's (some models cap or scale what comes out of theirs): learnt at the first batch.
_OUTPUT_IS_LOGITS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _through_sliced_head(model: nn.Module, inputs: dict[str, Any], batch: BranchBatch, entropy: bool) -> Tensor | None:
    """Log-probability and entropy of each response token (N, 2), from a head that holds no more than a slice of logits.

    The head's forward is replaced for one call, so that what engines hang on the module runs. None where that cannot
    be: the head is no plain linear layer, or the model changes the logits that come out of it.
    """
    head = _head_of(model)
    if type(head) is not nn.Linear or "forward" in vars(head) or not _OUTPUT_IS_LOGITS.get(head, True):
        return None
    given: list[Tensor] = []

    def forward(hidden: Tensor) -> Tensor:
        at_predictors = hidden.flatten(0, 1)[batch.predictors]
        found = token_statistics(
            at_predictors, head.weight, head.bias, batch.predictor_of, batch.targets, entropy=entropy
        )
        given.append(found[None])
        return given[0]

    setattr(head, "forward", forward)  # noqa: B010
    try:
        logits = model(**inputs).logits
    finally:
        del head.forward
    if not given or logits.shape != given[0].shape:
        raise _no_use_of_head(model)
    if head not in _OUTPUT_IS_LOGITS:
        _OUTPUT_IS_LOGITS[head] = torch.equal(logits.float(), given[0])
    return logits[0] if _OUTPUT_IS_LOGITS[head] else None


def _through_whole_head(model: nn.Module, inputs: dict[str, Any], batch: BranchBatch, entropy: bool) -> Tensor:
    """The same (N, 2) from whole logits, kept to the predicting positions."""

    def select(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].flatten(0, 1)[batch.predictors][None], *args[1:])

    handle = _head_of(model).register_forward_pre_hook(select)
    try:
        logits = model(**inputs).logits
    finally:
        handle.remove()
    if logits.shape[:2] != (1, len(batch.predictors)):
        raise _no_use_of_head(model)
    every = logits[0].float().log_softmax(-1)  # (M, V)
    entropies = -(every.detach().exp() * every.detach()).sum(-1) if entropy else every.new_zeros(len(every))
    return torch.stack([every[batch.predictor_of, batch.targets], entropies[batch.predictor_of]], dim=1)


@contextmanager
def _states_at_head(model: nn.Module, batch: BranchBatch, wanted: bool) -> Iterator[list[Tensor]]:
    """What the head is given at the M predicting positions (M, D), once for each time that the model runs."""
    states: list[Tensor] = []
    if not wanted:
        yield states
        return

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        states.append(args[0].flatten(0, 1)[batch.predictors])

    handle = _head_of(model).register_forward_pre_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def _head_of(model: nn.Module) -> nn.Module:
    head: nn.Module | None = inner_model(model).get_output_embeddings()
    if head is None:
        raise BdpoError(f"{type(inner_model(model)).__name__} has no LM head: take a causal language model.")
    return head


def _no_use_of_head(model: nn.Module) -> BdpoError:
    return BdpoError(f"{type(inner_model(model)).__name__} does not send its hidden states through its LM head.")


def _sum_states(states: Tensor, batch: BranchBatch) -> Tensor:
    """States (M, D) summed over the tokens of each branch: (K, D). A prefix's last state counts for all branches."""
    times = torch.zeros(len(batch.lengths), len(states), device=states.device)  # of each state in each branch
    places = (batch.branch_of, batch.predictor_of)
    return times.index_put(places, times.new_ones(len(batch.targets)), accumulate=True) @ states.float()


def _sum_by_branch(values: Tensor, batch: BranchBatch) -> Tensor:
    # near -500 nats each addition in float32 would be off by 1e-5
    exact = torch.float32 if values.device.type == "mps" else torch.float64
    total = torch.zeros(len(batch.lengths), dtype=exact, device=values.device)
    return total.index_add(0, batch.branch_of, values.to(exact)).float()
