"""Balance and losses over drawn values: what must hold for any comprehension and any log-probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from bdpo.method.balance import WEIGHTINGS, balance
from bdpo.method.losses import LOSSES, PairLogps, PairWeights, pair_losses

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True, database=None)
COMPREHENSION = st.lists(
    st.tuples(*[st.floats(-20, 20, allow_nan=False, allow_subnormal=False)] * 2), min_size=1, max_size=12
)
LOGPS = st.lists(st.tuples(*[st.floats(-300, -0.5)] * 4), min_size=1, max_size=6)
WEIGHT = st.floats(0.01, 1.4)


def columns(rows: list[tuple[float, ...]]) -> list[torch.Tensor]:
    return [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@EXAMPLES
@given(rows=COMPREHENSION, temperature=st.floats(0.05, 20))
def test_balance(weighting: str, rows: list[tuple[float, float]], temperature: float) -> None:
    chosen, rejected = columns(rows)
    b = balance(chosen, rejected, weighting=weighting, temperature=temperature)
    total = torch.full_like(chosen, 2)
    assert_close(b.chosen_weight + b.rejected_weight, total)
    assert_close(b.scale**2 * (b.chosen_weight**2 + b.rejected_weight**2), total)
    assert (b.scale >= math.sqrt(0.5) - 1e-12).all() and (b.scale <= 1 + 1e-12).all()
    if math.isfinite(b.fit.tau):
        better = chosen > rejected
        if weighting in ("sigmoid", "ratio"):
            assert (b.chosen_weight[better] <= b.rejected_weight[better]).all()
        if weighting == "reversed":
            assert (b.chosen_weight[better] >= b.rejected_weight[better]).all()
    swapped = balance(rejected, chosen, weighting=weighting, temperature=temperature)
    assert_close(swapped.chosen_weight, b.rejected_weight)
    again = balance(chosen, rejected, weighting=weighting, fit=b.fit)  # as held-out pairs are weighted
    assert_close(again.chosen_weight, b.chosen_weight)


@EXAMPLES
@given(rows=COMPREHENSION, temperature=st.floats(0.2, 20), to_chosen=st.floats(-9, 9), to_rejected=st.floats(-9, 9))
def test_centred_balance(
    rows: list[tuple[float, float]], temperature: float, to_chosen: float, to_rejected: float
) -> None:
    chosen, rejected = columns(rows)
    b = balance(chosen, rejected, temperature=temperature, center="mean")
    shifted = balance(chosen + to_chosen, rejected + to_rejected, temperature=temperature, center="mean")
    if (chosen - rejected).std(correction=0) > 1e-3:  # above the resolution on both sides of the shift
        assert_close(shifted.chosen_weight, b.chosen_weight, rtol=0, atol=1e-6)
        assert_close(shifted.scale, b.scale, rtol=0, atol=1e-6)
        # the centred imbalances, read back from the weights: log(w_r / w_c) = d / tau, and their mean is 0
        assert (b.rejected_weight / b.chosen_weight).log().mean().item() * b.fit.tau == pytest.approx(0, abs=1e-6)


def logps_of(rows: list[tuple[float, ...]], *, at_reference: bool = False) -> PairLogps:
    chosen, rejected, ref_chosen, ref_rejected = columns(rows)
    if at_reference:
        ref_chosen, ref_rejected = chosen.clone(), rejected.clone()
    lengths = torch.full((len(rows),), 7)
    unsafe = torch.zeros(len(rows), dtype=torch.bool)
    return PairLogps(chosen, rejected, ref_chosen, ref_rejected, lengths, lengths, unsafe, unsafe)


@pytest.mark.parametrize("name", LOSSES)
@EXAMPLES
@given(rows=LOGPS, chosen=WEIGHT, rejected=WEIGHT)
def test_losses(name: str, rows: list[tuple[float, ...]], chosen: float, rejected: float) -> None:
    logps = logps_of(rows)
    plain = pair_losses(name, logps)
    assert plain.shape == (len(rows),) and plain.isfinite().all()
    ones = torch.ones(len(rows), dtype=torch.float64)
    assert_close(pair_losses(name, logps, PairWeights(ones, ones)), plain)
    # at the start of training, policy = reference, no weight changes the value
    start = logps_of(rows, at_reference=True)
    assert_close(pair_losses(name, start, PairWeights(ones * chosen, ones * rejected)), pair_losses(name, start))
    # each pair's loss is its own
    for i, row in enumerate(rows):
        assert_close(pair_losses(name, logps_of([row])), plain[i : i + 1])
