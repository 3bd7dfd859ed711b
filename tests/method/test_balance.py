"""The balance: values derived by hand and the properties that define it."""

import doctest
import math

import pytest
import torch
from torch.testing import assert_close

from bdpo.errors import BdpoError
from bdpo.method import balance as balance_module
from bdpo.method.balance import CONTROLS, WEIGHTINGS, Balance, Fit, balance

SQRT2 = math.sqrt(2)
BALANCING = tuple(name for name in WEIGHTINGS if name not in CONTROLS)


@pytest.fixture
def mi() -> tuple[torch.Tensor, torch.Tensor]:
    """400 pairs as measured on real data: imbalance of standard deviation 0.7, some of it negative."""
    generator = torch.Generator().manual_seed(0)
    chosen = 0.65 + 0.5 * torch.randn(400, generator=generator, dtype=torch.float64)
    rejected = 0.69 + 0.5 * torch.randn(400, generator=generator, dtype=torch.float64)
    assert (chosen < 0).any() and (rejected < 0).any()
    return chosen, rejected


def parts(b: Balance) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return b.chosen_weight, b.rejected_weight, b.scale


def is_dpo(b: Balance) -> bool:
    return all(bool((part == 1).all()) for part in parts(b))


def test_docstring_examples() -> None:
    assert doctest.testmod(balance_module).failed == 0


