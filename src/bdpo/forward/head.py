"""The LM head and the softmax behind it, in slices of the vocabulary, so that all logits are never held.

With hidden states h_m, head weights W and p_m = softmax(W h_m), token n at row m with target t has

    log p = (W h_m)_t - logsumexp(W h_m)            d log p / d h_m = W_t - sum_v p_mv W_v = W_t - e_m

The sums over the vocabulary grow slice by slice, relative to the largest logit so far, as in Milakov and Gimelshein,
"Online normalizer calculation for softmax" (arXiv:1805.02867). The forward pass keeps e_m, as large as a hidden state,
and so the backward pass of a frozen head needs no logits at all. A head that is trained computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

# Logits held at a time, for any vocabulary: 16 MiB on a CPU, 128 MiB elsewhere, where few large kernels count
CPU_CHUNK, CHUNK = 2**22, 2**25
NARROWEST = 256  # tokens of the vocabulary; thinner slices would make poor matrix products


def token_statistics(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, targets: Tensor, *, entropy: bool = False
) -> Tensor:
    """Log-probability of each response token, and the entropy of the distribution that it was drawn from.

    Args:
        hidden: (M, D).
        weight: (V, D), the head's; bias (V,) or None.
        rows: (N,) int64, the hidden state that predicts token n.
        targets: (N,) int64, the tokens.
        entropy: compute entropies; else they are 0. They carry no gradient.

    Returns:
        (N, 2) float32: log-probabilities and entropies [nats].
    """
    # within the function grad mode is off, and the weights ask for a gradient all the same
    logps, entropies = _SlicedHead.apply(hidden, weight, bias, rows, targets, entropy, torch.is_grad_enabled())
    return torch.stack([logps, entropies[rows]], dim=1)


class _SlicedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, targets: Tensor,
        entropy: bool, gradient: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Returns log-probabilities (N,) and entropies (M,), float32."""
        kind = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        peak = hidden.new_full((len(hidden),), float("-inf"), dtype=torch.float32)
        total, mean_logit = torch.zeros_like(peak), torch.zeros_like(peak)  # sums weighted with exp(logit - peak)
        expected = torch.zeros_like(hidden, dtype=torch.float32) if gradient else None  # e_m, likewise
        target_logits = hidden.new_empty(len(targets), dtype=torch.float32)
        for part, logits in _slices(h, w, bias):
            place, inside = _places(targets, part)
            target_logits = torch.where(inside, logits[rows, place], target_logits)
            higher = torch.maximum(peak, logits.amax(-1))
            decay, peak = (peak - higher).exp_(), higher
            if entropy:
                exps = (logits - peak[:, None]).exp_()
                mean_logit.mul_(decay).add_((exps * logits).sum(-1))
            else:
                exps = logits.sub_(peak[:, None]).exp_()
            total.mul_(decay).add_(exps.sum(-1))
            if expected is not None:
                expected.mul_(decay[:, None]).add_(exps.to(ctx.dtype) @ w[part])
        normaliser = peak + total.log()
        entropies = normaliser - mean_logit.div_(total) if entropy else torch.zeros_like(total)
        if expected is not None:
            expected = expected.div_(total[:, None]).to(ctx.dtype)
        trained = any(ctx.needs_input_grad[1:3])
        ctx.save_for_backward(hidden if trained else None, weight, bias, rows, targets, normaliser, expected)
        ctx.hidden_dtype = hidden.dtype
        ctx.mark_non_differentiable(entropies)
        return target_logits - normaliser[rows], entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden, weight and bias."""
        hidden, weight, bias, rows, targets, normaliser, expected = ctx.saved_tensors
        per_row = torch.zeros_like(normaliser).index_add_(0, rows, upstream)
        d_hidden = expected.float() * -per_row[:, None]
        d_hidden.index_add_(0, rows, weight[targets].float().mul_(upstream[:, None]))
        d_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.empty_like(bias) if ctx.needs_input_grad[2] else None
        if d_weight is not None or d_bias is not None:
            h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
            for part, logits in _slices(h, w, bias):
                place, inside = _places(targets, part)
                d_logits = logits.sub_(normaliser[:, None]).exp_().mul_(-per_row[:, None])
                d_logits.index_put_((rows, place), upstream * inside, accumulate=True)
                if d_weight is not None:
                    d_weight[part] = d_logits.to(ctx.dtype).T @ h
                if d_bias is not None:
                    d_bias[part] = d_logits.sum(0)
        return d_hidden.to(ctx.hidden_dtype), d_weight, d_bias, None, None, None, None


def _slices(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the vocabulary (v,) and their logits (M, v), float32."""
    size = max(NARROWEST, (CPU_CHUNK if hidden.device.type == "cpu" else CHUNK) // len(hidden))
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        yield part, linear(hidden, weight[part], None if bias is None else bias[part].to(weight.dtype)).float()


def _places(targets: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Column of each target in a slice of the vocabulary, and whether it lies there (else any column)."""
    inside = (targets >= part.start) & (targets < part.stop)
    return (targets - part.start).where(inside, 0), inside
