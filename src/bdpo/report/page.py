"""Runs and their evaluation -> one self-contained HTML page without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import bdpo
from bdpo.errors import BdpoError
from bdpo.files import flat, refuse_taken, write_whole
from bdpo.report import figures_evaluation, figures_training
from bdpo.report.chips import chips
from bdpo.report.drawing import Drawn, color
from bdpo.report.evaluated import KINDS, OVER_REFUSAL, SAFETY, Evaluated, Flip, open_evaluation
from bdpo.report.runs import Point, TrainedRun, compared_with, open_runs, shortened
from bdpo.report.verdict import Evidence, Verdict, verdict
from bdpo.terminal import visible

MOST_CHANGED = 200  # changed replies that are shown
MOST_IMBALANCED = 20
MARK = "<title>bdpo report: "  # by which a page is known as one (see `refuse_taken`)


@dataclass(frozen=True)
class Judged:
    """The verdict on one method, and what it was made from."""

    method: str
    evidence: Evidence
    verdict: Verdict


@dataclass(frozen=True)
class Facts:
    """A line of the table in "Reproduce": what is told of each run."""

    name: str
    values: list[str]


def write_report(
    runs: Sequence[Path], out: Path, *, evaluation: Path | None = None, baseline: str | None = None,
    figures: Path | None = None,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        runs: folders of `bdpo train`, or of `bdpo sweep`, which stands for all its cells.
        evaluation: a folder of `bdpo evaluate`; None: those of the cells of a sweep, else RUN/evaluation of the first
            run that has one.
        baseline: the method that the others are compared with; None: the sweep's own, else the first one evaluated.
        figures: folder for the figures as SVG and PNG.

    Raises:
        BdpoError: a folder holds no run or no evaluation, or the page cannot be written.
    """
    if not runs and evaluation is None:
        raise BdpoError("There is nothing to report on: name the folder of a run, or --evaluation DIR.")
    refuse_taken(out, "--out", MARK)
    opened = [open_runs(folder) for folder in runs]
    trained = [run for several, _ in opened for run in several]
    asked = [(evaluations, compared_with(folder)) for folder, (_, evaluations) in zip(runs, opened, strict=True)]
    evaluations, compared = ([evaluation], {}) if evaluation else next((one for one in asked if one[0]), ([], {}))
    compared |= {"baseline": baseline} if baseline else {}
    found = open_evaluation(evaluations, **compared) if evaluations else None
    drawn = _drawn(trained, found)
    write_whole(out, rendered(trained, found, drawn))
    if figures is not None:
        for figure in (figure for section in drawn.values() for figure in section):
            figure.save(figures)


def rendered(runs: Sequence[TrainedRun], found: Evaluated | None, drawn: Mapping[str, list[Drawn]]) -> str:
    """The page as HTML."""
    judged = [] if found is None else _judged(found)
    flips = [] if found is None else found.flips()
    environment = Environment(
        loader=PackageLoader("bdpo.report", "."), autoescape=True, undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup | int | float) else visible(value),
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["points"] = lambda share: f"{100 * share:+.1f}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["median"] = lambda values: f"{median(values):g}"
    environment.filters["p"] = lambda p: "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return environment.get_template("page.html.j2").render(
        runs=runs,
        seeds={run.name: [other.seed for other in runs if other.name == run.name] for run in runs},
        found=found,
        figures={section: [figure.shown() for figure in several] for section, several in drawn.items()},
        judged=judged,
        chips=chips(found, {one.method: one.evidence for one in judged}),
        flips=_shown(flips),
        n_flips={kind: sum(flip.kind == kind for flip in flips) for kind in KINDS},
        kinds=KINDS,
        shortened=shortened,
        most_changed=MOST_CHANGED,
        suites=(SAFETY, OVER_REFUSAL),
        extremes=_extremes(runs),
        groups=_groups(scored) if (scored := _scored(runs)) else [],
        facts=_facts(runs),
        differing=_differing(runs),
        recipe=yaml.safe_dump(runs[0].recipe, sort_keys=False) if runs else "",
        version=bdpo.__version__,
        mark=Markup(MARK),
    )


def _drawn(runs: Sequence[TrainedRun], found: Evaluated | None) -> dict[str, list[Drawn]]:
    """The figures of each section."""
    of_evaluation: dict[str, Drawn | None] = {}
    if found is not None:
        of_evaluation = {
            "trade": figures_evaluation.trade_off(found),
            "forest": figures_evaluation.forest(found),
            "verdicts": figures_evaluation.verdict_bars(found),
            "categories": figures_evaluation.by_category(found, found.categories()),
        }
    scored = _scored(runs)
    data: list[Drawn | None] = []
    if scored is not None:
        texts = {point.place: f"pair-{point.place}" for point in _most_imbalanced(scored)}
        data = [figures_training.comprehension(scored, texts), figures_training.imbalance(scored)]
    names = dict.fromkeys([*(found.methods if found else ["baseline"]), *(run.name for run in runs)])
    colors = {name: color(place) for place, name in enumerate(names)}
    of_one = {name: [of_evaluation.get(name)] for name in ("trade", "forest", "verdicts", "categories")}
    every: dict[str, Sequence[Drawn | None]] = {
        **of_one,
        "data": data,
        "training": figures_training.curves(runs, colors),
    }
    return {name: [figure for figure in several if figure is not None] for name, several in every.items()}


