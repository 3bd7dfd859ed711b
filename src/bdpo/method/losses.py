"""Pairwise preference losses, one free function each, in one table (pure).

A loss takes the log-probabilities of B pairs (`PairLogps`), the weights of the balance (`PairWeights`,
or None for weights of 1) and its own keyword hyperparameters, and returns one loss a pair, (B,), in nats.
The names used below, for a response y with T tokens:

    Delta_y = log pi_theta(y|x) - log pi_0(y|x)       log-ratio to the reference
    k_y     = s * w_y                                 the balance's effective weight, 1 without a balance

The balance is orthogonal to the loss: each loss is given, in place of the statistic z(y) that it
compares, the balanced one, which is the plain one at the start of training (theta = reference):

    z~(y) = z_ref(y) + k_y (z(y) - z_ref(y))

z is the log-probability, so that Delta_y becomes k_y Delta_y; for ORPO it is the log-odds. What is not
the pairwise comparison (NLL term, DPOP's penalty, SafeDPO's margin) stays unweighted, and so do rewards.
B-DPO is `dpo` with weights. It follows the idea of the public abstract of arXiv:2603.22829; the formulas
of the balance are this project's instantiation of it and are not quoted from the paper.

A new loss is one function and one line in LOSSES. The doctests compute the values of EXAMPLE by hand.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from bdpo.errors import BdpoError, unknown
from bdpo.method.logps import (
    EXAMPLE as EXAMPLE,
)
from bdpo.method.logps import (
    PairLogps as PairLogps,
)
from bdpo.method.logps import (
    PairWeights as PairWeights,
)
from bdpo.method.logps import (
    Weights,
    balanced_logps,
    blend,
    log_ratios,
    margin,
    mean_logps,
)


def _log_odds(mean_logp: Tensor) -> Tensor:
    """log(p / (1 - p)) = x - log(1 - e^x) for p = e^x, (B,).

    At x = 0 the odds are infinite, so x is clamped at -eps of its dtype: nearer to 0 a log-softmax cannot
    resolve it. log(-expm1(x)) is accurate to rounding for every x below that, and so is its gradient.
    """
    x = mean_logp.clamp(max=-torch.finfo(mean_logp.dtype).eps)
    return x - torch.log(-torch.expm1(x))


# --- the losses ---------------------------------------------------------------------------------------
def dpo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """DPO, arXiv:2305.18290 eq. 7; with label_smoothing e > 0 cDPO (ericmitchell.ai/cdpo.pdf, eq. 3).

        m = beta (k_c Delta_c - k_r Delta_r)        L = -(1 - e) log sigma(m) - e log sigma(-m)

    With weights this is B-DPO; its gradient is dL/dlogp(c) = -beta k_c sigma(-m) and
    dL/dlogp(r) = +beta k_r sigma(-m) at e = 0. (TRL's `sigmoid` loss ignores label_smoothing.)

    By hand: m = 0.1 * 3 and L = log(1 + e^-0.3) = 0.554355; with e = 0.1 it is 0.03 more. Weights
    (0.5, 1.25): m = 0.1 * (1 + 1.25) and L = log(1 + e^-0.225) = 0.586962.

    Examples:
        >>> f"{dpo(EXAMPLE).item():.6f} {dpo(EXAMPLE, label_smoothing=0.1).item():.6f}"
        '0.554355 0.584355'
        >>> f"{dpo(EXAMPLE, PairWeights(torch.tensor([0.5]), torch.tensor([1.25]))).item():.6f}"
        '0.586962'
    """
    m = margin(logps, weights, beta)
    return -(1 - label_smoothing) * logsigmoid(m) - label_smoothing * logsigmoid(-m)


def ipo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1) -> Tensor:
    """IPO, arXiv:2310.12036 eq. 17, on log-ratios per token, as in TRL; beta is the paper's tau.

        L = (k_c Delta_c / T_c - k_r Delta_r / T_r - 1 / (2 beta))^2

    By hand: (2/4 + 1/2 - 5)^2 = 16.

    Examples:
        >>> f"{ipo(EXAMPLE).item():.6f}"
        '16.000000'
    """
    chosen, rejected = log_ratios(logps, weights)
    return (chosen / logps.chosen_lengths - rejected / logps.rejected_lengths - 1 / (2 * beta)) ** 2


def hinge(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1) -> Tensor:
    """Hinge of SLiC-HF (arXiv:2305.10425), on log-ratios as in RSO's `hinge-norm` (arXiv:2309.06657).

        L = max(0, 1 - m)        m as in `dpo`

    By hand: 1 - 0.3 = 0.7.

    Examples:
        >>> f"{hinge(EXAMPLE).item():.6f}"
        '0.700000'
    """
    return torch.relu(1 - margin(logps, weights, beta))


def robust(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Robust DPO, arXiv:2403.00409 section 3.1, for labels flipped with probability e = label_smoothing.

        L = (-(1 - e) log sigma(m) + e log sigma(-m)) / (1 - 2 e)        m as in `dpo`

    Unbiased for DPO without flips, and therefore not bounded below by 0.

    By hand: (0.9 * 0.554355 - 0.1 * 0.854355) / 0.8 = 0.516855.

    Examples:
        >>> f"{robust(EXAMPLE).item():.6f}"
        '0.516855'
    """
    m = margin(logps, weights, beta)
    clean, flipped = -logsigmoid(m), -logsigmoid(-m)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def dpop(logps: PairLogps, weights: Weights = None, *, beta: float = 0.3, penalty: float = 50.0) -> Tensor:
    """DPO-Positive (Smaug), arXiv:2402.13228 eq. 3; penalty is the paper's lambda, and is unweighted.

        L = -log sigma(m - beta * penalty * max(0, -Delta_c))        m as in `dpo`

    By hand: Delta_c = 2 is not penalised, L = log(1 + e^-0.9) = 0.341154. With Delta_c = -0.5 the
    argument is 0.3 * (-0.5 + 1 - 25) = -7.35 and L = 7.350642.

    Examples:
        >>> from dataclasses import replace
        >>> fallen = replace(EXAMPLE, chosen=EXAMPLE.ref_chosen - 0.5)
        >>> f"{dpop(EXAMPLE).item():.6f} {dpop(fallen).item():.6f}"
        '0.341154 7.350642'
    """
    fall = torch.relu(logps.ref_chosen - logps.chosen)
    return -logsigmoid(margin(logps, weights, beta) - beta * penalty * fall)


def cpo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1) -> Tensor:
    """CPO's preference term, arXiv:2401.08417 eq. 3; the paper adds the NLL term (LOSSES: nll_weight 1).

        L = -log sigma(beta (lp~(c) - lp~(r)))

    By hand: log(1 + e^-(0.1 * 4)) = 0.513015.

    Examples:
        >>> f"{cpo(EXAMPLE).item():.6f}"
        '0.513015'
    """
    chosen, rejected = balanced_logps(logps, weights)
    return -logsigmoid(beta * (chosen - rejected))


