"""Figures of training runs: comprehension of the data, and the curves of training."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from bdpo.report.drawing import GRID, INK, OF_LINES, SERIES, SHADE, Drawn, Mark, Told, axes, color, words
from bdpo.report.runs import TrainedRun

History: TypeAlias = Sequence[Mapping[str, float]]

_MOST_POINTS = 3000  # of a scatter, which is drawn of a sample beyond that
_THIRDS = {"low": 2, "mid": 0, "high": 1}  # tercile of imbalance -> colour
_HELD_AGAINST = {"rewards/accuracies": "accuracy", "rewards/margins": "margin [nats]"}
ALARM = -10.0  # nats: the default of train.displacement_alarm


def comprehension(run: TrainedRun, texts: Mapping[int, str]) -> Drawn | None:
    """Comprehension of the chosen (x) against that of the rejected reply (y), with the diagonal.

    Args:
        texts: id on the page of what holds the texts of a pair, by its place among the rows.
    """
    if not run.points:
        return None
    told = Told()
    few = random.Random(0).sample(run.points, min(_MOST_POINTS, len(run.points)))
    groups = [name for name, _ in Counter(point.group for point in run.points).most_common(len(SERIES) - 2)]
    with axes(height=4.2) as (figure, axis):
        for place, group in enumerate([*groups, None], start=1):
            mine = [p for p in few if p.group == group or (group is None and p.group not in groups)]
            if mine:
                name = "others" if group is None else words(group, 24)
                shade = SERIES[0] if group is None else color(place)
                axis.plot([p.chosen for p in mine], [p.rejected for p in mine], "o", ms=3.5, alpha=0.65, mew=0,
                          color=shade, **told.once(f"{name} ({len(mine)})"))  # fmt: skip
        for p in sorted(few, key=lambda point: -abs(point.imbalance)):  # so the arrow keys begin with the extremes
            text = f"{p.id}, {p.group}: chosen {p.chosen:.2f}, rejected {p.rejected:.2f}, d = {p.imbalance:+.2f}"
            told.marks.append(Mark(axis, p.chosen, p.rejected, text, texts.get(p.place, "")))
        ends = [f(v for p in few for v in (p.chosen, p.rejected)) for f in (min, max)]
        axis.plot(ends, ends, color=INK, lw=0.8, ls="--")
        axis.set(xlabel="chosen reply [nats/token]", ylabel="rejected reply [nats/token]")
        told.legend(figure, 2)
    caption = (
        "A point is a training pair: how much its prompt tells the frozen model of each reply. Right of the dashed "
        "line the chosen reply is the better understood one."
    )
    if len(few) < len(run.points):
        caption += f" {len(few)} of {len(run.points)} pairs are drawn."
    return Drawn("comprehension", "Comprehension of the pairs", caption, figure, told.marks)


def imbalance(run: TrainedRun) -> Drawn | None:
    """Distribution of the imbalance d, with tau and the curve of w_c(d)."""
    if not run.points:
        return None
    d, told = [point.imbalance for point in run.points], Told()
    tau = run.record.get("tau")
    with axes(height=2.8) as (figure, axis):
        counts, edges, _ = axis.hist(d, bins=min(40, max(8, len(d) // 8)), color=SERIES[1], alpha=0.55)
        for n, low, high in zip(counts, edges, edges[1:], strict=False):
            text = f"d from {low:+.2f} to {high:+.2f}: {n:.0f} pair{'s' if n != 1 else ''}"
            told.marks.append(Mark(axis, low, 0.0, text, corner=(high, max(n, counts.max() / 20))))
        axis.set(xlabel="imbalance d = chosen - rejected [nats/token]", ylabel="pairs")
        weighting = run.recipe.get("balance", {}).get("weighting", "sigmoid")
        if tau and weighting == "sigmoid":
            import torch

            from bdpo.method.balance import WEIGHTINGS, Fit

            fit = Fit(tau, run.record.get("mean_imbalance", 0.0))
            for edge in (fit.mean - tau, fit.mean + tau):
                axis.axvline(edge, color=INK, lw=0.8, ls=":")
            axis.text(fit.mean + tau, axis.get_ylim()[1], " tau", va="top")
            grid = torch.linspace(min(d), max(d), 100, dtype=torch.float64)
            w_c, _ = WEIGHTINGS[weighting](grid - fit.mean, torch.zeros_like(grid), fit)
            twin = axis.twinx()
            twin.plot(grid.tolist(), w_c.tolist(), color=SERIES[2])
            twin.set(ylim=(0, 2), ylabel="weight of the chosen reply w_c")
            twin.grid(visible=False)
            told.marks += [
                Mark(twin, x, y, f"d = {x:+.2f}: w_c = {y:.2f}, w_r = {2 - y:.2f}")
                for x, y in zip(grid.tolist()[::6], w_c.tolist()[::6], strict=True)
            ]
    caption = (
        f"Bars: pairs. Line: w_c(d), with tau = {tau:.3f} nats/token." if tau else "No balance: every weight is 1."
    )
    low, middle, high = np.percentile(d, (10, 50, 90))
    rows = [(f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}", f"{np.mean([of < 0 for of in d]):.1%}")]
    head = ("10th percentile of d", "median", "90th percentile", "pairs whose rejected reply is understood better")
    return Drawn("imbalance", "Imbalance and what becomes of it", caption, figure, told.marks, head, rows)


def curves(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> list[Drawn]:
    """The curves of training, those that there are; `colors` by the name of a run.

    Of several seeds all are in the common figures, and the first one has figures of its own.
    """
    if not runs:
        return []
    firsts = list({run.name: run for run in reversed(runs)}.values())[::-1]
    drawn = [_loss(runs, colors), *(_gap(run, i, colors) for i, run in enumerate(firsts)), _log_ratios(runs, colors)]
    drawn += [_terciles(run, i) for i, run in enumerate(firsts)]
    return [figure for figure in [*drawn, _evaluated(runs, colors)] if figure is not None]


def at_a_glance(history: History) -> Drawn | None:
    """The curves of one run in one figure, which its folder keeps; None where nothing was logged.

    Args:
        history: what was logged, in the order of steps.
    """
    told = Told()
    with axes(2, 2, height=4.6) as (figure, grid):
        loss, accuracy, margin, ratios = grid.flat
        for axis, (key, what) in zip((loss, accuracy, margin), {"loss": "loss", **_HELD_AGAINST}.items(), strict=True):
            told.line(axis, *series(history, key), "-", "training", f"{what}, training", color=SERIES[1])
            told.line(axis, *series(history, f"eval_{key}"), "o--", "held out", f"{what}, held out", ms=3.5,
                      color=SERIES[0])  # fmt: skip
            axis.set(title=what)
        for side, shade in (("chosen", SERIES[3]), ("rejected", SERIES[2])):
            name = f"{side} reply"
            told.line(ratios, *series(history, f"logratios/{side}"), "-", name, color=shade)
            told.line(ratios, *series(history, f"eval_logratios/{side}"), "o--", f"{name}, held out", ms=3.5,
                      color=shade)  # fmt: skip
        ratios.set(title="log-ratio [nats]")
        for axis in grid[1]:
            axis.set(xlabel="optimiser step")
        told.legend(figure, 2)
    caption = "Training values are of the pairs since the last log."
    return Drawn("curves", "Curves of the run", caption, figure, told.marks, OF_LINES, told.rows) if told.rows else None


def series(history: History, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a logged key."""
    found = {entry["step"]: entry[key] for entry in history if key in entry and "step" in entry}
    return list(found), list(found.values())


