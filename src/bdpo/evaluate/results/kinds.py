"""Preferences by kind of prompt: unsafe ones, harmless ones, and the average of the two.

A step along the refusal axis raises one kind and lowers the other; telling them apart raises both. Of each kind, with
M = log pi(chosen | x) - log pi(rejected | x) and M_0 the same of the reference:

    ranking            share of pairs with M > 0
    reward             share of pairs with M - M_0 > 0, DPO's reward accuracy
    log-ratio margin   mean of M - M_0 [nats]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdpo.evaluate.results.clustered import Clusters, clustered_difference, clustered_mean
from bdpo.evaluate.results.outcomes import Run
from bdpo.evaluate.results.statistics import Array, Difference, Mean, Rate, average, compare_rates, rate
from bdpo.pairs.kinds import KINDS

BALANCED = "balanced"
REWARD, LOG_RATIO_MARGIN = " reward", " log-ratio margin"  # behind the name of a kind: measures against the reference


@dataclass(frozen=True)
class KindRow:
    """One measure of one kind for every method, and how each differs from another method on the same prompts."""

    name: str  # such as "preferences unsafe reward"
    measure: str
    nats: bool  # a margin, not a share
    n: int  # prompts
    scores: dict[str, Rate | Mean]
    differences: dict[str, Difference]  # of the methods that are compared


def kind_rows(methods: Mapping[str, Sequence[Run]], task: str, baseline: str, reference: str) -> list[KindRow]:
    """The rows of a task of preferences; none where its pairs are of no kind, or of another task.

    Args:
        baseline: the method that others differ from; of rewards, where it is the reference, the first other one.
        reference: the method whose margins are M_0.

    Raises:
        BdpoError: outcomes are missing.
    """
    outcomes = {name: [run.whole(task) for run in seeds] for name, seeds in methods.items()}
    first = outcomes[reference][0]
    kinds = [kind for kind in KINDS if any(outcome.kind == kind for outcome in first)]
    if not kinds or any(outcome.margin is None for outcome in first):
        return []
    margins = {name: np.array([[o.margin for o in of_seed] for of_seed in seeds]) for name, seeds in outcomes.items()}
    places = {kind: np.array([outcome.kind == kind for outcome in first]) for kind in kinds}
    clusters = {kind: Clusters.of([o.prompt or o.id for o in first if o.kind == kind]) for kind in kinds}
    parts = {
        name: [(of_method[:, places[kind]], clusters[kind]) for kind in kinds] for name, of_method in margins.items()
    }
    return _rows(task, kinds, parts, baseline, reference)


def row_names(task: str, kinds: Iterable[str], *, rewards: bool) -> list[str]:
    """The names of the rows of a task whose pairs are of these kinds.

    Args:
        rewards: with those of rewards and log-ratios, which the reference itself has not.

    >>> row_names("preferences", ["unsafe", ""], rewards=True)
    ['preferences unsafe', 'preferences unsafe reward', 'preferences unsafe log-ratio margin']
    """
    there = [kind for kind in KINDS if kind in kinds]
    suffixes = ("", REWARD, LOG_RATIO_MARGIN) if rewards else ("",)
    return [f"{task} {kind}{suffix}" for kind in _with_balanced(there) for suffix in suffixes]


def _with_balanced(kinds: Sequence[str]) -> list[str]:
    return [*kinds, *([BALANCED] if len(kinds) > 1 else [])]


def _rows(
    task: str,
    kinds: Sequence[str],
    parts: Mapping[str, Sequence[tuple[Array, Clusters]]],
    baseline: str,
    reference: str,
) -> list[KindRow]:
    """The measures of each kind, and of all where there are several."""
    first = [scores.mean(axis=0) for scores, _ in parts[reference]]
    everyone = sorted(parts, key=lambda name: name != baseline)  # the one that others differ from first
    trained = [name for name in everyone if name != reference]
    about = f"against {reference}" + (f"; differences to {trained[0]}" if len(trained) > 1 else "")
    measures: list[tuple[str, str, Callable[[Array, int], Array], list[str]]] = [
        ("", "ranking accuracy by kind, of log-probabilities", lambda m, k: _share(m > 0), everyone),
        (REWARD, f"reward accuracy by kind, {about}", lambda m, k: _share(m > first[k]), trained),
        (LOG_RATIO_MARGIN, f"mean log-ratio margin by kind [nats], {about}", lambda m, k: m - first[k], trained),
    ]  # fmt: skip
    rows = []
    for kind in _with_balanced(kinds):
        chosen = range(len(kinds)) if kind == BALANCED else [kinds.index(kind)]
        for suffix, measure, worth, names in measures:
            if not names:
                continue
            nats = suffix == LOG_RATIO_MARGIN
            valued = {name: [(worth(parts[name][k][0], k), parts[name][k][1]) for k in chosen] for name in names}
            scores = {name: _score(of_method, nats) for name, of_method in valued.items()}
            against = valued[names[0]]
            differences = {name: _difference(valued[name], against, nats) for name in names[1:]}
            n = sum(clusters.n for _, clusters in against)
            rows.append(KindRow(f"{task} {kind}{suffix}", measure, nats, n, scores, differences))
    return rows


def _score(kinds: Sequence[tuple[Array, Clusters]], nats: bool) -> Rate | Mean:
    """Wilson's interval, or one made of Wilson's, where shares are of one seed and one pair a prompt."""
    if nats or not _single(kinds):
        return clustered_mean(kinds, shares=not nats)
    rates = [rate(int(scores.sum()), scores.shape[1]) for scores, _ in kinds]
    return rates[0] if len(rates) == 1 else average(rates, [1 / len(rates)] * len(rates))


def _difference(
    kinds: Sequence[tuple[Array, Clusters]], baseline: Sequence[tuple[Array, Clusters]], nats: bool
) -> Difference:
    if len(kinds) == 1 and not nats and _single(kinds) and _single(baseline):
        return compare_rates(kinds[0][0], baseline[0][0])
    return clustered_difference(kinds, [scores for scores, _ in baseline], shares=not nats)


def _share(won: NDArray[np.bool_]) -> Array:
    return won.astype(np.float64)


def _single(kinds: Sequence[tuple[Array, Clusters]]) -> bool:
    return all(len(scores) == 1 and clusters.n == scores.shape[1] for scores, clusters in kinds)
