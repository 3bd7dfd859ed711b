"""An interval for the difference of two shares of the same prompts (pure)."""

from __future__ import annotations

from math import sqrt

from bdpo.errors import BdpoError
from bdpo.evaluate.results.statistics import rate


def newcombe_paired(gained: int, lost: int, n_both_ok: int, n: int) -> tuple[float, float]:
    """95 % interval of (gained - lost) / n, method 10 of Newcombe 1998 (Stat. Med. 17:2635).

    With p_1, p_2 the two shares, l and u their Wilson limits, a, b, c, d the prompts on which both, the first, the
    second and neither succeed, and phi the correlation of the four, its numerator corrected for continuity:

        low  = p_1 - p_2 - sqrt((p_1 - l_1)^2 - 2 phi (p_1 - l_1)(u_2 - p_2) + (u_2 - p_2)^2)
        high = p_1 - p_2 + sqrt((u_1 - p_1)^2 - 2 phi (u_1 - p_1)(p_2 - l_2) + (p_2 - l_2)^2)
        phi  = (max(ad - bc - n/2, 0) if ad > bc else ad - bc) / sqrt((a+b)(c+d)(a+c)(b+d)),  0 where that is 0/0

    Unlike the bootstrap's it has a width where no prompt differs.

    Raises:
        BdpoError: the counts do not fit together, or there is no prompt.

    By hand: of 10 prompts none differs and all succeed, so the shares are 1 with the limits 0.722467 and 1, phi is 0,
    and the interval reaches 0.277533 each way.

    >>> low, high = newcombe_paired(0, 0, 10, 10)
    >>> f"{low:.6f} {high:.6f}"
    '-0.277533 0.277533'
    """
    neither = n - gained - lost - n_both_ok
    if n < 1 or min(gained, lost, n_both_ok, neither) < 0:
        raise BdpoError(f"Of {n} prompts, {gained} gained, {lost} lost and {n_both_ok} kept: these counts do not fit.")
    ours, theirs = rate(n_both_ok + gained, n), rate(n_both_ok + lost, n)
    excess = n_both_ok * neither - gained * lost
    margins = ours.successes * (n - ours.successes) * theirs.successes * (n - theirs.successes)
    phi = (max(excess - n / 2, 0) if excess > 0 else excess) / sqrt(margins) if margins else 0.0
    below, above = ours.value - ours.low, ours.high - ours.value
    theirs_below, theirs_above = theirs.value - theirs.low, theirs.high - theirs.value
    value = (gained - lost) / n
    low = value - sqrt(max(0.0, below**2 - 2 * phi * below * theirs_above + theirs_above**2))
    high = value + sqrt(max(0.0, above**2 - 2 * phi * above * theirs_below + theirs_below**2))
    return low, high
