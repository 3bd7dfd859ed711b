"""The difference of two rates on the same prompts, with an interval that is honest where few prompts differ (pure)."""

from __future__ import annotations

from math import sqrt

from scipy.stats import binomtest

from bdpo.errors import BdpoError


def newcombe_paired(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    """95 % score interval of (gained - lost) / n, the difference of paired proportions (Newcombe 1998, Stat. Med.
    17:2635, method 10).

        d - sqrt(a^2 - 2 phi a b + b^2)  to  d + sqrt(e^2 - 2 phi e f + f^2)
        a = p_1 - low_1, b = high_2 - p_2, e = p_2 - low_2, f = high_1 - p_1      low, high: Wilson's

    phi is the correlation of the two, with n / 2 taken off its numerator where that is positive, but not below 0; it is
    0 where a margin is empty. Unlike a bootstrap's the interval has a width where no prompt differs.

    both, gained, lost, neither   prompts on which both succeed, the method alone, the baseline alone, neither

    Raises:
        BdpoError: a count below 0, or no prompts.

    By hand: 10 of 10 on both sides have p = 1 and Wilson's low = 10 / 13.841459 = 0.722467; a = 0.277533, b = 0.

    >>> low, high = newcombe_paired(10, 0, 0, 0)
    >>> f"{low:.6f} {high:.6f}"
    '-0.277533 0.277533'
    """
    counts = both, gained, lost, neither
    n = sum(counts)
    if n == 0 or min(counts) < 0:
        raise BdpoError(f"Counts of prompts are 0 or more, and one of them above 0: {counts}.")
    ours, theirs = both + gained, both + lost
    p, q = ours / n, theirs / n
    (low_p, high_p), (low_q, high_q) = _wilson(ours, n), _wilson(theirs, n)
    margins = ours * (n - ours) * theirs * (n - theirs)
    shared = both * neither - gained * lost
    phi = (max(shared - n / 2, 0) if shared > 0 else shared) / sqrt(margins) if margins else 0.0
    below = _joined(p - low_p, high_q - q, phi)
    above = _joined(q - low_q, high_p - p, phi)
    return (gained - lost) / n - below, (gained - lost) / n + above


def _joined(a: float, b: float, phi: float) -> float:
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _wilson(successes: int, n: int) -> tuple[float, float]:
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
