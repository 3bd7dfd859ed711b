"""Means over preference pairs with intervals over their prompts (pure).

Several pairs may share a prompt, and are then no independent evidence. So prompts are drawn with replacement, each with
all its pairs (the cluster bootstrap; Davison & Hinkley 1997, Bootstrap Methods and their Application); where
there are several seeds, these are drawn as well, as in `statistics`. A mean of several kinds is their plain average, so
that the more numerous one does not drown the other; each kind's prompts are drawn apart, seeds once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdpo.evaluate.results.statistics import CELLS, QUANTILES, RESAMPLES, Array, Difference, Mean


@dataclass(frozen=True)
class Clusters:
    """Pairs of one kind: which prompt each belongs to."""

    of_pair: NDArray[np.int64]  # (N,) in 0 ... n - 1
    n: int  # prompts

    @classmethod
    def of(cls, prompts: Sequence[str]) -> Clusters:
        """From the prompt of each pair."""
        names, places = np.unique(np.array(list(prompts)), return_inverse=True)
        return cls(places.astype(np.int64), len(names))


def clustered_mean(kinds: Sequence[tuple[Array, Clusters]], *, rng_seed: int = 0) -> Mean:
    """Average over kinds of the mean over pairs: each kind's scores (S, N_k), the same S seeds in all.

    By hand: a prompt with three pairs won, one with a single pair lost: 3/4. Drawn twice each with probability 1/4, so
    that the interval is 0 to 1; four pairs drawn apart would all be lost with probability 1/256 only.

    >>> m = clustered_mean([(np.array([[1.0, 1, 1, 0]]), Clusters.of(["a", "a", "a", "b"]))])
    >>> m.value, m.low, m.high, m.n
    (0.75, 0.0, 1.0, 2)
    """
    values = _by_seed([scores for scores, _ in kinds])
    low, high = np.quantile(_resampled(kinds, None, rng_seed), QUANTILES)
    n, seeds = sum(clusters.n for _, clusters in kinds), len(values)
    std = float(values.std(ddof=1)) if seeds > 1 else None
    return Mean(float(values.mean()), float(low), float(high), n, seeds, std)


def clustered_difference(
    kinds: Sequence[tuple[Array, Clusters]], baseline: Sequence[Array], *, rng_seed: int = 0
) -> Difference:
    """The same mean less that of a baseline on the same pairs, (R, N_k) a kind; prompts drawn once for both.

    By hand: one method is 2 above the other on every pair, whatever the prompts.

    >>> d = clustered_difference([(np.array([[3.0, 5.0]]), Clusters.of("ab"))], [np.array([[1.0, 3.0]])])
    >>> d.value, d.low, d.high, d.n
    (2.0, 2.0, 2.0, 2)
    """
    ours, theirs = _by_seed([scores for scores, _ in kinds]), _by_seed(baseline)
    low, high = np.quantile(_resampled(kinds, baseline, rng_seed), QUANTILES)
    n = sum(clusters.n for _, clusters in kinds)
    value = float(ours.mean() - theirs.mean())
    return Difference(value, float(low), float(high), n, seeds=len(ours), baseline_seeds=len(theirs))


def _by_seed(kinds: Sequence[Array]) -> Array:
    """The average over kinds for each seed: (S,)."""
    return np.mean([scores.mean(axis=1) for scores in kinds], axis=0)


def _resampled(kinds: Sequence[tuple[Array, Clusters]], baseline: Sequence[Array] | None, rng_seed: int) -> Array:
    """The mean, or the difference, of each resample: (RESAMPLES,)."""
    rng = np.random.default_rng(rng_seed)
    resampled = np.zeros(RESAMPLES)
    ours = _drawn_seeds(len(kinds[0][0]), rng)
    theirs = None if baseline is None else _drawn_seeds(len(baseline[0]), rng)
    for k, (scores, clusters) in enumerate(kinds):
        sizes = np.bincount(clusters.of_pair, minlength=clusters.n)
        for at in np.array_split(np.arange(RESAMPLES), -(-RESAMPLES * clusters.n // CELLS)):
            counts = rng.multinomial(clusters.n, np.full(clusters.n, 1 / clusters.n), size=len(at)).astype(np.float64)
            total = (counts @ _sums(scores, clusters) * ours[at]).sum(axis=1)
            if baseline is not None and theirs is not None:
                total -= (counts @ _sums(baseline[k], clusters) * theirs[at]).sum(axis=1)
            resampled[at] += total / (counts @ sizes) / len(kinds)
    return resampled


def _sums(scores: Array, clusters: Clusters) -> Array:
    """Sum over the pairs of each prompt: (S, N) -> (prompts, S)."""
    return np.stack([np.bincount(clusters.of_pair, weights=of_seed, minlength=clusters.n) for of_seed in scores], 1)


def _drawn_seeds(seeds: int, rng: np.random.Generator) -> Array:
    """How often each of S seeds was drawn, as shares: (RESAMPLES, S)."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
