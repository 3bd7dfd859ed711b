"""The LM head and the softmax behind it, in chunks of rows that never hold all logits.

With hidden states h_m, head weights W and p_m = softmax(W h_m), token n at row m with target t has

    log p = (W h_m)_t - logsumexp(W h_m)            d log p / d h_m = W_t - sum_v p_mv W_v = W_t - e_m

so that the forward pass keeps e_m, as large as a hidden state, and the backward pass of a frozen head needs no logits
at all. A head that is trained recomputes them, chunk by chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

CHUNK = 2**24  # logits held at a time: 64 MiB in float32, for any vocabulary


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
    logps, entropies = _ChunkedHead.apply(hidden, weight, bias, rows, targets, entropy)
    return torch.stack([logps, entropies[rows]], dim=1)


class _ChunkedHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, rows: Tensor, targets: Tensor, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns log-probabilities (N,) and entropies (M,), float32."""
        kind = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
        logps = hidden.new_empty(len(targets), dtype=torch.float32)
        entropies = hidden.new_zeros(len(hidden), dtype=torch.float32)
        expected = torch.empty_like(h) if any(ctx.needs_input_grad) else None  # e_m
        for chunk, tokens, token_rows in _chunks(rows, len(hidden), len(weight)):
            logits = _logits(h[chunk], w, bias)
            peak = logits.amax(-1, keepdim=True)
            target_logits = logits[token_rows, targets[tokens]]
            shifted = logits.sub_(peak)
            exps = shifted.exp() if entropy else shifted.exp_()
            total = exps.sum(-1)
            normaliser = peak[:, 0] + total.log()
            logps[tokens] = target_logits - normaliser[token_rows]
            if entropy:
                entropies[chunk] = total.log() - (exps * shifted).sum(-1) / total
            if expected is not None:
                expected[chunk] = (exps.to(ctx.dtype) @ w).float() / total[:, None]
        ctx.save_for_backward(hidden, weight, bias, rows, targets, expected)
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden, weight and bias."""
        hidden, weight, bias, rows, targets, expected = ctx.saved_tensors
        per_row = upstream.new_zeros(len(hidden)).index_add_(0, rows, upstream)
        d_hidden = expected.float().mul_(-per_row[:, None])
        d_hidden.index_add_(0, rows, weight[targets].float().mul_(upstream[:, None]))
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        if d_weight is not None or d_bias is not None:
            h, w = hidden.to(ctx.dtype), weight.to(ctx.dtype)
            for chunk, tokens, token_rows in _chunks(rows, len(hidden), len(weight)):
                d_logits = _logits(h[chunk], w, bias).softmax(-1).mul_(-per_row[chunk, None])
                d_logits.index_put_((token_rows, targets[tokens]), upstream[tokens], accumulate=True)
                if d_weight is not None:
                    d_weight += (d_logits.to(ctx.dtype).T @ h[chunk]).float()
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
        cast = [None if d is None else d.to(like.dtype) for d, like in ((d_weight, weight), (d_bias, bias))]
        return d_hidden.to(hidden.dtype), *cast, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return linear(hidden, weight, None if bias is None else bias.to(weight.dtype)).float()


def _chunks(rows: Tensor, m: int, vocabulary: int) -> list[tuple[slice, Tensor, Tensor]]:
    """(rows of the chunk, its tokens, the row within the chunk of each of them)."""
    size = max(1, CHUNK // vocabulary)
    order = rows.argsort()
    starts = list(range(0, m, size))
    ends = torch.searchsorted(rows[order], torch.tensor([*starts[1:], m], device=rows.device)).tolist()
    return [
        (slice(start, start + size), order[begin:end], rows[order[begin:end]] - start)
        for start, begin, end in zip(starts, [0, *ends], ends, strict=False)
    ]
