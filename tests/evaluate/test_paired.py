"""The interval of a difference of paired rates: as published, its symmetries, and its width where nothing differs."""

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.results.paired import newcombe_paired


@pytest.mark.parametrize(
    ("counts", "published"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # these two by the formula alone; not looked up
        ((20, 12, 2, 16), (0.0562, 0.3292)),
        ((59, 6, 16, 80), (-0.1186, -0.0046)),  # Cavo et al. 2012, the example of R's contingencytables (chapter 8)
    ],
)
def test_the_interval_is_as_published(counts: tuple[int, int, int, int], published: tuple[float, float]) -> None:
    assert newcombe_paired(*counts) == pytest.approx(published, abs=5e-5)


def test_a_few_prompts_alike_do_not_prove_that_nothing_differs() -> None:
    # 0 of 6 on both sides: Wilson's high is z^2 / (n + z^2) = 3.841459 / 9.841459 = 0.390334, and phi is 0
    assert newcombe_paired(0, 0, 0, 6) == pytest.approx((-0.390334, 0.390334), abs=1e-6)
    low, high = newcombe_paired(3, 0, 0, 3)
    assert low < 0 < high and low == pytest.approx(-high)


@pytest.mark.parametrize("counts", [(59, 6, 16, 80), (1, 1, 7, 12), (0, 5, 0, 1), (3, 0, 2, 0)])
def test_swapping_the_sides_turns_the_interval_round(counts: tuple[int, int, int, int]) -> None:
    both, gained, lost, neither = counts
    low, high = newcombe_paired(*counts)
    assert newcombe_paired(both, lost, gained, neither) == pytest.approx((-high, -low), abs=1e-12)
    # counting failures in place of successes: each side's rate is 1 - p, so the difference turns round as well
    assert newcombe_paired(neither, lost, gained, both) == pytest.approx((-high, -low), abs=1e-12)
    assert -1 <= low <= (gained - lost) / sum(counts) <= high <= 1


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (3, -1, 0, 0)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(BdpoError, match="0 or more"):
        newcombe_paired(*counts)
