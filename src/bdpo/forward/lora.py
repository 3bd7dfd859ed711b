"""A frozen linear layer and its LoRA adapter as one function, which passes over memory less often.

With frozen weights W, b, an adapter A (r, in), B (out, r) and its scaling s (Hu et al., arXiv:2106.09685, section 4.1):

    y = W x + b + s B u,  u = A x        dL/dx = W^T g + A^T v,  v = s B^T g
                                         dL/dA = v x^T           dL/dB = s g u^T

PEFT takes the two branches and their sum in five steps, of which three write an output as large as y, and likewise on
the way back. What is kept for the backward pass is the same; the numbers are PEFT's but for the order of additions.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def fuse_lora(model: nn.Module) -> None:
    """Let every linear layer of `model` with a LoRA adapter compute as one function wherever that gives the same.

    The layers stay PEFT's in all else, and compute as PEFT does where they are merged, switched off or quantised,
    where several adapters, dropout, DoRA or, without autocast, mixed dtypes are at work, or where an engine hooks their
    parts.
    """
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = FusedLinear


class FusedLinear(Linear):
    """PEFT's linear layer with LoRA; its forward pass is `_FrozenWithLora` where that is the whole of it."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) -> (..., out)."""
        parts = None if args or kwargs else self._parts(x)
        if parts is None:
            return super().forward(x, *args, **kwargs)
        base, a, b, scaling = parts
        tensors: tuple[Tensor | None, ...] = (x, base.weight, base.bias, a.weight, b.weight)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):  # the backward pass knows nothing of it
            dtype = torch.get_autocast_dtype(kind)
            tensors = tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)
        return _FrozenWithLora.apply(*tensors, scaling)

    def _parts(self, x: Tensor) -> tuple[nn.Linear, nn.Linear, nn.Linear, float] | None:
        """The base, the adapter's two factors and its scaling, where the layer is just that."""
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] in self.lora_variant:
            return None
        base, a, b = parts = (self.base_layer, self.lora_A[active[0]], self.lora_B[active[0]])
        dropout = self.lora_dropout[active[0]]
        if not all(_is_plain(part) for part in parts) or a.bias is not None or b.bias is not None:
            return None
        if self.training and getattr(dropout, "p", 0.0) > 0:
            return None
        if not (torch.is_autocast_enabled(x.device.type) or x.dtype == base.weight.dtype == a.weight.dtype):
            return None
        if base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad):
            return None
        return base, a, b, self.scaling[active[0]]


def _is_plain(part: nn.Module) -> bool:
    """A linear layer on which nothing hangs: engines that gather weights or move them between devices use hooks."""
    hooks = (part._forward_pre_hooks, part._forward_hooks, part._backward_pre_hooks, part._backward_hooks)
    return type(part) is nn.Linear and not any(hooks) and "forward" not in vars(part)


class _FrozenWithLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        u = linear(x, a)
        y = linear(x, weight, bias)
        y.view(-1, y.shape[-1]).addmm_(_rows(u), b.T, alpha=scaling)
        ctx.save_for_backward(x, weight, a, b, u)
        ctx.scaling = scaling
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, a and b."""
        x, weight, a, b, u = ctx.saved_tensors
        g = _rows(upstream)
        v = (g @ b).mul_(ctx.scaling)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (g @ weight).addmm_(v, a).view_as(x)
        d_a = v.T @ _rows(x)
        d_b = (g.T @ _rows(u)).mul_(ctx.scaling)
        return d_x, None, None, d_a, d_b, None


def _rows(x: Tensor) -> Tensor:
    """(..., n) -> (rows, n)."""
    return x.reshape(-1, x.shape[-1])
