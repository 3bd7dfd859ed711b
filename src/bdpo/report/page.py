"""Runs and their evaluation -> one self-contained HTML page without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import bdpo
from bdpo.errors import BdpoError
from bdpo.evaluate.judges import DEGENERATE, UNPARSED
from bdpo.files import flat, write_whole
from bdpo.report import figures_evaluation, figures_training
from bdpo.report.drawing import Drawn, color
from bdpo.report.evaluated import KINDS, OVER_REFUSAL, SAFETY, Evaluated, Flip, labelled, open_evaluation
from bdpo.report.runs import TrainedRun, open_run, shortened
from bdpo.report.verdict import DEGENERATE as MANY_DEGENERATE
from bdpo.report.verdict import FEWEST, Change, Evidence, Verdict, verdict
from bdpo.terminal import visible

MOST_CHANGED = 200  # changed replies that are shown
MOST_IMBALANCED = 20


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
        runs: folders of `bdpo train`.
        evaluation: a folder of `bdpo evaluate`; None: RUN/evaluation of the first run that has one.
        baseline: the method that the others are compared with; None: the first one evaluated.
        figures: folder for the figures as SVG and PNG.

    Raises:
        BdpoError: a folder holds no run or no evaluation, or the page cannot be written.
    """
    if not runs and evaluation is None:
        raise BdpoError("There is nothing to report on: name the folder of a run, or --evaluation DIR.")
    trained = [open_run(run) for run in runs]
    if evaluation is None:
        evaluation = next((run / "evaluation" for run in runs if (run / "evaluation").is_dir()), None)
    found = None if evaluation is None else open_evaluation([evaluation], baseline)
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
    environment.filters["p"] = lambda p: "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return environment.get_template("page.html.j2").render(
        runs=runs,
        found=found,
        figures={section: [(d.title, d.caption, Markup(d.svg)) for d in several] for section, several in drawn.items()},
        judged=judged,
        chips=_chips(judged, found),
        flips=_shown(flips),
        n_flips={kind: sum(flip.kind == kind for flip in flips) for kind in KINDS},
        kinds=KINDS,
        shortened=shortened,
        most_changed=MOST_CHANGED,
        suites=(SAFETY, OVER_REFUSAL),
        extremes=_extremes(runs),
        groups=[_groups(run) for run in runs],
        facts=_facts(runs),
        differing=_differing(runs),
        recipe=yaml.safe_dump(runs[0].recipe, sort_keys=False) if runs else "",
        version=bdpo.__version__,
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
    scored = next((run for run in runs if run.points), None)
    data: list[Drawn | None] = []
    if scored is not None:
        data = [figures_training.comprehension(scored), figures_training.imbalance(scored)]
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
    evidence = {method: found.evidence(method) for method in found.others}
    return [Judged(method, seen, verdict(seen)) for method, seen in evidence.items()]


def _chips(judged: Sequence[Judged], found: Evaluated | None) -> list[str]:
    """What to be wary of, each in a few words."""
    if found is None:
        return ["not evaluated"]
    changes: list[Change | None] = [c for one in judged for c in (one.evidence.safety, one.evidence.cost)]
    few = min((change.n for change in changes if change is not None), default=FEWEST)
    said = {name: found.said(name) for name in found.methods}
    chips = [f"only {few} prompts"] if few < FEWEST else []
    chips += ["one seed"] if any(one.evidence.seeds < 2 for one in judged) else []
    chips += ["judged by rules: refusals, not harm"] if any(one.evidence.by_rules for one in judged) else []
    cut = {name: sum(o.stop == "length" for o in replies) / max(1, len(replies)) for name, replies in said.items()}
    chips += [f"{name}: {share:.0%} of the replies cut off" for name, share in cut.items() if share > 0.5]
    broken = {name: labelled(replies, DEGENERATE) for name, replies in said.items()}
    chips += [f"{name}: {share:.0%} degenerate replies" for name, share in broken.items() if share > MANY_DEGENERATE]
    unread = sum(outcome.verdict == UNPARSED for replies in said.values() for outcome in replies)
    return chips + ([f"{unread} verdicts unread"] if unread else [])


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
    run = next((run for run in runs if run.points), None)
    if run is None:
        return []
    first = sorted(run.points, key=lambda point: -abs(point.imbalance))[:MOST_IMBALANCED]
    return [(point, run.texts(point)) for point in first]


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
        return Facts(name, ["not written down" if value is None else f"{value}{unit}" for value in values])

    memory = [record.get("peak_memory_bytes") for record in records]
    weights = [", ".join(f"{n}: {h[:16]}" for n, h in record.get("weights", {}).items()) for record in records]
    return [
        Facts("folder", [str(run.folder) for run in runs]),
        told("model", "label"),
        told("training pairs", "pairs", "train"),
        told("held-out pairs", "pairs", "held_out"),
        Facts("seed", [str(run.seed) for run in runs]),
        told("tau", "tau", unit=" nats/token"),
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
