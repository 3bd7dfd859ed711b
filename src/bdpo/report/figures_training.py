"""Figures of training runs: comprehension of the data, and the curves of training."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from bdpo.method.balance import WEIGHTINGS, Fit
from bdpo.report.drawing import GRID, INK, SERIES, SHADE, Drawn, axes, color, words
from bdpo.report.runs import TrainedRun

_MOST_POINTS = 3000  # of a scatter, which is drawn of a sample beyond that
_THIRDS = {"low": 2, "mid": 0, "high": 1}  # tercile of imbalance -> colour
ALARM = -10.0  # nats: the default of train.displacement_alarm


def comprehension(run: TrainedRun) -> Drawn | None:
    """Comprehension of the chosen (x) against that of the rejected reply (y), with the diagonal."""
    if not run.points:
        return None
    few = random.Random(0).sample(run.points, min(_MOST_POINTS, len(run.points)))
    groups = [name for name, _ in Counter(point.group for point in run.points).most_common(len(SERIES) - 2)]
    with axes(height=4.2) as (figure, axis):
        for place, group in enumerate([*groups, None], start=1):
            mine = [p for p in few if p.group == group or (group is None and p.group not in groups)]
            if mine:
                name = "others" if group is None else words(group)
                shade = SERIES[0] if group is None else color(place)
                axis.plot([p.chosen for p in mine], [p.rejected for p in mine], "o", ms=3.5, alpha=0.65, mew=0,
                          color=shade, label=f"{name} ({len(mine)})")  # fmt: skip
        ends = [f(v for p in few for v in (p.chosen, p.rejected)) for f in (min, max)]
        axis.plot(ends, ends, color=INK, lw=0.8, ls="--")
        axis.set(xlabel="chosen reply [nats/token]", ylabel="rejected reply [nats/token]")
        figure.legend(loc="outside upper left", ncols=2)
    caption = (
        "A point is a training pair: how much its prompt tells the frozen model of each reply. Right of the dashed "
        "line the chosen reply is the better understood one."
    )
    if len(few) < len(run.points):
        caption += f" {len(few)} of {len(run.points)} pairs are drawn."
    return Drawn("comprehension", "Comprehension of the pairs", caption, figure)


def imbalance(run: TrainedRun) -> Drawn | None:
    """Distribution of the imbalance d, with tau and the curve of w_c(d)."""
    if not run.points:
        return None
    d = [point.imbalance for point in run.points]
    tau = run.record.get("tau")
    with axes(height=2.8) as (figure, axis):
        axis.hist(d, bins=min(40, max(8, len(d) // 8)), color=SERIES[1], alpha=0.55)
        axis.set(xlabel="imbalance d = chosen - rejected [nats/token]", ylabel="pairs")
        weighting = run.recipe.get("balance", {}).get("weighting", "sigmoid")
        if tau and weighting == "sigmoid":
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
    caption = f"tau = {tau:.3f} nats/token." if tau else "No balance: every weight is 1."
    return Drawn("imbalance", "Imbalance and what becomes of it", caption, figure)


def curves(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> list[Drawn]:
    """The curves of training, those that there are; `colors` by the name of a run."""
    if not runs:
        return []
    drawn = [_loss(runs, colors), *(_gap(run, i, colors) for i, run in enumerate(runs)), _log_ratios(runs, colors)]
    drawn += [_terciles(run, i) for i, run in enumerate(runs)]
    return [figure for figure in [*drawn, _evaluated(runs, colors)] if figure is not None]


def series(run: TrainedRun, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a logged key."""
    found = {entry["step"]: entry[key] for entry in run.history if key in entry and "step" in entry}
    return list(found), list(found.values())


