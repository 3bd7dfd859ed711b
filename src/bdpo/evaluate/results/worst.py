"""The worst case beside the mean: of each benchmark and method the category with the lowest score (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bdpo.evaluate.results.compare import CategoryRow
from bdpo.evaluate.results.statistics import Mean, Rate

FEWEST = 10
"""Prompts of a category below which its score says too little to be called the worst."""


@dataclass(frozen=True)
class Worst:
    """The category in which a method scores lowest; of equals the first by name."""

    benchmark: str
    method: str
    category: str
    n: int  # prompts
    score: Rate | Mean  # with its interval, which knows nothing of the choice of the lowest


def worst_categories(categories: Sequence[CategoryRow]) -> list[Worst]:
    """One for each benchmark that has at least two categories of 10 prompts, and each method."""
    found = []
    for benchmark in dict.fromkeys(row.benchmark for row in categories):
        rows = [row for row in categories if row.benchmark == benchmark and row.n >= FEWEST]
        if len(rows) < 2:
            continue
        for method in rows[0].cells:
            row = min(rows, key=lambda row: row.cells[method].score.value)
            found.append(Worst(benchmark, method, row.category, row.n, row.cells[method].score))
    return found
