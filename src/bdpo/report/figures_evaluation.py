"""Figures of an evaluation: safety against helpfulness, differences, verdicts, categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bdpo.evaluate.judges import COMPLIANCE, DEGENERATE, PARTIAL, REFUSAL, SAFE, SAFE_ANSWER, UNPARSED, UNSAFE
from bdpo.evaluate.results.statistics import Rate
from bdpo.report.drawing import GRID, INK, SERIES, Drawn, Mark, Told, axes, color, words
from bdpo.report.evaluated import OVER_REFUSAL, SAFETY, Category, Evaluated

_OF_LABEL = {
    REFUSAL: 1, SAFE: 1, PARTIAL: 7, SAFE_ANSWER: 3, COMPLIANCE: 2, UNSAFE: 2, DEGENERATE: 5, UNPARSED: 0,
}  # fmt: skip
_PALE = 10  # prompts below which a category is drawn pale
_MOST_CATEGORIES = 15
_KIND = {SAFETY: "harmful", OVER_REFUSAL: "harmless"}


def trade_off(found: Evaluated) -> Drawn | None:
    """Harmless prompts answered (x) against harmful ones refused (y).

    An arrow leads from the baseline to each method; where a method has several settings, a curve leads through them.
    """
    if not (found.tasks(SAFETY) and found.tasks(OVER_REFUSAL)):
        return None
    told = Told()
    with axes(height=3.6) as (figure, axis):
        means: dict[str, tuple[float, float]] = {}
        for place, (name, runs) in enumerate(found.methods.items()):
            shares = [(found.share(run, OVER_REFUSAL), found.share(run, SAFETY)) for run in runs]
            read = [(x, y) for x, y in shares if x is not None and y is not None]
            if read:
                means[name] = _point(axis, read, name, color(place), told)
        curves = _curves(list(means))
        for curve in curves:
            axis.plot(*zip(*(means[name] for name in curve), strict=True), "-", color=INK, lw=0.9, zorder=1)
        start, alone = means.get(found.baseline), means.keys() - {name for curve in curves for name in curve}
        for name, end in means.items():
            if start and name in alone and end != start:
                axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.9, "shrinkB": 5})
        axis.set(xlabel="harmless prompts answered [%]", ylabel="harmful prompts refused [%]",
                 xlim=(-2, 102), ylim=(-2, 102))  # fmt: skip
        told.legend(figure, 3)
    caption = (
        "Up is safer, right is more helpful; the upper right corner is best. Bars are 95 % intervals of each rate; "
        "small points are seeds; arrows lead from the baseline."
    )
    if curves:
        caption += " Lines lead through the settings of one method."
    head = ("method", "harmless prompts answered", "harmful prompts refused")
    return Drawn("trade-off", "Safety against helpfulness", caption, figure, told.marks, head, told.rows)


def _point(axis: Any, seeds: Sequence[tuple[Rate, Rate]], name: str, shade: str, told: Told) -> tuple[float, float]:
    """A method: the means over its seeds with their intervals, and a small point a seed."""
    x, y = sides = [[100 * np.mean([getattr(seed[of], end) for seed in seeds]) for end in ("value", "low", "high")]
                    for of in (0, 1)]  # fmt: skip
    reach = [[[max(0.0, middle - low)], [max(0.0, high - middle)]] for middle, low, high in sides]
    bars = axis.errorbar(x[0], y[0], xerr=reach[0], yerr=reach[1], fmt="o", ms=6, color=shade, lw=1.2,
                         **told.once(name))  # fmt: skip
    for part in bars.get_children():
        part.set_gid(told.gid(name))
    said = [f"{middle:.1f} % [{low:.1f}, {high:.1f}]" for middle, low, high in sides]
    told.rows.append((name, *said))
    several = f", {len(seeds)} seeds" if len(seeds) > 1 else ""
    told.marks.append(Mark(axis, x[0], y[0], f"{name}{several}: answers {said[0]}, refuses {said[1]}"))
    for place, seed in enumerate(seeds, start=1):
        if len(seeds) > 1:
            answers, refuses = (100 * side.value for side in seed)
            axis.plot(answers, refuses, ".", ms=4, color=shade, alpha=0.7, gid=told.gid(name))
            text = f"{name}, seed {place} of {len(seeds)}: answers {answers:.1f} %, refuses {refuses:.1f} %"
            told.marks.append(Mark(axis, answers, refuses, text))
    return float(x[0]), float(y[0])


def _curves(names: Sequence[str]) -> list[list[str]]:
    """Of each method with several settings, its settings, in their order.

    A setting stands behind the method's name as `bdpo sweep` writes it.

    >>> _curves(["base", "DPO", "B-DPO balance.temperature=0.5", "B-DPO balance.temperature=2"])
    [['B-DPO balance.temperature=0.5', 'B-DPO balance.temperature=2']]
    """
    of_method: dict[str, list[str]] = {}
    for name in names:
        of_method.setdefault(re.sub(r"( [\w.]+=\S+)+$", "", name), []).append(name)
    return [settings for settings in of_method.values() if len(settings) > 1]


def forest(found: Evaluated) -> Drawn | None:
    """Paired differences by benchmark with their intervals."""
    lines = found.differences()
    if not lines:
        return None
    told = Told()
    places = {name: place for place, name in enumerate(found.methods)}
    with axes(height=0.9 + 0.3 * len(lines)) as (figure, axis):
        for y, (row, name, cell) in enumerate(lines):
            d = cell.difference
            assert d is not None
            ends = [100 * end for end in (d.value, d.low, d.high)]
            axis.plot(ends[1:], [y, y], color=color(places[name]), lw=2)
            axis.plot(ends[0], y, "s", ms=5, color=color(places[name]))
            text = f"{row.name}, {name}: {ends[0]:+.1f} points [{ends[1]:+.1f}, {ends[2]:+.1f}]"
            if d.gained is not None:
                text += f", {d.gained} gained, {d.lost} lost"
            told.marks.append(Mark(axis, ends[0], y, text, f"difference-{y}"))
        axis.axvline(0, color=INK, lw=0.8)
        several = len(found.others) > 1
        axis.set_yticks(range(len(lines)), [
            words(f"{row.name}: {name}" if several else row.name, 32) for row, name, _ in lines
        ])  # fmt: skip
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_xlabel(f"difference to {words(found.baseline)} [points]")
    caption = "Paired on the same prompts, with 95 % intervals. Right of the line: more successes than the baseline."
    return Drawn("differences", "Differences by benchmark", caption, figure, told.marks)


def verdict_bars(found: Evaluated) -> Drawn | None:
    """What the replies do, as the judge says, of each method; and how long they are."""
    suites = [suite for suite in (SAFETY, OVER_REFUSAL) if found.tasks(suite)]
    if not suites:
        return None
    told, names = Told(), list(found.methods)
    with axes(len(suites) + 1, height=0.8 + (0.55 + 0.28 * len(names)) * (len(suites) + 1)) as (figure, all_axes):
        for axis, suite in zip(all_axes, suites, strict=False):
            for y, name in enumerate(names):
                left = 0.0
                for label, share in found.verdicts(name, suite).items():
                    end = left + 100 * share
                    axis.barh(y, end - left, left=left, color=SERIES[_OF_LABEL[label]], height=0.7, **told.once(label))
                    text = f"{name}, {_KIND[suite]} prompts: {label} {100 * share:.1f} %"
                    told.marks.append(Mark(axis, left, y - 0.35, text, corner=(end, y + 0.35)))
                    left = end
            axis.set(xlim=(0, 100), title=f"{_KIND[suite]} prompts: verdicts [% of replies]")
        lengths = [found.lengths(name) for name in names]
        all_axes[-1].boxplot(lengths, positions=range(len(names)), orientation="horizontal", showfliers=False,
                             widths=0.6, **{f"{part}props": {"color": INK} for part in ("box", "whisker", "cap")},
                             medianprops={"color": SERIES[2]})  # fmt: skip
        for y, (name, of_name) in enumerate(zip(names, lengths, strict=True)):
            low, middle, high = np.percentile(of_name, (25, 50, 75))
            text = f"{name}: half of the replies have {low:.0f} to {high:.0f} tokens, the median {middle:.0f}"
            told.marks.append(Mark(all_axes[-1], low, y - 0.3, text, corner=(high, y + 0.3)))
        all_axes[-1].set_title("length of the replies [tokens]")
        for axis in all_axes:
            axis.set_yticks(range(len(names)), [words(name, 18) for name in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
        told.legend(figure, 4)
    caption = "All replies of all seeds. Boxes hold the middle half of the lengths, whiskers reach 1.5 times as far."
    return Drawn("verdicts", "What the replies do", caption, figure, told.marks)


def by_category(found: Evaluated, categories: list[Category]) -> Drawn | None:
    """The rate of each method by category; pale where it rests on few prompts."""
    shown = sorted(categories, key=lambda category: -category.n)[: 2 * _MOST_CATEGORIES]
    shown = [category for suite in (SAFETY, OVER_REFUSAL) for category in shown if category.suite == suite]
    if not shown:
        return None
    told, places = Told(), {name: place for place, name in enumerate(found.methods)}
    with axes(height=1.0 + 0.24 * len(shown)) as (figure, axis):
        for y, category in enumerate(shown):
            values = [100 * rate.value for rate in category.rates.values()]
            axis.plot([min(values), max(values)], [y, y], color=GRID, lw=2, zorder=1)
            said = {name: f"{100 * r.value:.1f} % [{100 * r.low:.1f}, {100 * r.high:.1f}]"
                    for name, r in category.rates.items()}  # fmt: skip
            for name, rate in category.rates.items():
                axis.plot(100 * rate.value, y, "o", ms=5, color=color(places[name]),
                          alpha=0.35 if category.n < _PALE else 1.0, **told.once(name))  # fmt: skip
                text = f"{category.name}, {_KIND[category.suite]}, {name}: {said[name]}, n = {rate.n}"
                told.marks.append(Mark(axis, 100 * rate.value, y, text))
            told.rows.append((category.name, _KIND[category.suite], str(category.n),
                              *(said.get(name, "") for name in found.methods)))  # fmt: skip
        axis.set_yticks(range(len(shown)), [
            f"{words(category.name, 24)}, {_KIND[category.suite]} (n={category.n})" for category in shown
        ])  # fmt: skip
        axis.set(xlim=(-3, 103), ylim=(len(shown) - 0.5, -0.5), xlabel="successes [% of prompts]")
        told.legend(figure, 3)
    caption = (
        "Successes: harmful prompts refused, harmless ones answered; first seed of each method. Pale: below "
        f"{_PALE} prompts."
    )
    head = ("category", "prompts", "n", *found.methods)
    return Drawn("categories", "By category", caption, figure, told.marks, head, told.rows)
