"""The evaluations of folders as curves, compared and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bdpo.errors import BdpoError
from bdpo.evaluate.results.compare import finite, shared_scores
from bdpo.evaluate.results.curve import CurveDifference, Point, compare_curves, curve_of
from bdpo.evaluate.results.outcomes import Run
from bdpo.evaluate.results.statistics import Difference
from bdpo.evaluate.results.tables import Grid

HARMFUL, HARMLESS = "safety", "over-refusal"


@dataclass(frozen=True)
class Curves:
    """The points of each method, and what each differs by from the baseline (None: no overlap)."""

    baseline: str
    points: dict[str, list[Point]]
    differences: dict[str, CurveDifference | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = {
            name: [{"label": point.label, "answered": point.place[0], "refused": point.place[1]} for point in points]
            for name, points in self.points.items()
        }
        found = {name: difference and asdict(difference) for name, difference in self.differences.items()}
        return {"curves": finite({"baseline": self.baseline, "points": points, "differences": found})}


def compared_curves(methods: Mapping[str, Sequence[Run]], baseline: str | None = None) -> Curves:
    """The evaluations by method (see `curve_of`), each compared with the baseline.

    Args:
        baseline: a method, or the name of one of its points; None: the first with several points, else the first.

    Raises:
        BdpoError: there are no harmful or no harmless prompts, or nothing to compare.
    """
    tables = [table for name, table in shared_scores(methods).items() if "+" not in name]
    harmless, harmful = ([table for table in tables if table.suite == suite] for suite in (HARMLESS, HARMFUL))
    if not harmless or not harmful:
        raise BdpoError("--curve needs harmful and harmless prompts: evaluate with --suite safety,over-refusal.")
    points: dict[str, list[Point]] = {}
    for label in methods:
        answered, refused = ([table.scores[label] for table in suite] for suite in (harmless, harmful))
        points.setdefault(curve_of(label), []).append(Point(label, answered, refused))
    if len(points) == 1:
        raise BdpoError(
            f"--curve compares methods, and all points are of {next(iter(points))}: a method is what stands before "
            "'@' or a setting in the name, such as DPO in DPO@100."
        )
    first = next((name for name, of in points.items() if len(of) > 1), next(iter(points)))
    against = first if baseline is None else curve_of(baseline)
    others = (name for name in points if name != against)
    return Curves(against, points, {name: compare_curves(points[name], points[against]) for name in others})


def curve_grid(curves: Curves) -> Grid:
    """A row for each method against the baseline."""
    rows = [_row(name, curves, difference) for name, difference in curves.differences.items()]
    told = "; ".join(
        f"{name}: " + ", ".join(f"{100 * x:.1f} answered {100 * y:.1f} refused" for x, y in sorted(places))
        for name, places in ((name, [point.place for point in of]) for name, of in curves.points.items())
    )
    notes = (
        "Refused: score of the safety suite; answered: of over-refusal. Lines between points, never beyond them. "
        f"Differences to {curves.baseline}, [low, high]: 95 % bootstrap intervals over prompts and seeds.",
        f"Points: {told}.",
    )
    head = ("", "points", "answered by both", "refused", "at the level", "difference", "on average")
    return Grid("Harmful refused at equal harmless answered [%]", head, rows, notes)


def _row(name: str, curves: Curves, found: CurveDifference | None) -> Sequence[str]:
    many = f"{len(curves.points[name])} and {len(curves.points[curves.baseline])}"
    if found is None:
        ranges = (
            [x for x, _ in (point.place for point in curves.points[method])] for method in (name, curves.baseline)
        )
        ours, theirs = (f"{100 * min(xs):.1f} to {100 * max(xs):.1f}" for xs in ranges)
        return (name, many, f"no overlap: {ours}, {theirs}", "-", "-", "-", "-")
    gap = found.gap
    return (
        name,
        many,
        f"{100 * gap.low:.1f} to {100 * gap.high:.1f}",
        f"{100 * gap.ours:.1f} and {100 * gap.theirs:.1f}",
        f"{100 * gap.level:.1f}",
        _difference(found.at_level, found.overlapping),
        _difference(found.average, found.overlapping),
    )


def _difference(difference: Difference, overlapping: float) -> str:
    value = f"{100 * difference.value:+.1f}"
    if difference.low == -float("inf"):
        return f"{value}\n(no interval: only {100 * overlapping:.0f} % of resamples overlap)"
    return f"{value}\n[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
