"""The balance: from the comprehension of the two responses of a pair to their weights and scale (pure).

Within a pair the better understood response gets the smaller balancing weight (BW), and a scaling
factor (SF) keeps the size of the gradient steady. The idea is that of the public abstract of
arXiv:2603.22829; the formulas below are this project's instantiation of it and are not quoted from the
paper. For a pair with preferred response c and dispreferred response r, of comprehension i_c and i_r:

    d   = i_c - i_r                                    imbalance            [nats/token]
    tau = temperature * std(d)                         over the training set, ddof 0
    w_c = 2 sigma(-d / tau)    w_r = 2 sigma(d / tau)  balancing weights, w_c + w_r = 2
    s   = sqrt(2 / (w_c^2 + w_r^2))                    scaling factor, 1/sqrt(2) <= s <= 1

so that s * sqrt(w_c^2 + w_r^2) = sqrt(2), as it is without weights. With center "mean", d is replaced by
d - mean(d) over the training set: the weights then balance within pairs and no longer tilt the data set towards
the side that is the less understood one on average. What the training set fixes is a `Fit`, which held-out pairs
take over. A new weighting is one function of (chosen_mi, rejected_mi, fit) and one line in WEIGHTINGS.

Three weightings are controls, each the weights of `sigmoid` put where they cannot balance comprehension: `reversed`
(the better understood response pulls more), `permuted` (a pair has the weights of another pair) and `constant` (every
pair has the mean weights: the tilt alone). A gain that balancing causes must vanish under them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdpo.errors import BdpoError, unknown

Values = Tensor | Sequence[float]
Weighting = Callable[[Tensor, Tensor, "Fit"], tuple[Tensor, Tensor]]

CENTERS = ("none", "mean")
RATIO_FLOOR = 0.05  # nats/token; keeps the ratio's denominator positive where information is negative
# Scores come from float32 log-probabilities: a spread below their rounding is not an imbalance.
RESOLUTION = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Fit:
    """What the training set fixes, for held-out pairs too."""

    tau: float  # nats/token, temperature included. inf: there was nothing to balance
    mean: float = 0.0  # nats/token, taken from every d: mean(d) with center "mean", else 0
    chosen_weight: float = 1.0  # mean w_c of `sigmoid` over the training set; for `constant`
    seed: int = 0  # for `permuted`

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise BdpoError(f"tau must be above 0 (or inf for no balance), not {self.tau}.")


@dataclass(frozen=True, eq=False)
class Balance:
    """What `balance` returns; all tensors (N,), float64, dimensionless."""

    chosen_weight: Tensor  # w_c
    rejected_weight: Tensor  # w_r
    scale: Tensor  # s
    fit: Fit  # to be passed on for held-out pairs

    @property
    def tilt(self) -> tuple[float, float]:
        """Mean w_c and mean w_r: away from (1, 1) one side of the whole data set is pulled more than the other."""
        return self.chosen_weight.mean().item(), self.rejected_weight.mean().item()


def sigmoid_weights(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """w_c = 2 sigma(-d/tau), w_r = 2 sigma(d/tau), with d = chosen_mi - rejected_mi.

    chosen_mi, rejected_mi (N,) [nats/token], centred already; returns two (N,).

    By hand: d/tau = log 3 gives sigma = 1/4 and 3/4.

    Examples:
        >>> w_c, w_r = sigmoid_weights(torch.tensor([3.0]).log(), torch.tensor([0.0]), Fit(tau=1.0))
        >>> f"{w_c.item():.6f} {w_r.item():.6f}"
        '0.500000 1.500000'
    """
    z = (chosen_mi - rejected_mi) / fit.tau
    return 2 * torch.sigmoid(-z), 2 * torch.sigmoid(z)


def ratio_weights(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """w_c = 2 i_r / (i_c + i_r), w_r = 2 - w_c, both i clamped below at RATIO_FLOOR.

    Without a temperature: the fit goes unused. Not invariant to adding a constant to both i.

    By hand: i = (3, 1) gives 2 * 1 / 4 = 0.5 and 1.5.

    Examples:
        >>> w_c, w_r = ratio_weights(torch.tensor([3.0]), torch.tensor([1.0]), Fit(tau=1.0))
        >>> f"{w_c.item():.6f} {w_r.item():.6f}"
        '0.500000 1.500000'
    """
    chosen, rejected = chosen_mi.clamp(min=RATIO_FLOOR), rejected_mi.clamp(min=RATIO_FLOOR)
    return 2 * rejected / (chosen + rejected), 2 * chosen / (chosen + rejected)


def reversed_weights(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """A control: w_c and w_r of `sigmoid_weights` swapped, so that the better understood response pulls more.

    Examples:
        >>> w_c, w_r = reversed_weights(torch.tensor([3.0]).log(), torch.tensor([0.0]), Fit(tau=1.0))
        >>> f"{w_c.item():.6f} {w_r.item():.6f}"
        '1.500000 0.500000'
    """
    w_c, w_r = sigmoid_weights(chosen_mi, rejected_mi, fit)
    return w_r, w_c


def permuted_weights(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """A control: each pair has the `sigmoid_weights` of another pair (of its own where there is no other).

    The pairs form one ring in an order drawn with fit.seed, and each takes the weights of the next. All weights are
    kept, so the tilt is that of `sigmoid`. It depends on N, the order of the pairs and the seed alone, and so is the
    same in every process and in a resumed run. Held-out pairs are permuted among themselves.

    By hand: of two pairs each has the other's.

    Examples:
        >>> w_c, w_r = permuted_weights(torch.tensor([3.0, 1.0]).log(), torch.zeros(2), Fit(tau=1.0))
        >>> [f"{w:.6f}" for w in w_c]
        ['1.000000', '0.500000']
    """
    order = torch.randperm(len(chosen_mi), generator=torch.Generator().manual_seed(fit.seed))
    source = torch.empty_like(order)
    source[order] = order.roll(-1)
    w_c, w_r = sigmoid_weights(chosen_mi, rejected_mi, fit)
    return w_c[source], w_r[source]


def constant_weights(chosen_mi: Tensor, rejected_mi: Tensor, fit: Fit) -> tuple[Tensor, Tensor]:
    """A control: every pair has the mean `sigmoid_weights` of the training set, the tilt alone.

    Examples:
        >>> [w.tolist() for w in constant_weights(torch.ones(2), torch.ones(2), Fit(tau=1.0, chosen_weight=0.75))]
        [[0.75, 0.75], [1.25, 1.25]]
    """
    w_c = torch.full_like(chosen_mi, fit.chosen_weight)
    return w_c, 2 - w_c


WEIGHTINGS: dict[str, Weighting] = {
    "sigmoid": sigmoid_weights,
    "ratio": ratio_weights,
    "reversed": reversed_weights,
    "permuted": permuted_weights,
    "constant": constant_weights,
}
CONTROLS = ("reversed", "permuted", "constant")


def balance(
    chosen_mi: Values,
    rejected_mi: Values,
    *,
    enabled: bool = True,
    weighting: str = "sigmoid",
    temperature: float = 1.0,
    center: str = "none",
    seed: int = 0,
    fit: Fit | None = None,
    weights: bool = True,
    scale: bool = True,
) -> Balance:
    """Weights and scale of N pairs, by the module's formulas.

    chosen_mi, rejected_mi  (N,) comprehension of the two responses [nats/token]
    enabled      False: as an infinite temperature, whatever the fit
    temperature  in (0, inf]; inf gives DPO, and towards 0 only the less understood response is trained
    center       "mean": d - mean(d) over the training set in place of d, half of it taken from each side
    seed         draws whose weights a pair has, with weighting "permuted"
    fit          None for a training set, where it is computed; the training set's for held-out pairs
                 (it holds what temperature, center and seed came to, which then go unused)
    weights      False: w = 1 and s computed from the weights all the same (SF alone)
    scale        False: s = 1 (BW alone)

    Where std(d) is 0 (or below the rounding of float32 scores), with one pair and at infinite temperature,
    tau is inf; a tau of inf gives weights of 1 whatever the weighting. Raises BdpoError for a name that is in no
    table, a temperature or tau not above 0, and comprehension that is not finite or not of one shape.

    By hand: i_c = (1, 0), i_r = (0, 1) gives d = (1, -1), std 1 and tau = 1 / log 3 at that temperature,
    so w_c = (0.5, 1.5), w_r = (1.5, 0.5) and s = sqrt(2 / 2.5) = 0.894427 for both.

    Examples:
        >>> b = balance([1.0, 0.0], [0.0, 1.0], temperature=1 / math.log(3))
        >>> [f"{w:.6f}" for w in (*b.chosen_weight, *b.rejected_weight, *b.scale)]
        ['0.500000', '1.500000', '1.500000', '0.500000', '0.894427', '0.894427']
    """
    if weighting not in WEIGHTINGS:
        raise unknown("weighting", weighting, WEIGHTINGS)
    if center not in CENTERS:
        raise unknown("center", center, CENTERS)
    chosen, rejected = _checked(chosen_mi, rejected_mi)
    if not enabled:
        fit = Fit(math.inf)
    elif fit is None:
        fit = _fit(chosen, rejected, temperature, center, seed)
    one = torch.ones_like(chosen)
    w_c, w_r = one, one
    if math.isfinite(fit.tau):
        w_c, w_r = WEIGHTINGS[weighting](chosen - fit.mean / 2, rejected + fit.mean / 2, fit)
    s = torch.sqrt(2 / (w_c**2 + w_r**2))
    w_c, w_r = (w_c, w_r) if weights else (one, one)
    return Balance(chosen_weight=w_c, rejected_weight=w_r, scale=s if scale else one, fit=fit)


def _fit(chosen: Tensor, rejected: Tensor, temperature: float, center: str, seed: int) -> Fit:
    mean = (chosen - rejected).mean().item() if center == "mean" else 0.0
    fit = Fit(_tau(chosen, rejected, temperature), mean, seed=seed)
    if math.isinf(fit.tau):
        return fit
    w_c, _ = sigmoid_weights(chosen - mean / 2, rejected + mean / 2, fit)
    return replace(fit, chosen_weight=w_c.mean().item())


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