def simpo(logps: PairLogps, weights: Weights = None, *, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """SimPO, arXiv:2405.14734 eq. 6; gamma is the target margin on the reward (TRL's simpo_gamma).

        L = -log sigma(beta (lp~(c) / T_c - lp~(r) / T_r) - gamma)

    The defaults are its authors' starting point, beta 2 and gamma / beta 0.5.

    By hand: log(1 + e^-(2 * (-2 + 6) - 1)) = log(1 + e^-7) = 0.000911.

    Examples:
        >>> f"{simpo(EXAMPLE).item():.6f}"
        '0.000911'
    """
    chosen, rejected = balanced_logps(logps, weights)
    return -logsigmoid(beta * (chosen / logps.chosen_lengths - rejected / logps.rejected_lengths) - gamma)


def orpo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1) -> Tensor:
    """ORPO's odds-ratio term, arXiv:2403.07691 eqs. 4 and 7, times the paper's lambda (here beta, as in TRL).

        o(y) = x - log(1 - e^x),  x = log pi_theta(y|x) / T        L = -beta log sigma(o~(c) - o~(r))

    The balance acts on the log-odds o. The paper adds the NLL term (LOSSES: nll_weight 1).

    By hand: o = (-2 + 0.145413) - (-6 + 0.002482) = 4.142932 and L = 0.1 * log(1 + e^-4.142932) = 0.001575.

    Examples:
        >>> f"{orpo(EXAMPLE).item():.6f}"
        '0.001575'
    """
    chosen, rejected = map(_log_odds, mean_logps(logps))
    if weights is not None:
        ref_chosen = _log_odds(logps.ref_chosen / logps.chosen_lengths)
        ref_rejected = _log_odds(logps.ref_rejected / logps.rejected_lengths)
        chosen = blend(chosen, ref_chosen, weights.chosen)
        rejected = blend(rejected, ref_rejected, weights.rejected)
    return -beta * logsigmoid(chosen - rejected)


