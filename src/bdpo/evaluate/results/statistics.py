"""Rates, means and paired differences with their 95 % intervals and p values (pure).

Outcomes and scores come as one array a method, prompts in the same order for every method:

    (N,)     one run on N prompts
    (S, N)   S runs that differ in the seed alone, each on the same N prompts

    rate, Wilson interval                        rate
    difference of two runs' rates, McNemar       compare_rates, mcnemar
    mean over prompts, and over seeds            mean
    difference of means, one or several seeds    compare_means
    average of several benchmarks' rates         average; of means, and differences: with Parts
    several p values of one table                holm

Every bootstrap here is one: 10,000 resamples with replacement, fixed by rng_seed. The percentile interval of these
would collapse where all scores are alike (6 of 6, in three seeds), and be too narrow where prompts are few. So

    shares, in [0, 1]   each benchmark has pseudo-prompts among its own, two successes and two failures for a mean, one
                        gained and one lost for a difference; the interval is the resamples' mean -+ z times their
                        standard deviation, z = 1.96, within what can be. Of one run these are the intervals of Agresti
                        & Coull (1998, Am. Stat. 52:119) and of Bonett & Price (2012, J. Educ. Behav. Stat. 37:479).
                        The value itself is of the prompts alone.
    other scores        the percentile interval, stretched about the value by t / z sqrt(n / (n - 1)), t Student's of
                        n - 1 degrees of freedom: of normal scores it is then Student's (Hesterberg 2015, Am. Stat.
                        69:371, on what the percentile interval lacks). One prompt tells of no spread: -inf to inf.

Prompts are drawn once a resample and taken from every seed of both methods (a paired comparison); with
several seeds, each method's seeds are drawn as well. Prompts are not drawn anew within each seed: every
seed answers the same ones, and drawing them apart would count N prompts as S N, an interval up to
sqrt(S) too narrow. Rows and columns drawn apart are the pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat.
1:386). Of few seeds it can know little: with 3 and no other noise the interval is the smallest to the
largest of the three, which covers at 75 %, not 95 %. Where a method has few seeds, show std as well.

An unjudged outcome (None, NaN) is refused, never dropped: the caller decides what is in the denominator.

McNemar's test, Wilson's interval and Holm's correction are a line each, and no reason to load scipy.stats, which
takes a second; scipy's bootstrap knows no seeds, and one resampler serves all. The tests hold each to scipy's where
both apply.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bdpo.errors import BdpoError
from bdpo.evaluate.results.paired import newcombe_paired, wilson

Array = NDArray[np.float64]

RESAMPLES = 10_000
QUANTILES = (0.025, 0.975)  # of the resampled means: the 95 % percentile interval
NORMAL = 1.959964  # z, the 97.5 % point
PSEUDO_SHARES = (1.0, 1.0, 0.0, 0.0)  # scores of the pseudo-prompts of a mean of shares
PSEUDO_CHANGES = (1.0, -1.0)  # and of a difference of such
CELLS = 2**20  # numbers held at a time by the bootstrap, so that memory does not grow with the prompts


@dataclass(frozen=True)
class Rate:
    """A share of n prompts, in [0, 1], with its Wilson 95 % interval."""

    value: float  # successes / n
    low: float
    high: float
    successes: int
    n: int


@dataclass(frozen=True)
class Mean:
    """A mean over n prompts, and over seeds where there are several, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int  # prompts
    seeds: int = 1
    std: float | None = None  # of the seeds' means, ddof 1; None with one seed


@dataclass(frozen=True)
class Difference:
    """A method less its baseline on the same n prompts, with its 95 % interval (of rates Newcombe's)."""

    value: float
    low: float
    high: float
    n: int  # prompts
    gained: int | None = None  # prompts on which the method alone succeeds; these three of compare_rates only
    lost: int | None = None  # prompts on which the baseline alone succeeds
    p: float | None = None  # McNemar, exact, two-sided, not corrected: see `holm`
    seeds: int = 1
    baseline_seeds: int = 1


@dataclass(frozen=True)
class Part:
    """Prompts of one benchmark among those of several, side by side; the weights of all parts sum to 1."""

    n: int
    weight: float