def _loss(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    told = Told()
    with axes(height=2.6) as (figure, axis):
        for run in runs:
            for key, style, what in (("loss", "-", "training"), ("eval_loss", "o--", "held out")):
                told.line(axis, *series(run.history, key), style, f"{run.name}, {what}",
                          f"{_named(run, runs)}, {what}", ms=3.5, color=colors[run.name])  # fmt: skip
        axis.set(xlabel="optimiser step", ylabel="loss")
        told.legend(figure, 2)
    caption = "Training values are of the pairs since the last log, before their step's update."
    return Drawn("loss", "Loss", caption, figure, told.marks, OF_LINES, told.rows) if told.rows else None


def _gap(run: TrainedRun, place: int, colors: Mapping[str, str]) -> Drawn | None:
    """Accuracy and margin, training against held-out pairs; between them, shaded, the gap."""
    if not series(run.history, "rewards/margins")[0]:
        return None
    told = Told()
    with axes(1, 2, height=2.8) as (figure, both):
        for axis, (key, what) in zip(both, _HELD_AGAINST.items(), strict=True):
            (steps, values), (held_steps, held) = series(run.history, key), series(run.history, f"eval_{key}")
            told.line(axis, steps, values, "-", "training", f"{what}, training", color=colors[run.name])
            told.line(axis, held_steps, held, "o--", "held out", f"{what}, held out", ms=3.5, color=SERIES[0])
            if held_steps:
                inside = [(s, v) for s, v in zip(steps, values, strict=True) if held_steps[0] <= s <= held_steps[-1]]
                if inside:
                    at, trained = zip(*inside, strict=True)
                    axis.fill_between(at, trained, np.interp(at, held_steps, held), color=SHADE, zorder=0)
            axis.set(xlabel="optimiser step", title=what)
        told.legend(figure, 2)
    caption = "The shaded gap between training and held-out pairs is the overfitting that the method is about."
    title = f"Training against held out: {words(run.name)}"
    return Drawn(f"gap-{place}", title, caption, figure, told.marks, OF_LINES, told.rows)


def _log_ratios(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    told = Told()
    with axes(height=2.8) as (figure, axis):
        for run in runs:
            for side, style in (("chosen", "-"), ("rejected", ":")):
                told.line(axis, *series(run.history, f"logratios/{side}"), style, f"{run.name}, {side}",
                          f"{_named(run, runs)}, {side}", color=colors[run.name])  # fmt: skip
        alarms = {run.recipe.get("train", {}).get("displacement_alarm", ALARM) for run in runs} - {None}
        for alarm in sorted(alarms) if told.rows else ():
            axis.axhline(alarm, color=SERIES[5], lw=0.9, ls="--", **told.once(f"alarm ({alarm:g} nats)"))
        axis.set(xlabel="optimiser step", ylabel="log-ratio [nats]")
        told.legend(figure, 2)
    title = "Log-ratios of chosen and rejected replies"
    caption = "Chosen replies below the alarm's line: the model unlearns the preferred replies too (displacement)."
    return Drawn("log-ratios", title, caption, figure, told.marks, OF_LINES, told.rows) if told.rows else None


def _terciles(run: TrainedRun, place: int) -> Drawn | None:
    told = Told()
    with axes(height=2.6) as (figure, axis):
        for third, shade in _THIRDS.items():
            for prefix, style in (("", "-"), ("eval_", "o--")):
                label = f"{third}, held out" if prefix else third
                told.line(axis, *series(run.history, f"{prefix}imbalance_{third}/rewards/margins"), style, label,
                          f"{label}: margin", ms=3.5, color=SERIES[shade])  # fmt: skip
        axis.axhline(0, color=GRID, lw=0.9)
        axis.set(xlabel="optimiser step", ylabel="margin [nats]")
        told.legend(figure, 3)
    caption = "Low: the rejected reply is understood better; high: the chosen one. The balance is to draw them near."
    title = f"Margins by tercile of imbalance: {words(run.name)}"
    name = f"terciles-{place}"
    return Drawn(name, title, caption, figure, told.marks, OF_LINES, told.rows) if told.rows else None


def _evaluated(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    keys = sorted({key for run in runs for entry in run.history for key in entry if key.startswith("evaluate/")})
    if not keys:
        return None
    told = Told()
    with axes(height=2.8) as (figure, axis):
        for run in runs:
            for key, style in zip(keys, ("-", "--", ":", "-.") * len(keys), strict=False):
                steps, values = series(run.history, key)
                what = words(key.removeprefix("evaluate/"))
                told.line(axis, steps, [100 * v for v in values], style, f"{run.name}, {what}",
                          f"{_named(run, runs)}, {what} [%]", color=colors[run.name])  # fmt: skip
        axis.set(xlabel="optimiser step", ylabel="[% of prompts]", ylim=(-2, 102))
        told.legend(figure, 2)
    caption = "A small named subset, judged by rules: harmful prompts refused, harmless ones answered."
    title = "Evaluation while training"
    return Drawn("while-training", title, caption, figure, told.marks, OF_LINES, told.rows)


def _named(run: TrainedRun, runs: Sequence[TrainedRun]) -> str:
    """The run's name, with its seed where several bear it."""
    twins = sum(other.name == run.name for other in runs)
    return run.name if twins == 1 else f"{run.name} seed {run.seed}"