def safedpo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1, safety_margin: float = 10.0) -> Tensor:
    """SafeDPO, arXiv:2505.20065 eq. 12; safety_margin is the paper's Delta, and is unweighted.

        L = -log sigma(m - (h_r - h_c) * safety_margin)        m as in `dpo`

    h is 1 where a response is unsafe. For pairs that went through the paper's swap-and-drop rule (a data
    step: an unsafe preferred response is swapped with a safe other one, two unsafe ones are dropped).

    By hand: h_r - h_c = 1 and L = log(1 + e^-(0.3 - 10)) = 9.700061.

    Examples:
        >>> f"{safedpo(EXAMPLE).item():.6f}"
        '9.700061'
    """
    if logps.chosen_unsafe is None or logps.rejected_unsafe is None:
        raise BdpoError("The loss 'safedpo' needs pairs with chosen_safe and rejected_safe labels.")
    m = margin(logps, weights, beta)
    unsafe_gap = logps.rejected_unsafe.to(m) - logps.chosen_unsafe.to(m)
    return -logsigmoid(m - unsafe_gap * safety_margin)


def dpo_shift(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1, dpo_lambda: float = 0.95) -> Tensor:
    """DPO-Shift, arXiv:2502.07599, as in its authors' code (github.com/Meaquadddd/DPO-Shift, dposhift_trainer.py).

        L = -log sigma(beta (k_c Delta_c - dpo_lambda k_r Delta_r))

    dpo_lambda, the paper's f(lambda), is constant here ("fixed" there); 1 gives DPO.

    By hand: log(1 + e^-(0.1 * (2 + 0.95))) = 0.556486.

    Examples:
        >>> f"{dpo_shift(EXAMPLE).item():.6f}"
        '0.556486'
    """
    chosen, rejected = log_ratios(logps, weights)
    return -logsigmoid(beta * (chosen - dpo_lambda * rejected))


def bpo(logps: PairLogps, weights: Weights = None, *, beta: float = 0.1, alpha: float = 0.3) -> Tensor:
    """BPO, arXiv:2506.03557, as in its authors' code (github.com/sunlin-ai/BPO, `balance_logistic_alpha`).

        L = -log sigma(beta min(k_c Delta_c, -alpha k_r Delta_r))

    alpha is the paper's gap adaptor. Only the side that lags is trained; at a tie each has half of the gradient.

    By hand: log(1 + e^-(0.1 * min(2, 0.3))) = 0.678260.

    Examples:
        >>> f"{bpo(EXAMPLE).item():.6f}"
        '0.678260'
    """
    chosen, rejected = log_ratios(logps, weights)
    return -logsigmoid(beta * torch.minimum(chosen, -alpha * rejected))


