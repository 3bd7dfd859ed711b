"""Comprehension: values derived by hand, shapes and errors."""

import doctest
import math

import pytest
import torch

from bdpo import comprehension
from bdpo.errors import BdpoError
from bdpo.method.comprehension import contrastive_marginal, entropy_drop, pmi


def test_docstring_examples() -> None:
    assert doctest.testmod(comprehension).failed == 0


def test_pmi_is_per_token_and_float64() -> None:
    values = pmi(torch.tensor([-210.5, -30.0, -6.0]), torch.tensor([-240.5, -30.0, -5.0]), torch.tensor([40, 7, 2]))
    assert values.dtype == torch.float64
    assert values.tolist() == [0.75, 0.0, -0.5]


def test_pmi_keeps_what_float32_would_lose() -> None:
    cond, marg = (
        torch.tensor([-20000.001], dtype=torch.float64),
        torch.tensor([-20000.002], dtype=torch.float64),
    )
    assert pmi(cond, marg, torch.tensor([1])).item() == pytest.approx(0.001, abs=1e-9)


def test_pmi_of_equal_contexts_is_zero() -> None:
    logps = torch.tensor([-3.0, -4.0])
    assert pmi(logps, logps, torch.tensor([1, 2])).tolist() == [0.0, 0.0]


def test_entropy_drop_is_positive_where_the_prompt_narrows() -> None:
    drop = entropy_drop(torch.tensor([2.0, 8.0]), torch.tensor([6.0, 4.0]), torch.tensor([4, 2]))
    assert drop.tolist() == [1.0, -2.0]


def test_contrastive_marginal_of_equal_contexts_is_their_value() -> None:
    marginal = contrastive_marginal(torch.full((8, 3), -200.0))
    assert marginal.tolist() == pytest.approx([-200.0] * 3, abs=1e-12)


def test_contrastive_marginal_by_hand_and_without_underflow() -> None:
    # e^-1000 underflows even in float64; log((e^0 + e^-log 3) / 2) = log(2/3)
    logps = torch.tensor([[-1000.0, 0.0], [-1000.0, -math.log(3)]])
    assert contrastive_marginal(logps).tolist() == pytest.approx([-1000.0, math.log(2 / 3)], abs=1e-7)


@pytest.mark.parametrize("cond, marg, lengths", [((2,), (3,), (2,)), ((2, 1), (2, 1), (2, 1)), ((2,), (2,), (1,))])
def test_shapes_are_checked(cond: tuple, marg: tuple, lengths: tuple) -> None:
    with pytest.raises(BdpoError, match="one shape"):
        pmi(torch.zeros(cond), torch.zeros(marg), torch.ones(lengths))


def test_an_empty_response_is_named() -> None:
    with pytest.raises(BdpoError, match="position 1"):
        pmi(torch.zeros(3), torch.zeros(3), torch.tensor([4, 0, 2]))


@pytest.mark.parametrize("shape", [(3,), (0, 3)])
def test_contrastive_marginal_wants_k_by_n(shape: tuple) -> None:
    with pytest.raises(BdpoError, match="K, N"):
        contrastive_marginal(torch.zeros(shape))
