"""What the losses are given, and the statistics that they compare (pure)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdpo.errors import BdpoError


@dataclass(frozen=True, eq=False)
class PairLogps:
    """Log-probabilities of B pairs; all (B,), sums over the response's tokens [nats].

    float32 or float64; bfloat16 is refused, as near -200 nats its steps are of one nat.
    """

    chosen: Tensor  # log pi_theta(y_c | x), with gradient
    rejected: Tensor
    ref_chosen: Tensor  # log pi_0(y_c | x), without gradient
    ref_rejected: Tensor
    chosen_lengths: Tensor  # T of each response, whole numbers of at least 1
    rejected_lengths: Tensor
    chosen_unsafe: Tensor | None = None  # 1 where the response is labelled unsafe, else 0; for safedpo
    rejected_unsafe: Tensor | None = None

    def __post_init__(self) -> None:
        for name, tensor in vars(self).items():
            if tensor is not None and (tensor.dim() != 1 or tensor.shape != self.chosen.shape):
                shapes = f"{name} has {tuple(tensor.shape)}, chosen {tuple(self.chosen.shape)}"
                raise BdpoError(f"PairLogps takes tensors of one shape (B,): {shapes}.")
        for name in ("chosen", "rejected", "ref_chosen", "ref_rejected"):
            dtype = getattr(self, name).dtype
            if dtype not in (torch.float32, torch.float64):
                raise BdpoError(f"Log-probabilities must be float32 or float64: {name} is {dtype}.")


@dataclass(frozen=True, eq=False)
class PairWeights:
    """Effective weights of B pairs, both (B,), dimensionless: s * w_c and s * w_r."""

    chosen: Tensor
    rejected: Tensor


Weights = PairWeights | None  # None: weights of 1

EXAMPLE = PairLogps(  # Delta_c = 2, Delta_r = -1; per token -2 and -6
    chosen=torch.tensor([-8.0], dtype=torch.float64),
    rejected=torch.tensor([-12.0], dtype=torch.float64),
    ref_chosen=torch.tensor([-10.0], dtype=torch.float64),
    ref_rejected=torch.tensor([-11.0], dtype=torch.float64),
    chosen_lengths=torch.tensor([4]),
    rejected_lengths=torch.tensor([2]),
    chosen_unsafe=torch.tensor([False]),
    rejected_unsafe=torch.tensor([True]),
)


# --- the statistics that are compared -----------------------------------------------------------------
def log_ratios(logps: PairLogps, weights: Weights = None) -> tuple[Tensor, Tensor]:
    """Balanced log-ratios k_c Delta_c and k_r Delta_r, two (B,) [nats].

    >>> c, r = log_ratios(EXAMPLE, PairWeights(torch.tensor([0.5]), torch.tensor([1.25])))
    >>> c.item(), r.item()
    (1.0, -1.25)
    """
    chosen, rejected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    if weights is None:
        return chosen, rejected
    return _like(weights.chosen, chosen) * chosen, _like(weights.rejected, rejected) * rejected


def balanced_logps(logps: PairLogps, weights: Weights = None) -> tuple[Tensor, Tensor]:
    """Balanced log-probabilities lp~(y) = ref + k_y (logp - ref), two (B,) [nats]; may exceed 0.

    >>> c, r = balanced_logps(EXAMPLE, PairWeights(torch.tensor([0.5]), torch.tensor([1.25])))
    >>> c.item(), r.item()
    (-9.0, -12.25)
    """
    if weights is None:
        return logps.chosen, logps.rejected
    return (
        blend(logps.chosen, logps.ref_chosen, weights.chosen),
        blend(logps.rejected, logps.ref_rejected, weights.rejected),
    )


def margin(logps: PairLogps, weights: Weights, beta: float) -> Tensor:
    """m = beta (k_c Delta_c - k_r Delta_r), (B,)."""
    chosen, rejected = log_ratios(logps, weights)
    return beta * (chosen - rejected)


def mean_logps(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Log-probability per token, two (B,) [nats/token]."""
    return logps.chosen / logps.chosen_lengths, logps.rejected / logps.rejected_lengths


def blend(value: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
    """reference + weight * (value - reference), written so that weight 1 and value = reference are exact."""
    return value + (_like(weight, value) - 1) * (value - reference)


def _like(weight: Tensor, value: Tensor) -> Tensor:
    """The weight in the value's dtype and device: the balance is float64, the loss stays as it is."""
    if weight.shape != value.shape:
        raise BdpoError(f"The weights have shape {tuple(weight.shape)}, the pairs {tuple(value.shape)}.")
    return weight.to(value)