def nll(logps: PairLogps) -> Tensor:
    """Negative log-likelihood of the chosen response per token, (B,) [nats/token].

    Over the response alone, each pair's own mean (as in arXiv:2404.19733), so that a step does not depend
    on how its pairs are packed; TRL pools the tokens of a micro-batch, CPO's paper writes the sum.

    By hand: 8 / 4 = 2.

    Examples:
        >>> nll(EXAMPLE).item()
        2.0
    """
    return -mean_logps(logps)[0]


# --- the table ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Loss:
    """One row of LOSSES."""

    function: Callable[..., Tensor]
    nll_weight: float = 0.0  # default weight of the NLL term: 1 where the loss's own paper has one
    reward: Callable[[PairLogps], tuple[Tensor, Tensor]] = log_ratios  # what rewards are beta times of


LOSSES: dict[str, Loss] = {
    "dpo": Loss(dpo),
    "ipo": Loss(ipo),
    "hinge": Loss(hinge),
    "robust": Loss(robust),
    "dpop": Loss(dpop),
    "cpo": Loss(cpo, nll_weight=1.0, reward=balanced_logps),
    "simpo": Loss(simpo, reward=mean_logps),
    "orpo": Loss(orpo, nll_weight=1.0, reward=mean_logps),
    "safedpo": Loss(safedpo),
    "dpo_shift": Loss(dpo_shift),
    "bpo": Loss(bpo),
}


def pair_losses(name: str, logps: PairLogps, weights: Weights = None, **hyper: float) -> Tensor:
    """The loss `name` of each pair, (B,), with its NLL term: L + nll_weight * nll.

    hyper: those of the loss's own function and `nll_weight`; see `loss_parameters`.

    By hand: CPO with its NLL term is 0.513015 + 2.

    Examples:
        >>> f"{pair_losses('cpo', EXAMPLE).item():.6f} {pair_losses('cpo', EXAMPLE, nll_weight=0).item():.6f}"
        '2.513015 0.513015'
    """
    parameters = loss_parameters(name, **hyper)
    nll_weight = parameters.pop("nll_weight")
    losses = LOSSES[name].function(logps, weights, **parameters)
    return losses + nll_weight * nll(logps) if nll_weight else losses


def rewards(name: str, logps: PairLogps, beta: float | None = None) -> tuple[Tensor, Tensor]:
    """Rewards of the chosen and the rejected response for logging, two (B,), unweighted, without gradient.

    beta * Delta_y; for the reference-free losses as TRL logs them: beta * log pi_theta (cpo) and
    beta * log pi_theta / T (simpo, orpo). beta defaults to the loss's own.

    Examples:
        >>> [[reward.item() for reward in rewards(name, EXAMPLE)] for name in ("dpo", "simpo")]
        [[0.2, -0.1], [-4.0, -12.0]]
    """
    beta = loss_parameters(name, **({} if beta is None else {"beta": beta}))["beta"]
    chosen, rejected = LOSSES[name].reward(logps)
    return beta * chosen.detach(), beta * rejected.detach()


def loss_parameters(name: str, **given: float) -> dict[str, float]:
    """The hyperparameters of a loss: its defaults with those given put in; an unknown one is an error.

    Examples:
        >>> loss_parameters("simpo", gamma=0.5)
        {'beta': 2.0, 'gamma': 0.5, 'nll_weight': 0.0}
    """
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    signature = inspect.signature(LOSSES[name].function).parameters.values()
    known = {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}
    known["nll_weight"] = LOSSES[name].nll_weight
    for key, value in given.items():
        if key not in known:
            raise BdpoError(f"The loss {name!r} has no hyperparameter {key!r}; it has: {', '.join(known)}.")
        _check_value(name, key, value)
    return known | given


def _check_value(name: str, key: str, value: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    limit = 0.5 if key == "label_smoothing" else math.inf
    if not (number and 0 <= value < limit) or (key == "beta" and value == 0):
        allowed = {"beta": "above 0", "label_smoothing": "in [0, 0.5)"}.get(key, "of at least 0")
        raise BdpoError(f"{key!r} of the loss {name!r} must be a number {allowed}, not {value!r}.")
