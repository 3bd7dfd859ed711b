"""Score intervals: Wilson's of a rate, and Newcombe's of the difference of two on the same prompts (pure)."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from bdpo.errors import BdpoError

_Z = NormalDist().inv_cdf(0.975)  # 1.959964


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % score interval of the rate successes / n (Wilson 1927, JASA 22:209).

        (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)      z = 1.959964

    By hand: 0 of 10 has p = 0 and the interval 0 to z^2 / (n + z^2) = 3.841459 / 13.841459 = 0.277533.

    >>> low, high = wilson(0, 10)
    >>> low, f"{high:.6f}"
    (0.0, '0.277533')
    """
    p, z2 = successes / n, _Z * _Z
    middle, half = p + z2 / (2 * n), _Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z2 / n) for sign in (-1, 1))
    return 0.0 if successes == 0 else low, 1.0 if successes == n else high  # what rounding leaves there is no rate


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
    (low_p, high_p), (low_q, high_q) = wilson(ours, n), wilson(theirs, n)
    margins = ours * (n - ours) * theirs * (n - theirs)
    shared = both * neither - gained * lost
    phi = (max(shared - n / 2, 0) if shared > 0 else shared) / sqrt(margins) if margins else 0.0
    below = _joined(p - low_p, high_q - q, phi)
    above = _joined(q - low_q, high_p - p, phi)
    return (gained - lost) / n - below, (gained - lost) / n + above


def _joined(a: float, b: float, phi: float) -> float:
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))
