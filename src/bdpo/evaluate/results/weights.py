"""The weights of the suites in the overall average."""

from __future__ import annotations

from collections.abc import Mapping

from bdpo.errors import BdpoError
from bdpo.evaluate.ask import AVERAGED


def parse_weights(text: str) -> dict[str, float] | None:
    """The weights in "safety=2,over-refusal=1"; None where nothing is said.

    >>> parse_weights("safety=2, capability=1")
    {'safety': 2.0, 'capability': 1.0}
    """
    weights = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, _, number = part.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            raise BdpoError(f"--weights: '{part}' should be SUITE=NUMBER, such as safety=2.") from None
    return weights or None


def shares_of(given: Mapping[str, float] | None, there: set[str]) -> dict[str, float]:
    """The weights of the averaged suites that are there, which sum to 1; None: each counts the same.

    Raises:
        BdpoError: a suite that was not evaluated, a negative weight, or none above 0.
    """
    suites = [suite for suite in AVERAGED if suite in there]
    weights = dict.fromkeys(suites, 1.0) if given is None else {suite: given.get(suite, 0.0) for suite in suites}
    unknown = sorted(set(given or {}) - set(suites))
    if unknown:
        raise BdpoError(f"--weights: '{unknown[0]}' was not evaluated; there are {', '.join(suites) or 'none'}.")
    if any(not 0 <= weight < float("inf") for weight in weights.values()) or (weights and not sum(weights.values())):
        raise BdpoError("--weights: each must be 0 or more, and one of them above 0.")
    return {suite: weight / sum(weights.values()) for suite, weight in weights.items()}
