"""The losses: values by hand, gradients, the balance's identities, extreme inputs."""

import dataclasses
import doctest
import inspect
import itertools
import math

import pytest
import torch
from pair_logps import BETA, make_pairs
from torch.testing import assert_close

from bdpo.errors import BdpoError
from bdpo.method import losses
from bdpo.method.balance import balance
from bdpo.method.losses import EXAMPLE, LOSSES, PairLogps, PairWeights, loss_parameters, pair_losses, rewards


def make_weights() -> PairWeights:
    """The balance of six random pairs, float64 as it comes."""
    b = balance(*torch.randn(2, 6, generator=torch.Generator().manual_seed(100)))
    return PairWeights(b.scale * b.chosen_weight, b.scale * b.rejected_weight)


def dpo_argument(logps: PairLogps, weights: PairWeights) -> torch.Tensor:
    """m of the method's definition, written out once more."""
    delta_c, delta_r = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    return BETA * (weights.chosen * delta_c - weights.rejected * delta_r)


def at_reference(logps: PairLogps) -> PairLogps:
    return dataclasses.replace(
        logps,
        chosen=logps.ref_chosen.clone().requires_grad_(),
        rejected=logps.ref_rejected.clone().requires_grad_(),
    )


def gradients(name: str, logps: PairLogps, weights: PairWeights | None = None, **hyper) -> tuple:
    """Loss (B,) and its gradients with respect to logps.chosen and logps.rejected."""
    loss = pair_losses(name, logps, weights, **hyper)
    return loss, *torch.autograd.grad(loss.sum(), (logps.chosen, logps.rejected))


# --- values -----------------------------------------------------------------------------------------------
def test_docstring_examples() -> None:
    result = doctest.testmod(losses)
    assert result.attempted > 15 and result.failed == 0


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# log-odds of the probabilities e^-x per token
ODDS = {x: math.log(math.exp(-x) / (1 - math.exp(-x))) for x in (2, 2.5, 5.5, 6)}