def _loss(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    with axes(height=2.6) as (figure, axis):
        drawn = False
        for run in runs:
            for key, style, told in (("loss", "-", "training"), ("eval_loss", "o--", "held out")):
                steps, values = series(run, key)
                if steps:
                    axis.plot(
                        steps, values, style, ms=3.5, color=colors[run.name], label=f"{_named(run, runs)}, {told}"
                    )
                    drawn = True
        axis.set(xlabel="optimiser step", ylabel="loss")
        figure.legend(loc="outside upper left", ncols=2)
    caption = "Training values are of the pairs since the last log, before their step's update."
    return Drawn("loss", "Loss", caption, figure) if drawn else None


def _gap(run: TrainedRun, place: int, colors: Mapping[str, str]) -> Drawn | None:
    """Accuracy and margin, training against held-out pairs; between them, shaded, the gap."""
    keys = {"rewards/accuracies": "accuracy", "rewards/margins": "margin [nats]"}
    if not series(run, "rewards/margins")[0]:
        return None
    with axes(1, 2, height=2.8) as (figure, both):
        for axis, (key, told) in zip(both, keys.items(), strict=True):
            (steps, values), (held_steps, held) = series(run, key), series(run, f"eval_{key}")
            axis.plot(steps, values, color=colors[run.name], label="training" if axis is both[0] else None)
            if held_steps:
                axis.plot(held_steps, held, "o--", ms=3.5, color=SERIES[0],
                          label="held out" if axis is both[0] else None)  # fmt: skip
                inside = [(s, v) for s, v in zip(steps, values, strict=True) if held_steps[0] <= s <= held_steps[-1]]
                if inside:
                    at, trained = zip(*inside, strict=True)
                    axis.fill_between(at, trained, np.interp(at, held_steps, held), color=SHADE, zorder=0)
            axis.set(xlabel="optimiser step", title=told)
        figure.legend(loc="outside upper left", ncols=2)
    caption = "The shaded gap between training and held-out pairs is the overfitting that the method is about."
    return Drawn(f"gap-{place}", f"Training against held out: {words(run.name)}", caption, figure)


def _log_ratios(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    with axes(height=2.8) as (figure, axis):
        drawn = False
        for run in runs:
            for side, style in (("chosen", "-"), ("rejected", ":")):
                steps, values = series(run, f"logratios/{side}")
                if steps:
                    axis.plot(steps, values, style, color=colors[run.name], label=f"{_named(run, runs)}, {side}")
                    drawn = True
            alarm = run.recipe.get("train", {}).get("displacement_alarm", ALARM)
        if drawn and alarm is not None:
            axis.axhline(alarm, color=SERIES[5], lw=0.9, ls="--", label=f"alarm ({alarm:g} nats)")
        axis.set(xlabel="optimiser step", ylabel="log-ratio [nats]")
        figure.legend(loc="outside upper left", ncols=2)
    caption = "Chosen replies below the alarm's line: the model unlearns the preferred replies too (displacement)."
    return Drawn("log-ratios", "Log-ratios of chosen and rejected replies", caption, figure) if drawn else None


def _terciles(run: TrainedRun, place: int) -> Drawn | None:
    with axes(height=2.6) as (figure, axis):
        drawn = False
        for third, shade in _THIRDS.items():
            for prefix, style in (("", "-"), ("eval_", "o--")):
                steps, values = series(run, f"{prefix}imbalance_{third}/rewards/margins")
                if steps:
                    told = f"{third}, held out" if prefix else third
                    axis.plot(steps, values, style, ms=3.5, color=SERIES[shade], label=told)
                    drawn = True
        axis.axhline(0, color=GRID, lw=0.9)
        axis.set(xlabel="optimiser step", ylabel="margin [nats]")
        figure.legend(loc="outside upper left", ncols=3)
    caption = "Low: the rejected reply is understood better; high: the chosen one. The balance is to draw them near."
    title = f"Margins by tercile of imbalance: {words(run.name)}"
    return Drawn(f"terciles-{place}", title, caption, figure) if drawn else None


def _evaluated(runs: Sequence[TrainedRun], colors: Mapping[str, str]) -> Drawn | None:
    keys = sorted({key for run in runs for entry in run.history for key in entry if key.startswith("evaluate/")})
    if not keys:
        return None
    with axes(height=2.8) as (figure, axis):
        for run in runs:
            for key, style in zip(keys, ("-", "--", ":", "-.") * len(keys), strict=False):
                steps, values = series(run, key)
                if steps:
                    told = f"{_named(run, runs)}, {words(key.removeprefix('evaluate/'))}"
                    axis.plot(steps, [100 * v for v in values], style, color=colors[run.name], label=told)
        axis.set(xlabel="optimiser step", ylabel="[% of prompts]", ylim=(-2, 102))
        figure.legend(loc="outside upper left", ncols=2)
    return Drawn("while-training", "Evaluation while training", "A small named subset, judged by rules.", figure)


def _named(run: TrainedRun, runs: Sequence[TrainedRun]) -> str:
    """The run's name, with its seed where several bear it."""
    twins = sum(other.name == run.name for other in runs)
    return words(run.name if twins == 1 else f"{run.name} seed {run.seed}", 18)