def test_by_hand() -> None:
    # d = (1, -1, 0): population variance 2/3, so d / tau = (sqrt 1.5, -sqrt 1.5, 0)
    b = balance([2.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    low = 2 / (1 + math.exp(math.sqrt(1.5)))
    assert b.fit.tau == pytest.approx(math.sqrt(2 / 3), abs=1e-12)
    assert b.chosen_weight.tolist() == pytest.approx([low, 2 - low, 1], abs=1e-12)
    assert b.rejected_weight.tolist() == pytest.approx([2 - low, low, 1], abs=1e-12)
    s = math.sqrt(2 / (low**2 + (2 - low) ** 2))
    assert b.scale.tolist() == pytest.approx([s, s, 1], abs=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 10.0])
def test_weights_sum_to_two_and_scale_keeps_the_step(mi, weighting: str, temperature: float) -> None:
    w_c, w_r, s = parts(balance(*mi, weighting=weighting, temperature=temperature))
    assert_close(w_c + w_r, torch.full_like(w_c, 2.0), rtol=0, atol=1e-12)
    assert ((w_c >= 0) & (w_c <= 2) & (w_r >= 0) & (w_r <= 2)).all()
    assert_close(s * torch.sqrt(w_c**2 + w_r**2), torch.full_like(s, SQRT2), rtol=0, atol=1e-12)
    assert (s >= 1 / SQRT2 - 1e-12).all() and (s <= 1 + 1e-12).all()


@pytest.mark.parametrize("weighting", BALANCING)
def test_the_better_understood_response_gets_the_smaller_weight(mi, weighting: str) -> None:
    w_c, w_r, _ = parts(balance(*mi, weighting=weighting))
    above_floor = torch.minimum(*mi) > balance_module.RATIO_FLOOR
    assert torch.equal((w_c < w_r)[above_floor], (mi[0] > mi[1])[above_floor])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_swapping_the_responses_swaps_the_weights(mi, weighting: str) -> None:
    one, other = balance(*mi, weighting=weighting), balance(mi[1], mi[0], weighting=weighting)
    assert_close(one.chosen_weight, other.rejected_weight, rtol=0, atol=1e-12)
    assert_close(one.scale, other.scale, rtol=0, atol=1e-12)
    assert one.fit.tau == pytest.approx(other.fit.tau, rel=1e-12)


def test_sigmoid_ignores_a_constant_added_to_both(mi) -> None:
    one, shifted = balance(*mi), balance(mi[0] - 3.0, mi[1] - 3.0)
    for part, other in zip(parts(one), parts(shifted), strict=True):
        assert_close(part, other, rtol=0, atol=1e-12)


def test_sigmoid_ignores_the_unit(mi) -> None:
    one, in_bits = balance(*mi), balance(mi[0] / math.log(2), mi[1] / math.log(2))
    assert_close(one.chosen_weight, in_bits.chosen_weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weighting", [*BALANCING, "reversed"])
def test_no_imbalance_in_a_pair_is_dpo_exactly(weighting: str) -> None:
    w_c, w_r, s = parts(balance([0.3, 1.0], [0.3, 0.2], weighting=weighting))
    assert (w_c[0], w_r[0], s[0]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(
    "chosen, rejected",
    [([0.9], [0.1]), ([0.3, 1.3, 2.3], [0.1, 1.1, 2.1]), ([0.5, 0.5], [0.5, 0.5]), ([0.0, 0.0], [0.0, 0.0])],
    ids=["one pair", "one imbalance", "none", "zeros"],
)
def test_nothing_to_balance_is_dpo_and_so_are_its_held_out_pairs(weighting: str, chosen, rejected) -> None:
    b = balance(chosen, rejected, weighting=weighting)
    assert is_dpo(b) and b.fit.tau == math.inf
    assert is_dpo(balance([3.0, -1.0], [0.1, 0.2], weighting=weighting, fit=b.fit))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_infinite_temperature_is_dpo(mi, weighting: str) -> None:
    b = balance(*mi, weighting=weighting, temperature=math.inf)
    assert is_dpo(b) and b.fit.tau == math.inf


def test_high_temperature_nears_dpo(mi) -> None:
    for part in parts(balance(*mi, temperature=1e9)):
        assert_close(part, torch.ones_like(part), rtol=0, atol=1e-8)


def test_low_temperature_trains_one_response(mi) -> None:
    w_c, w_r, s = parts(balance(*mi, temperature=1e-9))
    better = mi[0] > mi[1]
    assert_close(w_c, torch.where(better, 0.0, 2.0).double(), rtol=0, atol=1e-12)
    assert_close(w_r, torch.where(better, 2.0, 0.0).double(), rtol=0, atol=1e-12)
    assert_close(s, torch.full_like(s, 1 / SQRT2), rtol=0, atol=1e-12)


def test_held_out_pairs_use_the_training_sets_tau(mi) -> None:
    train = balance(*mi, temperature=0.5)
    assert train.fit.tau == pytest.approx(0.5 * (mi[0] - mi[1]).std(correction=0).item(), rel=1e-12)
    held_out = balance(mi[0][:7], mi[1][:7], fit=train.fit)
    assert held_out.fit == train.fit
    for part, whole in zip(parts(held_out), parts(train), strict=True):
        assert_close(part, whole[:7], rtol=0, atol=0)


def test_centring_by_hand() -> None:
    # d = (3, 1), mean 2, std 1: with tau = 1 / log 3 the centred d are +1 and -1, so sigma is 1/4 and 3/4
    b = balance([3.0, 2.0], [0.0, 1.0], temperature=1 / math.log(3), center="mean")
    assert b.fit.mean == 2.0 and b.fit.tau == pytest.approx(1 / math.log(3), abs=1e-12)
    assert b.chosen_weight.tolist() == pytest.approx([0.5, 1.5], abs=1e-12)
    assert b.rejected_weight.tolist() == pytest.approx([1.5, 0.5], abs=1e-12)
    assert b.scale.tolist() == pytest.approx([math.sqrt(2 / 2.5)] * 2, abs=1e-12)
    assert b.tilt == pytest.approx((1.0, 1.0), abs=1e-12)
    # not centred, z = (3, 1) log 3: w_c = 2 / 28 and 2 / 4
    assert balance([3.0, 2.0], [0.0, 1.0], temperature=1 / math.log(3)).tilt == pytest.approx(
        (2 / 7, 12 / 7), abs=1e-12
    )


@pytest.mark.parametrize(("to_chosen", "to_rejected"), [(0.7, 0.0), (0.0, 0.7), (-5.0, 3.0)])
def test_centred_weights_ignore_a_constant_added_to_either_side(mi, to_chosen: float, to_rejected: float) -> None:
    one = balance(*mi, center="mean")
    shifted = balance(mi[0] + to_chosen, mi[1] + to_rejected, center="mean")
    for part, other in zip(parts(one), parts(shifted), strict=True):
        assert_close(part, other, rtol=0, atol=1e-12)
    assert shifted.fit.mean == pytest.approx(one.fit.mean + to_chosen - to_rejected, abs=1e-12)


def test_centring_changes_nothing_where_the_mean_is_0() -> None:
    one, centred = balance([1.0, 0.0], [0.0, 1.0]), balance([1.0, 0.0], [0.0, 1.0], center="mean")
    assert [part.tolist() for part in parts(one)] == [part.tolist() for part in parts(centred)]
    assert one.fit == centred.fit


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_held_out_pairs_are_centred_by_the_training_sets_mean(mi, weighting: str) -> None:
    train = balance(mi[0] + 1.0, mi[1], center="mean", weighting=weighting)
    assert train.fit.mean == pytest.approx((mi[0] - mi[1]).mean().item() + 1.0, abs=1e-12)
    again = balance(mi[0] + 1.0, mi[1], fit=train.fit, weighting=weighting)  # what center came to is in the fit
    for part, other in zip(parts(train), parts(again), strict=True):
        assert_close(part, other, rtol=0, atol=0)


def test_one_imbalance_for_all_is_a_tilt_alone_and_held_out_pairs_have_none_either() -> None:
    train = balance([1.0, 2.0], [0.0, 1.0], center="mean")
    assert is_dpo(train) and is_dpo(balance([3.0], [0.1], fit=train.fit))


def test_unknown_center_names_the_nearest() -> None:
    with pytest.raises(BdpoError, match="did you mean 'mean'"):
        balance([0.1], [0.2], center="men")


def test_a_single_held_out_pair_is_balanced() -> None:
    w_c, w_r, _ = parts(balance([math.log(3)], [0.0], fit=Fit(1.0)))
    assert (w_c.item(), w_r.item()) == pytest.approx((0.5, 1.5), abs=1e-12)


def test_bw_alone_and_sf_alone(mi) -> None:
    both, bw, sf = balance(*mi), balance(*mi, scale=False), balance(*mi, weights=False)
    one = torch.ones_like(both.scale)
    for part, expected in zip(parts(bw), (both.chosen_weight, both.rejected_weight, one), strict=True):
        assert_close(part, expected, rtol=0, atol=0)
    for part, expected in zip(parts(sf), (one, one, both.scale), strict=True):
        assert_close(part, expected, rtol=0, atol=0)
    assert is_dpo(balance(*mi, weights=False, scale=False))


def test_ratio_by_hand_with_its_floor() -> None:
    # 2 * 0.2 / 0.8; a negative information counts as 0.05: 2 * 0.05 / 0.2
    w_c, w_r, _ = parts(balance([0.6, 0.15], [0.2, -3.0], weighting="ratio"))
    assert w_c.tolist() == pytest.approx([0.5, 0.5], abs=1e-12)
    assert w_r.tolist() == pytest.approx([1.5, 1.5], abs=1e-12)


# d / tau = (log 3, -log 3, 0, log 3) at this tau: w_c of sigmoid is (1/2, 3/2, 1, 1/2), its mean 7/8
CONTROLLED = dict(chosen_mi=[1.0, 0.0, 0.5, 2.0], rejected_mi=[0.0, 1.0, 0.5, 1.0])
LOG3 = 1 / math.log(3)


def test_reversed_by_hand() -> None:
    w_c, w_r, s = parts(balance(**CONTROLLED, weighting="reversed", fit=Fit(LOG3)))
    assert w_c.tolist() == pytest.approx([1.5, 0.5, 1.0, 1.5], abs=1e-12)
    assert w_r.tolist() == pytest.approx([0.5, 1.5, 1.0, 0.5], abs=1e-12)
    assert s.tolist() == pytest.approx([math.sqrt(0.8), math.sqrt(0.8), 1.0, math.sqrt(0.8)], abs=1e-12)


def test_constant_by_hand_and_on_held_out_pairs() -> None:
    # d = (1, -1, 0, 1): mean 1/4, mean square 3/4, variance 11/16
    train = balance(**CONTROLLED, weighting="constant", temperature=LOG3 / math.sqrt(11 / 16))
    assert train.fit.tau == pytest.approx(LOG3, abs=1e-12)
    assert train.chosen_weight.tolist() == pytest.approx([7 / 8] * 4, abs=1e-12)
    assert train.rejected_weight.tolist() == pytest.approx([9 / 8] * 4, abs=1e-12)
    assert train.scale.tolist() == pytest.approx([math.sqrt(2 / ((49 + 81) / 64))] * 4, abs=1e-12)
    held_out = balance([5.0], [-5.0], weighting="constant", fit=train.fit)
    assert held_out.chosen_weight.item() == train.chosen_weight[0].item()


def test_constant_is_the_tilt_of_sigmoid_and_nothing_where_that_is_centred_and_symmetric(mi) -> None:
    assert balance(*mi, weighting="constant").tilt == pytest.approx(balance(*mi).tilt, abs=1e-12)
    centred = balance([3.0, 2.0], [0.0, 1.0], center="mean", weighting="constant")
    assert centred.chosen_weight.tolist() == pytest.approx([1.0, 1.0], abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [2, 3, 7, 400])
def test_permuted_gives_each_pair_the_weights_of_another_and_keeps_them_all(n: int, seed: int) -> None:
    d = torch.arange(n, dtype=torch.float64)  # all weights differ
    one, permuted = balance(d, d * 0), balance(d, d * 0, weighting="permuted", seed=seed)
    assert not (permuted.chosen_weight == one.chosen_weight).any()
    assert torch.equal(permuted.chosen_weight.sort().values, one.chosen_weight.sort().values)
    # w_c and w_r of a pair come from the same other pair, and s with them
    source = [one.chosen_weight.tolist().index(w) for w in permuted.chosen_weight.tolist()]
    assert torch.equal(permuted.rejected_weight, one.rejected_weight[source])
    assert_close(permuted.scale, one.scale[source], rtol=0, atol=1e-12)
    again = balance(d, d * 0, weighting="permuted", seed=seed)
    assert torch.equal(again.chosen_weight, permuted.chosen_weight), "the seed alone decides"


def test_permuted_follows_its_seed_and_leaves_the_global_one_alone(mi) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = (balance(*mi, weighting="permuted", seed=seed).chosen_weight for seed in (0, 1))
    assert torch.equal(torch.rand(1), expected) and not torch.equal(one, other)


def test_permuted_of_one_held_out_pair_is_its_own() -> None:
    w_c, w_r, _ = parts(balance([math.log(3)], [0.0], fit=Fit(1.0), weighting="permuted"))
    assert (w_c.item(), w_r.item()) == pytest.approx((0.5, 1.5), abs=1e-12)


def test_float32_in_float64_out() -> None:
    b = balance(torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.2]))
    assert all(part.dtype == torch.float64 for part in parts(b))


def test_extreme_imbalance_is_finite() -> None:
    for weighting in WEIGHTINGS:
        b = balance([1e6, -1e6, 0.0], [-1e6, 1e6, 0.0], weighting=weighting, temperature=1e-12)
        assert all(part.isfinite().all() for part in parts(b))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(BdpoError, match="temperature"):
        balance([0.1, 0.2], [0.3, 0.1], temperature=temperature)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_tau_must_be_positive(tau: float) -> None:
    with pytest.raises(BdpoError, match="tau"):
        balance([0.1, 0.2], [0.3, 0.1], fit=Fit(tau))


def test_non_finite_comprehension_is_named_by_position() -> None:
    with pytest.raises(BdpoError, match=r"2 pair\(s\) .* position 1, 3"):
        balance([0.1, math.nan, 0.2, 0.3], [0.1, 0.2, 0.3, math.inf])


def test_shapes_are_checked() -> None:
    for chosen, rejected in [([0.1], [0.1, 0.2]), ([], []), ([[0.1]], [[0.1]])]:
        with pytest.raises(BdpoError, match="one shape"):
            balance(chosen, rejected)


def test_unknown_weighting_names_the_nearest() -> None:
    with pytest.raises(BdpoError, match="did you mean 'sigmoid'"):
        balance([0.1], [0.2], weighting="sigmod")
    with pytest.raises(BdpoError, match="use one of sigmoid, ratio"):
        balance([0.1], [0.2], weighting="xyz")