# --- rates --------------------------------------------------------------------------------------------
def rate(successes: int, n: int) -> Rate:
    """Share of successes with its Wilson score interval (`paired.wilson`).

    Unlike p -+ z sqrt(p (1 - p) / n) it holds at rates of 0 and 1 and stays within them.

    >>> r = rate(0, 10)
    >>> r.value, r.low, f"{r.high:.6f}"
    (0.0, 0.0, '0.277533')
    """
    successes, n = _count(successes, "successes"), _count(n, "n")
    if n == 0:
        raise BdpoError("The rate of no prompts is undefined: n is 0.")
    if successes > n:
        raise BdpoError(f"There cannot be more successes than prompts: {successes} of {n}.")
    return Rate(successes / n, *wilson(successes, n), successes, n)


def average(rates: Sequence[Rate], weights: Sequence[float]) -> Mean:
    """Weighted average of independent rates, of one run, with an interval made of theirs (Zou, Huang & Zhang 2009,
    Comput. Stat. Data Anal. 53:1080, known as MOVER).

        p = sum w_i p_i        p - sqrt(sum w_i^2 (p_i - low_i)^2)  to  p + sqrt(sum w_i^2 (high_i - p_i)^2)

    Unlike the bootstrap's it has a width where every rate is 0 or 1; of one rate alone it is Wilson's. The weights are
    not negative and sum to 1.

    By hand: 0 of 10 and 10 of 10 have p = 1/2; one reaches 0.277533 up, the other as far down: 1/2 -+ 0.138766.

    >>> a = average([rate(0, 10), rate(10, 10)], [0.5, 0.5])
    >>> a.value, f"{a.low:.6f}", f"{a.high:.6f}", a.n
    (0.5, '0.361234', '0.638766', 20)
    """
    pairs = list(zip(rates, weights, strict=True))
    value = sum(weight * one.value for one, weight in pairs)
    below = sum((weight * (one.value - one.low)) ** 2 for one, weight in pairs) ** 0.5
    above = sum((weight * (one.high - one.value)) ** 2 for one, weight in pairs) ** 0.5
    return Mean(value, value - below, value + above, sum(one.n for one in rates))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test (McNemar 1947, Psychometrika 12:153), from the discordant prompts.

        p = min(1, 2 P(X <= min(gained, lost)))        X ~ Binomial(gained + lost, 1/2)

    Prompts on which both succeed or both fail say nothing of which is better. Exact: valid however few
    they are, and conservative where they are few.

    By hand: 1 against 7 gives 2 (1 + 8) / 2^8 = 0.0703125; with none, nothing speaks against equality.

    >>> f"{mcnemar(7, 1):.7f}", mcnemar(0, 0)
    ('0.0703125', 1.0)
    """
    gained, lost = _count(gained, "gained"), _count(lost, "lost")
    n, ways, tail = gained + lost, 1, 0  # ways: n over k
    for k in range(min(gained, lost) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)


def compare_rates(outcomes: ArrayLike, baseline: ArrayLike) -> Difference:
    """Difference of two rates on the same prompts, of one run a side, with McNemar's p.

    outcomes, baseline  (N,) True or False (1 or 0), prompt i of one being prompt i of the other

    The interval is Newcombe's score interval of d = (gained - lost) / N (`newcombe_paired`), which has a width also
    where no prompt differs. Interval and p rest on different principles and may, near the edge, disagree.

    By hand: the method wins prompts 1 and 3 of 4, so d = 0.5 and p = 2 / 2^2. phi is 0 (1 * 1 - 0 is less than 4 / 2).
    Wilson's intervals are 0.300642 to 0.954413 for 3/4 and 0.045587 to 0.699358 for 1/4: each end of the one lies
    0.449358 or 0.204413 away, and the interval is 0.5 -+ sqrt(2) times these, below and above.

    >>> d = compare_rates([1, 1, 1, 0], [0, 1, 0, 0])
    >>> d.value, d.gained, d.lost, d.p, f"{d.low:.4f} {d.high:.4f}"
    (0.5, 2, 0, 0.5, '-0.1355 0.7891')
    """
    pair = _checked(outcomes, "outcomes"), _checked(baseline, "baseline")
    for name, values in zip(("outcomes", "baseline"), pair, strict=True):
        if len(values) > 1:
            raise BdpoError(f"McNemar's test is of one run a side: {name} has {len(values)}; use compare_means.")
        if not ((values == 0) | (values == 1)).all():
            raise BdpoError(f"Outcomes are True or False (1 or 0), but {name} has other values; use compare_means.")
    if pair[0].shape != pair[1].shape:
        raise BdpoError(f"A paired comparison takes the same prompts: {pair[0].shape[1]} against {pair[1].shape[1]}.")
    ours, theirs = pair[0][0] == 1, pair[1][0] == 1
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    low, high = newcombe_paired(int((ours & theirs).sum()), gained, lost, int((~ours & ~theirs).sum()))
    return Difference((gained - lost) / len(ours), low, high, len(ours), gained, lost, mcnemar(gained, lost))


# --- means, of one seed or several --------------------------------------------------------------------
def mean(scores: ArrayLike, *, shares: bool = False, parts: Sequence[Part] = (), rng_seed: int = 0) -> Mean:
    """Mean score, e.g. of margins, or the rate of several seeds, with its bootstrap interval.

    scores  (N,) of one run, whose interval knows nothing of other seeds, or (S, N) of S seeds
    shares  whether scores lie in [0, 1], such as outcomes or their means over samples
    parts   benchmarks whose prompts stand side by side: the weighted average of their means, each
            benchmark's prompts drawn apart; none: all prompts are of one

    By hand: three seeds fail on all of 6 prompts. Of 6 + 4 prompts 2 are successes, 0.2 + 1.96 sqrt(0.2 * 0.8 / 10) =
    0.448, and the resamples come near it. (Wilson's interval of one seed ends at 0.390.)

    >>> m = mean(np.zeros((3, 6)), shares=True)
    >>> m.value, m.low, f"{m.high:.2f}", m.n, m.seeds, m.std
    (0.0, 0.0, '0.45', 6, 3, 0.0)
    """
    runs = _checked(scores, "scores")
    seeds, n = runs.shape
    value, low, high = _difference(runs, np.zeros((1, n)), rng_seed, parts, PSEUDO_SHARES if shares else ())
    std = float(_means(runs, _columns(parts, n)).std(ddof=1)) if seeds > 1 else None
    return Mean(value, low, high, n, seeds, std)


def compare_means(
    scores: ArrayLike, baseline: ArrayLike, *, shares: bool = False, parts: Sequence[Part] = (), rng_seed: int = 0
) -> Difference:
    """Difference of two means on the same prompts, each method with its own one or several seeds.

    scores    (N,) or (S, N)
    baseline  (N,) or (R, N), with prompt i the same as in scores; R may differ from S
    shares    as for `mean`
    parts     as for `mean`

    The two methods' seeds are drawn apart: seed 1 of one has nothing in common with seed 1 of the other.
    It gives no p: McNemar's test is of one run of 0s and 1s a side.

    By hand: the method is 1 above its baseline at every prompt, whatever the prompt.

    >>> d = compare_means([[1.5, 3.0], [1.5, 3.0]], [0.5, 2.0])
    >>> d.value, d.low, d.high, d.n, d.seeds, d.baseline_seeds
    (1.0, 1.0, 1.0, 2, 2, 1)
    """
    ours, theirs = _checked(scores, "scores"), _checked(baseline, "baseline")
    value, low, high = _difference(ours, theirs, rng_seed, parts, PSEUDO_CHANGES if shares else ())
    return Difference(value, low, high, ours.shape[1], seeds=len(ours), baseline_seeds=len(theirs))


# --- several comparisons ------------------------------------------------------------------------------
def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979, Scand. J. Stat. 6:65), in the order given.

        p~_(j) = max over k <= j of min(1, (m - k + 1) p_(k))        p_(1) <= ... <= p_(m)

    Calling p~ < 0.05 significant keeps the chance of any false call in the table at 5 %, whatever the
    dependence between its rows. All of the table's p values belong in, the dull ones too.

    By hand: sorted .005 .01 .03 .04, times 4 3 2 1 gives .02 .03 .06 .04, and the last rises to .06.

    >>> holm([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.array([np.nan if value is None else value for value in p_values], dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise BdpoError(f"Holm's correction takes p values in [0, 1], not {list(p_values)}.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]).clip(max=1)
    return adjusted.tolist()


# --- the bootstrap ------------------------------------------------------------------------------------
def _difference(
    scores: Array, baseline: Array, rng_seed: int, parts: Sequence[Part], pseudo: Sequence[float]
) -> tuple[float, float, float]:
    """Mean of scores (S, N) less mean of baseline (R, N), and the interval's ends; `pseudo` is added to each part."""
    n = scores.shape[1]
    if baseline.shape[1] != n:
        raise BdpoError(f"A paired comparison takes the same prompts: {n} against {baseline.shape[1]}.")
    rng = np.random.default_rng(rng_seed)
    columns = _columns(parts, n)
    resampled = np.zeros(RESAMPLES)
    for share in np.array_split(resampled, -(-RESAMPLES * n // CELLS)):  # views, filled in place
        by_prompt = _drawn_seeds(scores, len(share), rng) - _drawn_seeds(baseline, len(share), rng)
        added = np.broadcast_to(np.array(pseudo), (len(share), len(pseudo)))
        for at, weight in columns:
            values = np.concatenate([by_prompt[:, at], added], axis=1)
            prompts = rng.integers(values.shape[1], size=values.shape)
            share += weight * np.take_along_axis(values, prompts, axis=1).mean(axis=1)
    value = float(_means(scores, columns).mean() - _means(baseline, columns).mean())
    fewest = min(at.stop - at.start for at, _ in columns)
    return value, *interval(value, resampled, fewest, pseudo)


def interval(value: float, resampled: Array, n: int, pseudo: Sequence[float]) -> tuple[float, float]:
    """The ends of the interval of a value from its resamples; n: prompts, of the part that has the fewest.

    By hand: resamples of -1 and 1 about 0, of 2 prompts: t of one degree of freedom is 12.7062, and the ends are
    12.7062 / 1.959964 sqrt(2) = 9.1682 away.

    >>> low, high = interval(0.0, np.array([-1.0, 1.0] * 500), 2, ())
    >>> f"{low:.4f} {high:.4f}"
    '-9.1682 9.1682'
    """
    if pseudo:
        low, high = np.clip(resampled.mean() + NORMAL * resampled.std() * np.array([-1, 1]), min(pseudo), max(pseudo))
        return float(low), float(high)
    if n == 1:
        return -np.inf, np.inf
    low, high = value + (np.quantile(resampled, QUANTILES) - value) * _stretch(n)
    return float(low), float(high)


def _stretch(n: int) -> float:
    from scipy.special import stdtrit  # Student's quantile; shares do without it

    return float(stdtrit(n - 1, QUANTILES[1])) / NORMAL * (n / (n - 1)) ** 0.5


def _columns(parts: Sequence[Part], n: int) -> list[tuple[slice, float]]:
    """The columns of each part, with its weight."""
    parts = parts or [Part(n, 1.0)]
    ends = np.cumsum([part.n for part in parts]).tolist()
    if ends[-1] != n:
        raise BdpoError(f"The parts have {ends[-1]} prompts, the scores {n}.")
    return [(slice(end - part.n, end), part.weight) for part, end in zip(parts, ends, strict=True)]


def _means(runs: Array, columns: list[tuple[slice, float]]) -> Array:
    """The weighted average of the parts' means for each run: (S, N) -> (S,)."""
    return np.sum([weight * runs[:, at].mean(axis=1) for at, weight in columns], axis=0)


def _drawn_seeds(runs: Array, draws: int, rng: np.random.Generator) -> Array:
    """runs (S, N) -> each prompt's mean over S seeds drawn with replacement, (draws, N)."""
    seeds = len(runs)
    drawn = rng.integers(seeds, size=(draws, seeds))
    shares = (drawn[:, :, None] == np.arange(seeds)).mean(axis=1)
    return shares @ runs


# --- checks -------------------------------------------------------------------------------------------
def _checked(values: ArrayLike, name: str) -> Array:
    """(N,) or (S, N), finite and not empty -> (S, N), with S = 1 for one run."""
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise BdpoError(f"The {name} must be numbers in one array (prompts,) or (seeds, prompts): {error}.") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise BdpoError(f"The {name} must be of shape (prompts,) or (seeds, prompts), not empty: {array.shape}.")
    array = np.atleast_2d(array)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=0)).tolist()
    if bad:
        shown = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise BdpoError(
            f"The {name} of {len(bad)} prompt(s) are unjudged (None, NaN) or infinite: position {shown}. "
            "Decide what they count as, or leave those prompts out of every method compared."
        )
    return array


def _count(value: int, name: str) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise BdpoError(f"{name} must be a whole number, not {value!r}.") from None
    if count < 0:
        raise BdpoError(f"{name} must not be negative: {count}.")
    return count
