"""Intervals of few prompts: as published, by hand, and how often they hold the truth."""

from pathlib import Path

import numpy as np
import pytest
from runs_written import row, write_run
from scipy import stats

from bdpo.evaluate.results import statistics
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.statistics import Difference, Mean, Part, compare_means, mean


def ends(found: Mean | Difference) -> tuple[float, float]:
    return found.low, found.high


@pytest.mark.parametrize(
    ("counts", "published"),
    # both, gained, lost, neither; Cavo et al. 2012 as in R's contingencytables 2.0.1, chapter 8; the other two by the
    # formula of Bonett & Price (2012): d -+ z sqrt((g + l - (g - l)^2) / (n + 2)), g and l with 1 more of n + 2
    [((59, 6, 16, 80), (-0.1195, -0.0032)), ((1, 1, 7, 12), (-0.5084, -0.0133)), ((100, 12, 2, 86), (0.0120, 0.0870))],
)
def test_a_difference_of_shares_is_near_bonett_and_price(
    counts: tuple[int, ...], published: tuple[float, float]
) -> None:
    ours = np.repeat([1, 1, 0, 0], counts)
    theirs = np.repeat([1, 0, 1, 0], counts)
    assert ends(compare_means(ours, theirs, shares=True)) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("n", [1, 6, 40])
def test_nothing_that_differs_is_no_proof(n: int, seeds: int) -> None:
    for score in (0.0, 1.0, 0.5):
        alike = np.full((seeds, n), score)
        d = compare_means(alike, alike, shares=True)
        # n + 2 are drawn, of which 1 is gained and 1 lost: the difference has a standard deviation of sqrt(2) / (n + 2)
        assert d.value == 0 and d.low == pytest.approx(-d.high, rel=0.05)
        assert d.high == pytest.approx(1.96 * 2**0.5 / (n + 2), rel=0.05)
        m = mean(alike, shares=True)
        # two successes and failures more: the variance of one is at least 2 (1/2)^2 / (n + 4), where all have 1/2
        assert m.value == score and m.low <= score <= m.high and m.high - m.low > 1.96 / (n + 4)
    d = compare_means(np.ones((seeds, n)), np.zeros((seeds, n)), shares=True)
    assert (d.value, d.high) == (1, 1) and d.low < 1


def test_each_part_has_its_own_pseudo_prompts() -> None:
    parts = [Part(6, 0.5), Part(6, 0.5)]
    d = compare_means(np.zeros(12), np.zeros(12), shares=True, parts=parts)
    # two independent differences of variance 1/4 / 8, averaged: a standard deviation of sqrt(1/64) = 1/8
    assert ends(d) == pytest.approx((-1.96 / 8, 1.96 / 8), abs=0.01)


def test_of_many_prompts_the_pseudo_prompts_are_forgotten() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((2, 2, 800)) < [[[0.6]], [[0.5]]]
    shares, plain = (compare_means(ours, theirs, shares=flag) for flag in (True, False))
    assert ends(shares) == pytest.approx(ends(plain), abs=0.004)  # of a width of 0.1


def test_normal_scores_have_students_interval() -> None:
    scores = np.random.default_rng(1).normal(size=8)
    theirs = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert ends(mean(scores)) == pytest.approx((theirs.low, theirs.high), abs=0.15)  # of a width of 1.4
    assert ends(mean([0.7])) == (-np.inf, np.inf)


@pytest.mark.parametrize(("n", "rates", "seeds"), [(6, (0.95, 0.95), 3), (20, (0.98, 0.9), 3), (60, (0.6, 0.5), 2)])
def test_shares_cover_near_the_ceiling(
    monkeypatch: pytest.MonkeyPatch, n: int, rates: tuple[float, float], seeds: int
) -> None:
    # Seeds of one method that mostly agree, since a prompt is hard or easy. The plain bootstrap of the first case holds
    # the truth in about half of the draws, because it often has no width.
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(2)
    covered = np.zeros(2)
    for _ in range(250):
        hard = np.where(rng.random((2 * seeds, n)) < 0.8, rng.random(n), rng.random((2 * seeds, n)))
        ours, theirs = hard[:seeds] < rates[0], hard[seeds:] < rates[1]
        d, m = compare_means(ours, theirs, shares=True), mean(ours, shares=True)
        covered += (d.low <= rates[0] - rates[1] <= d.high, m.low <= rates[0] <= m.high)
    assert (covered / 250 >= 0.93).all()


def test_compare_of_three_seeds_that_all_fail(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"strongreject": [0] * 6})
    for seed in "123":
        write_run(tmp_path, "DPO", {"strongreject": [0] * 6}, model=f"runs/{seed}")
    cell = row(compare([tmp_path]), "strongreject").cells["DPO"]
    assert isinstance(cell.score, Mean) and (cell.score.value, cell.score.std, cell.score.low) == (0, 0, 0)
    assert cell.score.high == pytest.approx(0.2 + 1.96 * 0.016**0.5, abs=0.01) and cell.difference is not None
    # of 8 prompts 1 gained and 1 lost: -+ 1.96 sqrt(1/4 / 8)
    assert cell.difference.value == 0 and ends(cell.difference) == pytest.approx((-0.346, 0.346), abs=0.01)
