"""Methods as curves: harmful prompts refused at equal harmless prompts answered (pure).

A method with several settings or checkpoints can refuse more by answering less. So its evaluations are points, x the
share of harmless prompts answered and y the share of harmful prompts refused, joined by straight lines in the order of
x; two methods are compared where both have a value, and nowhere else: a curve is never extrapolated.

The bootstrap draws the prompts of each benchmark once a resample for all points of both methods, and the seeds of each
method. With each benchmark's prompts go two pseudo-prompts, on one of which all points of one method succeed, on the
other all of the other's (see `statistics`): few prompts that come out alike do not make an interval of no width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bdpo.errors import BdpoError
from bdpo.evaluate.results.statistics import PSEUDO_CHANGES, Difference, interval

Array = NDArray[np.float64]

RESAMPLES = 2_000
ENOUGH = 0.95  # of the resamples must have an overlap for an interval to be of all that can happen
_SETTING = re.compile(r"@| (?=[\w.]+=)")


@dataclass(frozen=True)
class Point:
    """One setting or checkpoint of a method, all its seeds."""

    label: str
    answered: Sequence[Array]  # of each benchmark of harmless prompts (seeds, prompts), in [0, 1]
    refused: Sequence[Array]  # of each benchmark of harmful prompts (seeds, prompts)

    @property
    def place(self) -> tuple[float, float]:
        """x and y: means over seeds and prompts, each benchmark counting the same."""
        x, y = (float(np.mean([scores.mean() for scores in axis])) for axis in (self.answered, self.refused))
        return x, y


@dataclass(frozen=True)
class Gap:
    """Two curves over the range of x that both have."""

    low: float
    high: float
    level: float  # the middle of the range
    ours: float  # y of each at the level
    theirs: float
    average: float  # of ours less theirs, over the range


@dataclass(frozen=True)
class CurveDifference:
    """A method less its baseline at equal x; the differences have no interval where resamples rarely overlap."""

    gap: Gap
    at_level: Difference
    average: Difference
    overlapping: float  # share of the resamples in which the curves overlap


def curve_of(label: str) -> str:
    """The method that a point belongs to: what stands before '@', or before the first setting.

    >>> [curve_of(label) for label in ("B-DPO balance.temperature=2 loss.beta=0.1", "DPO@step-100", "my DPO")]
    ['B-DPO', 'DPO', 'my DPO']
    """
    return _SETTING.split(label, maxsplit=1)[0].strip()


def gap(ours: ArrayLike, theirs: ArrayLike) -> Gap | None:
    """Two curves where both have a value; None: nowhere.

    Points of equal x are one, of their mean y. The average is the area between the curves over the range, by its width;
    of a range that is one x, the difference there.

    By hand: y = x from 0 to 1 against the level 0.25 from 0.5 to 2. On 0.5 to 1 the difference rises from 0.25 to 0.75.

    >>> gap([(1, 1), (0, 0)], [(0.5, 0.25), (2, 0.25)])
    Gap(low=0.5, high=1.0, level=0.75, ours=0.75, theirs=0.25, average=0.5)
    >>> gap([(0, 0), (0.4, 1)], [(0.5, 0.25), (2, 0.25)]) is None
    True

    Args:
        ours, theirs: (K, 2) x and y of each point, in any order.
    """
    (x, y), (u, v) = _curve(ours), _curve(theirs)
    low, high = max(x[0], u[0]), min(x[-1], u[-1])
    if low > high:
        return None
    level = (low + high) / 2
    knots = np.unique([low, high, *(at for at in (*x, *u) if low < at < high)])
    between = np.interp(knots, x, y) - np.interp(knots, u, v)
    area = ((between[1:] + between[:-1]) / 2 * np.diff(knots)).sum()
    average = area / (high - low) if high > low else between[0]
    at_level = float(np.interp(level, x, y)), float(np.interp(level, u, v))
    return Gap(float(low), float(high), float(level), *at_level, float(average))


def _curve(points: ArrayLike) -> tuple[Array, Array]:
    """x, rising, and y; 12 decimals of x, so that equal shares are equal."""
    places = np.asarray(points, dtype=np.float64)
    x, of = np.unique(places[:, 0].round(12), return_inverse=True)
    return x, np.bincount(of, places[:, 1]) / np.bincount(of)


def compare_curves(
    ours: Sequence[Point], theirs: Sequence[Point], *, rng_seed: int = 0, resamples: int = RESAMPLES
) -> CurveDifference | None:
    """The points of a method less those of its baseline, on the same prompts; None: the curves do not overlap.

    Each resample is compared over the range that it has itself, at the middle of it and on average; those without one
    are left out. Where more than 5 % are, both intervals are -inf to inf.

    Raises:
        BdpoError: a curve without points.
    """
    if not ours or not theirs:
        raise BdpoError("A curve needs at least one point.")
    found = gap([point.place for point in ours], [point.place for point in theirs])
    if found is None:
        return None
    rng = np.random.default_rng(rng_seed)
    counts = [
        [_drawn(scores.shape[1] + 2, resamples, rng) for scores in axis] for axis in (ours[0].answered, ours[0].refused)
    ]
    places = zip(_resampled(ours, counts, (1, 0), rng), _resampled(theirs, counts, (0, 1), rng), strict=True)
    gaps = [drawn for drawn in (gap(*pair) for pair in places) if drawn is not None]
    n = min(scores.shape[1] for scores in (*ours[0].answered, *ours[0].refused))
    return CurveDifference(
        found,
        _difference(found.ours - found.theirs, [drawn.ours - drawn.theirs for drawn in gaps], resamples, n),
        _difference(found.average, [drawn.average for drawn in gaps], resamples, n),
        len(gaps) / resamples,
    )


def _difference(value: float, resampled: list[float], resamples: int, n: int) -> Difference:
    known = len(resampled) >= ENOUGH * resamples
    low, high = interval(value, np.array(resampled), n, PSEUDO_CHANGES) if known else (-np.inf, np.inf)
    return Difference(value, low, high, n)


def _resampled(
    points: Sequence[Point], counts: list[list[Array]], pseudo: tuple[int, int], rng: np.random.Generator
) -> Array:
    """x and y of each point in each resample, (resamples, points, 2).

    Seed k of a checkpoint is seed k of the next: where points have the same number of seeds, one draw serves all.
    """
    seeds = [len(point.answered[0]) for point in points]
    shares = {many: _drawn(many, len(counts[0][0]), rng) for many in dict.fromkeys(seeds)}
    places = np.empty((len(counts[0][0]), len(points), 2))
    for at, point in enumerate(points):
        for axis, (benchmarks, drawn) in enumerate(zip((point.answered, point.refused), counts, strict=True)):
            means = [
                np.einsum("rs,sn,rn->r", shares[seeds[at]], _extended(scores, pseudo), prompts, optimize=True)
                for scores, prompts in zip(benchmarks, drawn, strict=True)
            ]
            places[:, at, axis] = np.mean(means, axis=0)
    return places


def _extended(scores: Array, pseudo: tuple[int, int]) -> Array:
    return np.concatenate([scores, np.broadcast_to(np.array(pseudo, dtype=np.float64), (len(scores), 2))], axis=1)


def _drawn(n: int, resamples: int, rng: np.random.Generator) -> Array:
    """How large a share of n draws with replacement each of n things is, (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n