# EXAMPLE: Delta = (2, -1), log-probabilities (-8, -12) of 4 and 2 tokens, references (-10, -11).
# With weights (0.5, 1.25) the log-ratios are (1, -1.25), the log-probabilities (-9, -12.25).
BY_HAND = {
    "dpo": (softplus(-0.3), softplus(-0.225)),
    "ipo": (16.0, (1 / 4 + 1.25 / 2 - 5) ** 2),
    "hinge": (0.7, 1 - 0.225),
    "robust": (
        (0.9 * softplus(-0.3) - 0.1 * softplus(0.3)) / 0.8,
        (0.9 * softplus(-0.225) - 0.1 * softplus(0.225)) / 0.8,
    ),
    "dpop": (softplus(-0.9), softplus(-0.675)),
    "cpo": (softplus(-0.4) + 2, softplus(-0.325) + 2),
    "simpo": (softplus(-7), softplus(1 - 2 * (-9 / 4 + 12.25 / 2))),
    "orpo": (
        0.1 * softplus(ODDS[6] - ODDS[2]) + 2,
        0.1 * softplus(ODDS[5.5] + 1.25 * (ODDS[6] - ODDS[5.5]) - ODDS[2.5] - 0.5 * (ODDS[2] - ODDS[2.5])) + 2,
    ),
    "safedpo": (softplus(9.7), softplus(10 - 0.225)),
    "dpo_shift": (softplus(-0.1 * (2 + 0.95)), softplus(-0.1 * (1 + 0.95 * 1.25))),
    "bpo": (softplus(-0.1 * 0.3), softplus(-0.1 * 0.3 * 1.25)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_by_hand_without_and_with_weights(name: str) -> None:
    plain, balanced = BY_HAND[name]
    weights = PairWeights(torch.tensor([0.5]), torch.tensor([1.25]))
    assert pair_losses(name, EXAMPLE).item() == pytest.approx(plain, abs=1e-6)
    assert pair_losses(name, EXAMPLE, weights).item() == pytest.approx(balanced, abs=1e-6)


def test_dpo_with_weights_is_the_methods_formula() -> None:
    logps, weights = make_pairs(), make_weights()
    m = dpo_argument(logps, weights)
    assert_close(pair_losses("dpo", logps, weights, beta=BETA), -torch.log(torch.sigmoid(m)))


def test_dpops_penalty_and_safedpos_margin_and_nll_are_unweighted() -> None:
    none = PairWeights(torch.zeros(1), torch.zeros(1))  # leaves only what is not the comparison
    fallen = dataclasses.replace(EXAMPLE, chosen=EXAMPLE.ref_chosen - 0.5)
    assert pair_losses("dpop", fallen, none).item() == pytest.approx(softplus(0.3 * 50 * 0.5), abs=1e-6)
    assert pair_losses("safedpo", EXAMPLE, none).item() == pytest.approx(softplus(10), abs=1e-6)
    assert pair_losses("dpo", EXAMPLE, none, nll_weight=0.5).item() == pytest.approx(math.log(2) + 1, abs=1e-6)


def test_safedpo_has_its_margin_only_between_safe_and_unsafe() -> None:
    both_safe = dataclasses.replace(EXAMPLE, rejected_unsafe=torch.tensor([False]))
    assert_close(pair_losses("safedpo", both_safe), pair_losses("dpo", both_safe))
    with pytest.raises(BdpoError, match="chosen_safe"):
        pair_losses("safedpo", dataclasses.replace(EXAMPLE, rejected_unsafe=None))


# --- gradients --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("balanced", [False, True])
def test_dpo_gradient_is_the_methods_formula(balanced: bool) -> None:
    logps, ones = make_pairs(), torch.ones(6, dtype=torch.float64)
    k = make_weights() if balanced else PairWeights(ones, ones)
    _, chosen, rejected = gradients("dpo", logps, k if balanced else None, beta=BETA)
    step = BETA * torch.sigmoid(-dpo_argument(logps, k))
    assert_close(chosen, -k.chosen * step, rtol=0, atol=1e-12)
    assert_close(rejected, k.rejected * step, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("balanced", [False, True])
def test_gradients_are_those_of_the_values(name: str, balanced: bool) -> None:
    logps, weights = make_pairs(), make_weights() if balanced else None

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return pair_losses(name, dataclasses.replace(logps, chosen=chosen, rejected=rejected), weights)

    assert torch.autograd.gradcheck(loss, (logps.chosen, logps.rejected))


# --- the balance is orthogonal to the loss ----------------------------------------------------------------
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_change_nothing(name: str, dtype: torch.dtype) -> None:
    logps, ones = make_pairs(dtype=dtype), torch.ones(6, dtype=torch.float64)
    for plain, balanced in zip(gradients(name, logps), gradients(name, logps, PairWeights(ones, ones)), strict=True):
        assert_close(balanced, plain, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_balanced_loss_starts_where_the_plain_one_does(name: str) -> None:
    logps = at_reference(make_pairs(dtype=torch.float32))
    assert_close(pair_losses(name, logps, make_weights()), pair_losses(name, logps), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_at_the_start_weights_scale_the_comparisons_gradient(name: str) -> None:
    logps, weights = at_reference(make_pairs()), make_weights()
    _, chosen, rejected = gradients(name, logps, nll_weight=0)
    _, balanced_chosen, balanced_rejected = gradients(name, logps, weights, nll_weight=0)
    assert_close(balanced_chosen, weights.chosen * chosen)
    assert_close(balanced_rejected, weights.rejected * rejected)


# --- extreme inputs ---------------------------------------------------------------------------------------
EXTREMES = [-1e4, -200.0, -1e-6, -1e-9, 0.0]


def extreme_pairs(dtype: torch.dtype) -> PairLogps:
    """Every combination of extreme policy and reference values, alone and as a one-token response."""
    grid = torch.tensor(list(itertools.product(EXTREMES, repeat=4)), dtype=dtype)
    grid = torch.cat([grid, grid])
    half = len(grid) // 2
    lengths = torch.cat([torch.ones(half, dtype=torch.long), torch.full((half,), 50)])
    unsafe = torch.arange(len(grid)) % 2
    return PairLogps(
        grid[:, 0].clone().requires_grad_(),
        grid[:, 1].clone().requires_grad_(),
        *(grid[:, 2], grid[:, 3], lengths, lengths.flip(0), unsafe, 1 - unsafe),
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [None, (1.0, 1.0), (0.0, math.sqrt(2)), (math.sqrt(2), 0.0), (1.2, 0.7)])
def test_extreme_inputs_are_finite(name: str, dtype: torch.dtype, k: tuple | None) -> None:
    logps = extreme_pairs(dtype)
    shape = logps.chosen.shape
    weights = k and PairWeights(torch.full(shape, k[0]), torch.full(shape, k[1]))
    for value in gradients(name, logps, weights, nll_weight=0.5):
        assert value.dtype == dtype and value.isfinite().all()


def test_log_odds_near_certainty_and_far_from_it() -> None:
    # p / (1 - p) ~ 1 / -x near 0, and ~ p far below
    x = torch.tensor([-1e-6, -1e-3, -1.0, -50.0], dtype=torch.float64)
    expected = [-math.log(1e-6), math.log(1 / math.expm1(1e-3)), -math.log(math.e - 1), -50.0]
    assert losses._log_odds(x).tolist() == pytest.approx(expected, abs=1e-5)
    assert_close(losses._log_odds(x.float()).double(), losses._log_odds(x), rtol=1e-5, atol=1e-5)


def test_dpo_shift_is_dpo_at_1_and_trains_the_rejected_side_less_below() -> None:
    logps, weights = make_pairs(), make_weights()
    assert_close(pair_losses("dpo_shift", logps, weights, dpo_lambda=1.0), pair_losses("dpo", logps, weights))
    of_chosen, of_rejected = torch.autograd.grad(
        pair_losses("dpo_shift", logps, dpo_lambda=0.5).sum(), (logps.chosen, logps.rejected)
    )
    assert_close(of_rejected, -0.5 * of_chosen)


def test_bpo_trains_the_side_that_lags() -> None:
    # Delta = (2, -1): min(2, alpha) is the rejected side at alpha 0.3, the chosen one at alpha 3
    for alpha, lagging in ((0.3, "rejected"), (3.0, "chosen")):
        chosen, rejected = (getattr(EXAMPLE, side).clone().requires_grad_() for side in ("chosen", "rejected"))
        moved = dataclasses.replace(EXAMPLE, chosen=chosen, rejected=rejected)
        pair_losses("bpo", moved, alpha=alpha).sum().backward()
        assert [side for side, of in (("chosen", chosen), ("rejected", rejected)) if of.grad.item()] == [lagging]


# --- the table --------------------------------------------------------------------------------------------
def test_the_table_holds_what_the_package_promises() -> None:
    assert list(LOSSES) == [
        "dpo",
        "ipo",
        "hinge",
        "robust",
        "dpop",
        "cpo",
        "simpo",
        "orpo",
        "safedpo",
        "dpo_shift",
        "bpo",
    ]
    for name, loss in LOSSES.items():
        assert name == loss.function.__name__ and "arXiv:" in inspect.getdoc(loss.function)
        assert set(inspect.signature(loss.function).parameters) >= {"logps", "weights", "beta"}


def test_every_loss_is_per_pair() -> None:
    logps, weights = make_pairs(), make_weights()
    tensors = {name: value[2:3] for name, value in vars(logps).items()}
    for name in LOSSES:
        whole = pair_losses(name, logps, weights)
        alone = pair_losses(name, PairLogps(**tensors), PairWeights(weights.chosen[2:3], weights.rejected[2:3]))
        assert whole.shape == (6,)
        assert_close(whole[2:3], alone)


def test_nll_term_is_the_papers_default_and_can_be_set() -> None:
    assert {name for name, loss in LOSSES.items() if loss.nll_weight} == {"cpo", "orpo"}
    logps = make_pairs()
    for name in LOSSES:
        with_nll, without = (pair_losses(name, logps, nll_weight=w) for w in (0.3, 0))
        assert_close(with_nll - without, -0.3 * logps.chosen / logps.chosen_lengths)


def test_unknown_names_and_values_are_told() -> None:
    with pytest.raises(BdpoError, match="did you mean 'simpo'"):
        pair_losses("simp0", EXAMPLE)
    with pytest.raises(BdpoError, match="use one of dpo, ipo"):
        loss_parameters("xyz")
    with pytest.raises(
        BdpoError, match="'dpo' has no hyperparameter 'gamma'; it has: beta, label_smoothing, nll_weight"
    ):
        pair_losses("dpo", EXAMPLE, gamma=1.0)


@pytest.mark.parametrize(
    "key, value",
    [
        *(("beta", value) for value in (0, -0.1, math.nan, math.inf, "0.1", True)),
        *(("label_smoothing", value) for value in (0.5, -0.1)),
        ("nll_weight", -1),
    ],
)
def test_values_out_of_range_are_told(key: str, value) -> None:
    with pytest.raises(BdpoError, match=f"'{key}' of the loss 'robust' must be a number"):
        loss_parameters("robust", **{key: value})


def test_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(BdpoError, match=r"ref_chosen has \(1, 1\), chosen \(1,\)"):
        dataclasses.replace(EXAMPLE, ref_chosen=EXAMPLE.ref_chosen[None])
    with pytest.raises(BdpoError, match=r"rejected is torch\.bfloat16"):
        dataclasses.replace(EXAMPLE, rejected=EXAMPLE.rejected.bfloat16())
    with pytest.raises(BdpoError, match=r"weights have shape \(2,\)"):
        pair_losses("dpo", EXAMPLE, PairWeights(torch.ones(2), torch.ones(2)))


def test_rewards() -> None:
    logps = make_pairs()
    for name in LOSSES:
        chosen, rejected = rewards(name, logps, beta=0.5)
        assert not chosen.requires_grad
        if name == "cpo":
            expected = logps.chosen, logps.rejected
        elif name in ("simpo", "orpo"):
            expected = logps.chosen / logps.chosen_lengths, logps.rejected / logps.rejected_lengths
        else:
            expected = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
        assert_close((chosen, rejected), tuple(0.5 * value.detach() for value in expected))
