"""The statistics: published and hand-worked values, what must not change them, and what they must refuse."""

import doctest
import itertools
import json
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from bdpo.errors import BdpoError
from bdpo.evaluate.results import statistics
from bdpo.evaluate.results.paired import newcombe_paired
from bdpo.evaluate.results.statistics import RESAMPLES, compare_means, compare_rates, holm, mcnemar, mean, rate


@pytest.fixture
def runs() -> tuple[np.ndarray, np.ndarray]:
    """Three seeds of two methods on 200 prompts of differing difficulty, 1 for a success."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=200)
    method = rng.normal(size=(3, 200)) + difficulty + 0.8 > 0
    baseline = rng.normal(size=(3, 200)) + difficulty > 0
    return method.astype(float), baseline.astype(float)


def ends(result: statistics.Mean | statistics.Difference | statistics.Rate) -> tuple[float, float]:
    return result.low, result.high


def stretched(value: float, low: float, high: float, n: int) -> tuple[float, float]:
    """A bootstrap interval of n scores that are no shares, by the rule of the module."""
    factor = stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975) * (n / (n - 1)) ** 0.5
    return value + factor * (low - value), value + factor * (high - value)


def test_docstring_examples() -> None:
    assert doctest.testmod(statistics).failed == 0


# --- rates --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes: int, n: int, low: float, high: float) -> None:
    assert ends(rate(successes, n)) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_failures_is_the_mirror_image() -> None:
    for successes in range(31):
        low, high = ends(rate(successes, 30))
        assert ends(rate(30 - successes, 30)) == pytest.approx((1 - high, 1 - low), abs=1e-12)
        assert 0 <= low <= successes / 30 <= high <= 1


@pytest.mark.parametrize(("successes", "n", "said"), [(0, 0, "n is 0"), (3, 2, "3 of 2"), (-1, 2, "negative")])
def test_impossible_counts_are_refused(successes: int, n: int, said: str) -> None:
    with pytest.raises(BdpoError, match=said):
        rate(successes, n)


def test_a_rate_of_a_float_is_refused() -> None:
    with pytest.raises(BdpoError, match="whole number, not nan"):
        rate(float("nan"), 10)  # type: ignore[arg-type]  # what a sum over unjudged outcomes gives


# --- McNemar ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("gained", "lost", "p", "accuracy"),
    [
        (7, 1, 0.0703125, 1e-12),  # 2 (1 + 8) / 2^8; Bentur 2009 as in Fagerland 2013, BMC Med. Res. Meth. 13:91
        (10, 0, 2 / 2**10, 1e-12),
        (3, 3, 1.0, 0),  # twice the tail would be 1.3
        (121, 59, 0.000004, 5e-7),  # these five: VassarStats, as quoted in statsmodels' own tests
        (70, 59, 0.378688, 5e-7),
        (80, 59, 0.089452, 5e-7),
        (30, 60, 0.002060, 5e-7),
        (10, 30, 0.002221, 5e-7),
    ],
)
def test_mcnemar_as_published(gained: int, lost: int, p: float, accuracy: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, abs=accuracy)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


@pytest.mark.parametrize(("gained", "lost"), [(0, 1), (5, 5), (3, 40), (400, 371), (2600, 2400)])
def test_rates_and_mcnemar_are_those_of_scipy(gained: int, lost: int) -> None:
    test = stats.binomtest(gained, gained + lost, 0.5)
    assert mcnemar(gained, lost) == pytest.approx(test.pvalue, rel=1e-9)
    low, high = test.proportion_ci(0.95, method="wilson")
    assert ends(rate(gained, gained + lost)) == pytest.approx((low, high), rel=1e-12)


def test_difference_of_rates_by_hand() -> None:
    # 21 prompts: 1 both, 1 method alone, 7 baseline alone, 12 neither (Bentur 2009): 2/21 against 8/21
    method = [1] * 2 + [0] * 19
    baseline = [1] + [0] + [1] * 7 + [0] * 12
    d = compare_rates(method, baseline)
    assert (d.gained, d.lost, d.n) == (1, 7, 21)
    assert d.value == pytest.approx(-6 / 21, abs=1e-12)
    assert d.p == pytest.approx(0.0703125, abs=1e-12)
    assert ends(d) == newcombe_paired(1, 1, 7, 12)
    # resampled with one more gained and lost, of 23: -6/23 -+ 1.96 sqrt((10/23 - (6/23)^2) / 23)
    resampled = compare_means(method, baseline, shares=True)
    assert ends(resampled) == pytest.approx((-0.5084, -0.0133), abs=0.005)


def test_swapping_the_methods_flips_the_sign(runs) -> None:
    method, baseline = (side[0] for side in runs)
    d, swapped = compare_rates(method, baseline), compare_rates(baseline, method)
    assert swapped.value == -d.value
    assert ends(swapped) == pytest.approx((-d.high, -d.low), abs=1e-12)
    assert (swapped.gained, swapped.lost, swapped.p) == (d.lost, d.gained, d.p)
    assert d.low > 0 and d.p < 0.01  # the fixture's methods do differ


def test_the_order_of_the_prompts_does_not_matter(runs) -> None:
    order = np.random.default_rng(1).permutation(200)
    d, shuffled = (compare_rates(*sides) for sides in ((s[0] for s in runs), (s[0][order] for s in runs)))
    assert (d.value, d.p, d.gained) == (shuffled.value, shuffled.p, shuffled.gained)
    assert ends(d) == pytest.approx(ends(shuffled), abs=0.01)


def test_equal_outcomes_have_no_difference() -> None:
    for outcomes in ([True, False, True], [1, 1, 1], np.zeros(3)):
        d = compare_rates(outcomes, outcomes)
        assert (d.value, d.p) == (0, 1) and d.low == pytest.approx(-d.high) and d.high > 0
    # 0 of 3: Wilson's high is z^2 / (n + z^2) = 3.841459 / 6.841459
    assert d.high == pytest.approx(0.561497, abs=1e-6)


def test_the_comparison_is_paired() -> None:
    # both succeed on the same half; the method wins one prompt more. Unpaired, the interval would be
    # +- 1.96 sqrt(2 * 0.25 / 100) = +- 0.14 wide; paired and resampled, 1/102 -+ 1.96 sqrt((3/102 - 1/102^2) / 102).
    # Newcombe: Wilson's of 51 and 50 of 100 are 0.413454 to 0.605813 and 0.403832 to 0.596168, and phi is
    # (50 * 49 - 100 / 2) / sqrt(51 * 49 * 50 * 50) = 0.960192
    baseline = np.arange(100) < 50
    d = compare_rates(np.arange(100) < 51, baseline)
    assert d.value == pytest.approx(0.01)
    assert ends(d) == pytest.approx((-0.017187, 0.037083), abs=1e-6)
    resampled = compare_means(np.arange(100) < 51, baseline, shares=True)
    assert ends(resampled) == pytest.approx((-0.0234, 0.0430), abs=0.001)


# --- the bootstrap ------------------------------------------------------------------------------------
def test_bootstrap_of_a_rate_is_agresti_and_coulls() -> None:
    m = mean([1] * 81 + [0] * 182, shares=True)
    middle, deviation = 83 / 267, (83 * 184 / 267**3) ** 0.5
    assert ends(m) == pytest.approx((middle - 1.96 * deviation, middle + 1.96 * deviation), abs=0.002)
    assert m.value == 81 / 263


def test_bootstrap_agrees_with_scipy() -> None:
    margins = np.random.default_rng(2).gamma(2.0, size=150)
    theirs = stats.bootstrap((margins,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=3)
    m = mean(margins)
    expected = stretched(margins.mean(), *theirs.confidence_interval, n=150)
    assert ends(m) == pytest.approx(expected, abs=0.01)  # standard error is 0.12
    assert (m.value, m.n, m.seeds, m.std) == (pytest.approx(margins.mean()), 150, 1, None)


def test_seeds_and_prompts_are_drawn_as_enumerated() -> None:
    # 2 seeds, 3 prompts: 2^2 draws of seeds times 3^3 of prompts, the same prompts for both seeds
    scores = np.array([[0.0, 1.0, 5.0], [2.0, 2.5, 11.0]])
    means = [
        scores[np.ix_(seeds, prompts)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for prompts in itertools.product(range(3), repeat=3)
    ]
    m = mean(scores)
    points = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert ends(m) == pytest.approx(stretched(scores.mean(), *points, n=3), abs=1e-6)
    assert m.value == pytest.approx(21.5 / 6)
    assert m.std == pytest.approx((15.5 / 3 - 2) / 2**0.5)  # of two values: their distance / sqrt 2


def test_two_methods_share_the_prompts_but_not_the_seeds() -> None:
    # 2 seeds against 1 on 2 prompts, every draw enumerated
    method, baseline = np.array([[0.0, 4.0], [1.0, 9.0]]), np.array([[0.5, 3.0]])
    differences = [
        method[np.ix_(seeds, prompts)].mean() - baseline[0, list(prompts)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for prompts in itertools.product(range(2), repeat=2)
    ]
    d = compare_means(method, baseline)
    expected = stretched(d.value, min(differences), max(differences), n=2)  # 1/16 each, above 2.5 %
    assert d.value == pytest.approx(np.mean(differences)) and ends(d) == pytest.approx(expected, rel=1e-6)
    assert (d.value, d.n, d.seeds, d.baseline_seeds) == (3.5 - 1.75, 2, 2, 1)
    assert (d.p, d.gained, d.lost) == (None, None, None)


def test_copies_of_one_seed_add_no_certainty(runs) -> None:
    one = runs[0][0]
    copies = mean(np.stack([one] * 5))
    assert copies.std == 0
    assert ends(copies) == pytest.approx(ends(mean(one)), abs=0.006)  # standard error is 0.03


def test_three_seeds_and_no_other_noise_give_their_range() -> None:
    m = mean(np.outer([0.2, 0.5, 0.9], np.ones(20)))  # all three draws of one seed: 1/27, more than 2.5 %
    assert ends(m) == pytest.approx(stretched(m.value, 0.2, 0.9, n=20))
    assert m.std == pytest.approx(np.sqrt(0.74 / 6))  # deviations -1/3, -1/30, 11/30: squares sum to 74/300


def test_difference_over_seeds(runs) -> None:
    d, swapped = compare_means(*runs), compare_means(*reversed(runs))
    assert swapped.value == pytest.approx(-d.value)
    assert ends(swapped) == pytest.approx((-d.high, -d.low), abs=0.01)  # the seeds' draws change places
    assert d.value == pytest.approx(runs[0].mean() - runs[1].mean())
    assert d.low > 0
    one_run = compare_means(runs[0][0], runs[1][0])
    rates = compare_rates(runs[0][0], runs[1][0])
    assert one_run.value == pytest.approx(rates.value, abs=1e-12)
    assert ends(one_run) == pytest.approx(ends(rates), abs=0.02)  # the bootstrap's and Newcombe's


def test_the_seed_fixes_the_interval(runs) -> None:
    assert compare_means(*runs) == compare_means(*runs)
    margins = np.random.default_rng(4).normal(size=50)
    assert ends(mean(margins)) == ends(mean(margins, rng_seed=0)) != ends(mean(margins, rng_seed=1))
    assert ends(mean(margins)) == pytest.approx(ends(mean(margins, rng_seed=1)), abs=0.03)


def test_intervals_scale_and_shift_with_the_scores() -> None:
    margins = np.random.default_rng(5).normal(size=80)
    m, moved = mean(margins), mean(10 * margins + 3)
    assert (moved.value, *ends(moved)) == pytest.approx((10 * m.value + 3, 10 * m.low + 3, 10 * m.high + 3))


def test_coverage_is_near_95_percent(monkeypatch) -> None:
    # 400 comparisons of 80 prompts with rates of 0.7 and 0.5, correlated by difficulty. Two standard
    # errors of a coverage of 95 % are 2 points; a percentile interval of 80 prompts misses it by about 1.
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        ease = rng.random(80)
        swap = rng.random(80) < 0.5  # half of the prompts: the same ease for both; the others: another
        d = compare_rates(ease < 0.7, np.where(swap, rng.random(80), ease) < 0.5)
        covered += d.low <= 0.2 <= d.high
    assert 0.91 <= covered / 400 <= 0.98


def test_coverage_over_seeds_where_prompts_are_what_varies(monkeypatch) -> None:
    # Four seeds that mostly agree. Prompts drawn anew within each seed would cover at about 70 %.
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        scores = rng.normal(size=60) + 0.2 * rng.normal(size=(4, 60)) + 0.02 * rng.normal(size=(4, 1))
        m = mean(scores)
        covered += m.low <= 0 <= m.high
    assert 0.90 <= covered / 300 <= 0.98


def test_memory_is_bounded() -> None:
    outcomes = np.arange(2000) % 3 == 0
    tracemalloc.start()
    compare_rates(outcomes, ~outcomes)  # 10,000 resamples of 2,000 prompts at once would take 160 MB an array
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_parts_make_no_difference(monkeypatch, runs) -> None:
    whole = compare_means(*runs)
    monkeypatch.setattr(statistics, "CELLS", 1000)
    assert ends(compare_means(*runs)) == pytest.approx(ends(whole), abs=0.01)


# --- Holm ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the four p values of Wikipedia's example, by hand
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.3, 0.6, 1.0], [0.9, 1.0, 1.0]),  # 3 * 0.3; 2 * 0.6 capped at 1
        ([0.04], [0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted, abs=1e-12)


def test_holm_lies_between_the_raw_p_and_bonferroni_whatever_the_order() -> None:
    p = np.random.default_rng(8).random(12) ** 2
    adjusted = np.array(holm(p))
    assert (adjusted >= p).all() and (adjusted <= np.minimum(1, 12 * p) + 1e-15).all()
    order = np.random.default_rng(9).permutation(12)
    assert holm(p[order]) == pytest.approx(adjusted[order], abs=1e-15)


@pytest.mark.parametrize("p", [[0.1, float("nan")], [0.1, None], [-0.1], [1.1]])
def test_holm_refuses_what_is_no_p_value(p: list) -> None:
    with pytest.raises(BdpoError, match="p values in"):
        holm(p)


# --- what is refused ----------------------------------------------------------------------------------
@pytest.mark.parametrize("unjudged", [None, float("nan"), np.nan])
def test_unjudged_outcomes_are_refused(unjudged) -> None:
    for compare in (compare_rates, compare_means):
        with pytest.raises(BdpoError, match=r"baseline of 1 prompt.* position 2"):
            compare([1, 0, 1], [1, 0, unjudged])
    with pytest.raises(BdpoError, match=r"scores of 2 prompt.* position 0, 1\. Decide"):
        mean([[1.0, unjudged, 0.0], [unjudged, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("outcomes", "baseline", "said"),
    [
        ([1, 0, 1], [1, 0], "same prompts: 3 against 2"),
        ([], [], "not empty"),
        ([[1, 0], [1, 0]], [1, 0], "outcomes has 2; use compare_means"),
        ([1, 0], [0.5, 0], "baseline has other values"),
        (["refusal", "compliance"], [1, 0], "must be numbers"),
        ([[1, 0], [1]], [1, 0], "must be numbers"),
        (1, 1, "shape"),
        (np.zeros((1, 1, 2)), [1, 0], "shape"),
        ([float("inf"), 1], [1, 0], "infinite: position 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(outcomes, baseline, said: str) -> None:
    with pytest.raises(BdpoError, match=said):
        compare_rates(outcomes, baseline)


def test_results_are_plain_values(runs) -> None:
    results = [rate(np.int64(3), 5), mean(runs[0]), compare_rates(runs[0][0], runs[1][0]), compare_means(*runs)]
    for result in results:
        assert json.loads(json.dumps(asdict(result))) == asdict(result)