def _judged(found: Evaluated) -> list[Judged]:
    evidence = {method: found.evidence(method) for method in found.judged}
    return [Judged(method, seen, verdict(seen)) for method, seen in evidence.items()]


def _shown(flips: Sequence[Flip]) -> list[Flip]:
    """At most `MOST_CHANGED`, of every kind as many as of the others where there are so many."""
    order = list(KINDS)
    ranked, seen = [], dict.fromkeys(order, 0)
    for flip in flips:
        ranked.append((seen[flip.kind], order.index(flip.kind), flip))
        seen[flip.kind] += 1
    first = sorted(ranked, key=lambda one: one[:2])[:MOST_CHANGED]
    return [flip for *_, flip in sorted(first, key=lambda one: one[1])]


def _extremes(runs: Sequence[TrainedRun]) -> list[tuple[Any, tuple[str, str, str]]]:
    """The most imbalanced training pairs with their texts."""
    run = _scored(runs)
    if run is None:
        return []
    return [(point, run.texts(point)) for point in _most_imbalanced(run)]


def _scored(runs: Sequence[TrainedRun]) -> TrainedRun | None:
    """The run whose data are shown: the first that was balanced, else the first that has its scores."""
    scored = sorted((run for run in runs if run.points), key=lambda run: run.record.get("tau") is None)
    return scored[0] if scored else None


def _most_imbalanced(run: TrainedRun) -> list[Point]:
    return sorted(run.points, key=lambda point: -abs(point.imbalance))[:MOST_IMBALANCED]


def _groups(run: TrainedRun) -> list[tuple[str, int, float, float, float]]:
    """By category: pairs, means of the comprehension of chosen and rejected, share understood better when rejected."""
    by_group: dict[str, list[Any]] = {}
    for point in run.points:
        by_group.setdefault(point.group, []).append(point)
    return [
        (
            name,
            len(points),
            sum(point.chosen for point in points) / len(points),
            sum(point.rejected for point in points) / len(points),
            sum(point.imbalance < 0 for point in points) / len(points),
        )
        for name, points in sorted(by_group.items(), key=lambda item: -len(item[1]))
    ]


# --- reproduce ----------------------------------------------------------------------------------------------------


def _facts(runs: Sequence[TrainedRun]) -> list[Facts]:
    """What a run was made with, a line a fact and a value a run."""
    records = [run.record for run in runs]

    def told(name: str, *path: str, unit: str = "") -> Facts:
        values = [_within(record, path) for record in records]
        values = [f"{value:.4g}" if isinstance(value, float) else value for value in values]
        return Facts(name, ["not written down" if value is None else f"{value}{unit}" for value in values])

    taus = [record.get("tau") for record in records]
    memory = [record.get("peak_memory_bytes") for record in records]
    weights = [", ".join(f"{n}: {h[:16]}" for n, h in record.get("weights", {}).items()) for record in records]
    return [
        Facts("folder", [str(run.folder) for run in runs]),
        told("model", "label"),
        told("training pairs", "pairs", "train"),
        told("held-out pairs", "pairs", "held_out"),
        Facts("seed", [str(run.seed) for run in runs]),
        Facts("tau", ["nothing balanced" if t is None else f"{t:.4g} nats/token" for t in taus]),
        Facts("weights (SHA-256)", [hashes or "not written down" for hashes in weights]),
        told("hash of the scored model", "scores", "train", "key", "weights"),
        told("began", "started"),
        told("duration", "seconds", unit=" s"),
        told("device", "device"),
        Facts("peak memory", ["not written down" if m is None else f"{m / 2**30:.2f} GiB" for m in memory]),
        *(told(name, "versions", name) for name in ("bdpo", "torch", "transformers")),
        told("command", "command"),
    ]


def _within(content: Any, path: Sequence[str]) -> Any:
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _differing(runs: Sequence[TrainedRun]) -> list[Facts]:
    """The recipe's keys in which runs differ, with the value of each run."""
    recipes = [flat(run.recipe) for run in runs]
    keys = sorted({key for recipe in recipes for key in recipe} - {"train.output_dir"})
    differing = [key for key in keys if len({repr(recipe.get(key)) for recipe in recipes}) > 1]
    return [Facts(key, [str(recipe.get(key, "left out")) for recipe in recipes]) for key in differing]
