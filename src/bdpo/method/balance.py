"""The balance: from the comprehension of the two responses of a pair to their weights and scale (pure).

Within a pair the better understood response gets the smaller balancing weight (BW), and a scaling
factor (SF) keeps the size of the gradient steady. The idea is that of the public abstract of
arXiv:2603.22829; the formulas below are this project's instantiation of it and are not quoted from the
paper. For a pair with preferred response c and dispreferred response r, of comprehension i_c and i_r:

    d   = i_c - i_r                                    imbalance            [nats/token]
    tau = temperature * std(d)                         over the training set, ddof 0
    w_c = 2 sigma(-d / tau)    w_r = 2 sigma(d / tau)  balancing weights, w_c + w_r = 2
    s   = sqrt(2 / (w_c^2 + w_r^2))                    scaling factor, 1/sqrt(2) <= s <= 1

so that s * sqrt(w_c^2 + w_r^2) = sqrt(2), as it is without weights. A new weighting is one function of
(chosen_mi, rejected_mi, tau) and one line in WEIGHTINGS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdpo.errors import BdpoError, unknown

Values = Tensor | Sequence[float]
Weighting = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]

RATIO_FLOOR = 0.05  # nats/token; keeps the ratio's denominator positive where information is negative
# Scores come from float32 log-probabilities: a spread below their rounding is not an imbalance.
RESOLUTION = torch.finfo(torch.float32).eps


@dataclass(frozen=True, eq=False)
class Balance:
    """What `balance` returns; all tensors (N,), float64, dimensionless."""

    chosen_weight: Tensor  # w_c
    rejected_weight: Tensor  # w_r
    scale: Tensor  # s
    tau: float  # nats/token; to be passed on for held-out pairs. inf: there was nothing to balance


def sigmoid_weights(chosen_mi: Tensor, rejected_mi: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """w_c = 2 sigma(-d/tau), w_r = 2 sigma(d/tau), with d = chosen_mi - rejected_mi.

    chosen_mi, rejected_mi (N,) [nats/token]; tau [nats/token]; returns two (N,).

    By hand: d/tau = log 3 gives sigma = 1/4 and 3/4.

    >>> w_c, w_r = sigmoid_weights(torch.tensor([3.0]).log(), torch.tensor([0.0]), 1.0)
    >>> f"{w_c.item():.6f} {w_r.item():.6f}"
    '0.500000 1.500000'
    """
    z = (chosen_mi - rejected_mi) / tau
    return 2 * torch.sigmoid(-z), 2 * torch.sigmoid(z)


def ratio_weights(chosen_mi: Tensor, rejected_mi: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """w_c = 2 i_r / (i_c + i_r), w_r = 2 - w_c, both i clamped below at RATIO_FLOOR.

    Without a temperature: tau goes unused. Not invariant to adding a constant to both i.

    By hand: i = (3, 1) gives 2 * 1 / 4 = 0.5 and 1.5.

    >>> w_c, w_r = ratio_weights(torch.tensor([3.0]), torch.tensor([1.0]), 1.0)
    >>> f"{w_c.item():.6f} {w_r.item():.6f}"
    '0.500000 1.500000'
    """
    chosen, rejected = chosen_mi.clamp(min=RATIO_FLOOR), rejected_mi.clamp(min=RATIO_FLOOR)
    return 2 * rejected / (chosen + rejected), 2 * chosen / (chosen + rejected)


WEIGHTINGS: dict[str, Weighting] = {
    "sigmoid": sigmoid_weights,
    "ratio": ratio_weights,
}


def balance(
    chosen_mi: Values,
    rejected_mi: Values,
    *,
    enabled: bool = True,
    weighting: str = "sigmoid",
    temperature: float = 1.0,
    tau: float | None = None,
    weights: bool = True,
    scale: bool = True,
) -> Balance:
    """Weights and scale of N pairs, by the module's formulas.

    chosen_mi, rejected_mi  (N,) comprehension of the two responses [nats/token]
    enabled      False: as an infinite temperature, whatever tau is
    temperature  in (0, inf]; inf gives DPO, and towards 0 only the less understood response is trained
    tau          None for a training set, where it is computed; the training set's for held-out pairs
                 (it holds the temperature already, which then goes unused)
    weights      False: w = 1 and s computed from the weights all the same (SF alone)
    scale        False: s = 1 (BW alone)

    Where std(d) is 0 (or below the rounding of float32 scores), with one pair and at infinite temperature,
    tau is inf; a tau of inf gives weights of 1 whatever the weighting.

    By hand: i_c = (1, 0), i_r = (0, 1) gives d = (1, -1), std 1 and tau = 1 / log 3 at that temperature,
    so w_c = (0.5, 1.5), w_r = (1.5, 0.5) and s = sqrt(2 / 2.5) = 0.894427 for both.

    >>> b = balance([1.0, 0.0], [0.0, 1.0], temperature=1 / math.log(3))
    >>> [f"{w:.6f}" for w in (*b.chosen_weight, *b.rejected_weight, *b.scale)]
    ['0.500000', '1.500000', '1.500000', '0.500000', '0.894427', '0.894427']
    """
    if weighting not in WEIGHTINGS:
        raise unknown("weighting", weighting, WEIGHTINGS)
    chosen, rejected = _checked(chosen_mi, rejected_mi)
    if not enabled:
        tau = math.inf
    tau = _tau(chosen, rejected, temperature) if tau is None else tau
    if not tau > 0:
        raise BdpoError(f"tau must be above 0 (or inf for no balance), not {tau}.")
    one = torch.ones_like(chosen)
    w_c, w_r = (one, one) if math.isinf(tau) else WEIGHTINGS[weighting](chosen, rejected, tau)
    s = torch.sqrt(2 / (w_c**2 + w_r**2))
    w_c, w_r = (w_c, w_r) if weights else (one, one)
    return Balance(chosen_weight=w_c, rejected_weight=w_r, scale=s if scale else one, tau=tau)


def _tau(chosen: Tensor, rejected: Tensor, temperature: float) -> float:
    if not temperature > 0:
        raise BdpoError(f"The balance's temperature must be above 0 (or inf for DPO), not {temperature}.")
    std = (chosen - rejected).std(correction=0).item()
    noise = RESOLUTION * torch.maximum(chosen.abs(), rejected.abs()).max().item()
    return math.inf if std <= noise or math.isinf(temperature) else temperature * std


def _checked(chosen_mi: Values, rejected_mi: Values) -> tuple[Tensor, Tensor]:
    chosen = torch.as_tensor(chosen_mi, dtype=torch.float64)
    rejected = torch.as_tensor(rejected_mi, dtype=torch.float64)
    if chosen.dim() != 1 or chosen.shape != rejected.shape or len(chosen) == 0:
        raise BdpoError(
            "The balance takes the comprehension of chosen and rejected as two tensors of one shape (N,), "
            f"N >= 1, not {tuple(chosen.shape)} and {tuple(rejected.shape)}."
        )
    bad = (~torch.isfinite(chosen - rejected)).nonzero().flatten().tolist()
    if bad:
        shown = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise BdpoError(f"The comprehension of {len(bad)} pair(s) is not a finite number: position {shown}.")
    return chosen, rejected
