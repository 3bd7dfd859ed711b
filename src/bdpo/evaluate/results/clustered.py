"""Means over preference pairs with intervals over their prompts (pure).

Several pairs may share a prompt, and are then no independent evidence. So prompts are drawn with replacement, each with
all its pairs (the cluster bootstrap; Davison & Hinkley 1997, Bootstrap Methods and their Application); where
there are several seeds, these are drawn as well, and intervals are made of the resamples as in `statistics`; a
pseudo-prompt has as many pairs as a prompt has on average. A mean of several kinds is their plain average, so that the
more numerous one does not drown the other; each kind's prompts are drawn apart, seeds once for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdpo.evaluate.results.statistics import (
    CELLS,
    PSEUDO_CHANGES,
    PSEUDO_SHARES,
    RESAMPLES,
    Array,
    Difference,
    Mean,
    interval,
)


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


def clustered_mean(kinds: Sequence[tuple[Array, Clusters]], *, shares: bool, rng_seed: int = 0) -> Mean:
    """Average over kinds of the mean over pairs: each kind's scores (S, N_k), the same S seeds in all.

    By hand: two prompts of three pairs, all won. With two pseudo-prompts won and two lost, 4 of 6 are won: the interval
    begins at 2/3 - 1.96 sqrt(2/3 * 1/3 / 6) = 0.289. (Six pairs drawn apart would give 0.552.)

    >>> m = clustered_mean([(np.ones((1, 6)), Clusters.of("aaabbb"))], shares=True)
    >>> m.value, f"{m.low:.2f}", m.high, m.n
    (1.0, '0.29', 1.0, 2)
    """
    values = _by_seed([scores for scores, _ in kinds])
    pseudo = PSEUDO_SHARES if shares else ()
    resampled = _resampled(kinds, None, pseudo, rng_seed)
    n, seeds, value = sum(clusters.n for _, clusters in kinds), len(values), float(values.mean())
    std = float(values.std(ddof=1)) if seeds > 1 else None
    return Mean(value, *interval(value, resampled, _fewest(kinds), pseudo), n, seeds, std)


def clustered_difference(
    kinds: Sequence[tuple[Array, Clusters]], baseline: Sequence[Array], *, shares: bool, rng_seed: int = 0
) -> Difference:
    """The same mean less that of a baseline on the same pairs, (R, N_k) a kind; prompts drawn once for both.

    By hand: one method is 2 above the other on every pair, whatever the prompts.

    >>> d = clustered_difference([(np.array([[3.0, 5.0]]), Clusters.of("ab"))], [np.array([[1.0, 3.0]])], shares=False)
    >>> d.value, d.low, d.high, d.n
    (2.0, 2.0, 2.0, 2)
    """
    ours, theirs = _by_seed([scores for scores, _ in kinds]), _by_seed(baseline)
    pseudo = PSEUDO_CHANGES if shares else ()
    resampled = _resampled(kinds, baseline, pseudo, rng_seed)
    n = sum(clusters.n for _, clusters in kinds)
    value = float(ours.mean() - theirs.mean())
    low, high = interval(value, resampled, _fewest(kinds), pseudo)
    return Difference(value, low, high, n, seeds=len(ours), baseline_seeds=len(theirs))


def _fewest(kinds: Sequence[tuple[Array, Clusters]]) -> int:
    return min(clusters.n for _, clusters in kinds)


def _by_seed(kinds: Sequence[Array]) -> Array:
    """The average over kinds for each seed: (S,)."""
    return np.mean([scores.mean(axis=1) for scores in kinds], axis=0)


def _resampled(
    kinds: Sequence[tuple[Array, Clusters]], baseline: Sequence[Array] | None, pseudo: Sequence[float], rng_seed: int
) -> Array:
    """The mean, or the difference, of each resample: (RESAMPLES,)."""
    rng = np.random.default_rng(rng_seed)
    resampled = np.zeros(RESAMPLES)
    ours = _drawn_seeds(len(kinds[0][0]), rng)
    theirs = None if baseline is None else _drawn_seeds(len(baseline[0]), rng)
    for k, (scores, clusters) in enumerate(kinds):
        sizes = np.bincount(clusters.of_pair, minlength=clusters.n)
        added = sizes.mean() * np.array(pseudo)  # the same in every seed
        prompts = clusters.n + len(pseudo)
        drawn_from = np.concatenate([sizes, np.full(len(pseudo), sizes.mean())])
        for at in np.array_split(np.arange(RESAMPLES), -(-RESAMPLES * prompts // CELLS)):
            counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=len(at)).astype(np.float64)
            of_prompts, of_pseudo = counts[:, : clusters.n], counts[:, clusters.n :]
            total = (of_prompts @ _sums(scores, clusters) * ours[at]).sum(axis=1) + of_pseudo @ added
            if baseline is not None and theirs is not None:
                total -= (of_prompts @ _sums(baseline[k], clusters) * theirs[at]).sum(axis=1)
            resampled[at] += total / (counts @ drawn_from) / len(kinds)
    return resampled


def _sums(scores: Array, clusters: Clusters) -> Array:
    """Sum over the pairs of each prompt: (S, N) -> (prompts, S)."""
    return np.stack([np.bincount(clusters.of_pair, weights=of_seed, minlength=clusters.n) for of_seed in scores], 1)


def _drawn_seeds(seeds: int, rng: np.random.Generator) -> Array:
    """How often each of S seeds was drawn, as shares: (RESAMPLES, S)."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
