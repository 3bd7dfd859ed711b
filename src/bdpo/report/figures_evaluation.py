"""Figures of an evaluation: safety against helpfulness, differences, verdicts, categories."""

from __future__ import annotations

from bdpo.evaluate.judges import COMPLIANCE, DEGENERATE, PARTIAL, REFUSAL, SAFE, UNPARSED, UNSAFE
from bdpo.report.drawing import GRID, INK, SERIES, Drawn, axes, color, words
from bdpo.report.evaluated import OVER_REFUSAL, SAFETY, Category, Evaluated

_OF_LABEL = {REFUSAL: 1, SAFE: 1, PARTIAL: 7, COMPLIANCE: 2, UNSAFE: 2, DEGENERATE: 5, UNPARSED: 0}
_PALE = 10  # prompts below which a category is drawn pale
_MOST_CATEGORIES = 15


def trade_off(found: Evaluated) -> Drawn | None:
    """Harmless prompts answered (x) against harmful ones refused (y), with an arrow from the baseline to each."""
    if not (found.tasks(SAFETY) and found.tasks(OVER_REFUSAL)):
        return None
    with axes(height=3.6) as (figure, axis):
        means = {}
        for place, (name, runs) in enumerate(found.methods.items()):
            shares = [(found.share(run, OVER_REFUSAL), found.share(run, SAFETY)) for run in runs]
            read = [(x, y) for x, y in shares if x is not None and y is not None]
            if not read:
                continue
            x, y = (100 * sum(side.value for side in sides) / len(read) for sides in zip(*read, strict=True))
            means[name] = x, y
            if len(read) > 1:
                axis.plot(*zip(*((100 * a.value, 100 * b.value) for a, b in read), strict=True), ".", ms=4,
                          color=color(place), alpha=0.7)  # fmt: skip
            reach = [
                [[max(0.0, middle - 100 * sum(side.low for side in sides) / len(read))],
                 [max(0.0, 100 * sum(side.high for side in sides) / len(read) - middle)]]
                for middle, sides in zip((x, y), zip(*read, strict=True), strict=True)
            ]  # fmt: skip
            axis.errorbar(x, y, xerr=reach[0], yerr=reach[1], fmt="o", ms=6, color=color(place), lw=1.2,
                          label=words(name))  # fmt: skip
        start = means.get(found.baseline)
        for name, end in means.items():
            if start and name != found.baseline and end != start:
                axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "lw": 0.9, "shrinkB": 5})
        axis.set(xlabel="harmless prompts answered [%]", ylabel="harmful prompts refused [%]",
                 xlim=(-2, 102), ylim=(-2, 102))  # fmt: skip
        figure.legend(loc="outside upper left", ncols=3)
    caption = (
        "Up is safer, right is more helpful; the upper right corner is best. Bars are 95 % intervals of each rate; "
        "small points are seeds; arrows lead from the baseline."
    )
    return Drawn("trade-off", "Safety against helpfulness", caption, figure)


def forest(found: Evaluated) -> Drawn | None:
    """Paired differences by benchmark with their intervals."""
    lines = [
        (row.name, name, cell)
        for row in found.comparison.rows
        if row.kind == "benchmark"
        for name, cell in row.cells.items()
        if cell.difference is not None
    ]
    if not lines:
        return None
    places = {name: place for place, name in enumerate(found.methods)}
    with axes(height=0.9 + 0.3 * len(lines)) as (figure, axis):
        for y, (_, name, cell) in enumerate(lines):
            d = cell.difference
            assert d is not None
            axis.plot([100 * d.low, 100 * d.high], [y, y], color=color(places[name]), lw=2)
            axis.plot(100 * d.value, y, "s", ms=5, color=color(places[name]))
        axis.axvline(0, color=INK, lw=0.8)
        several = len(found.others) > 1
        axis.set_yticks(range(len(lines)), [
            words(f"{task}: {name}" if several else task, 32) for task, name, _ in lines
        ])  # fmt: skip
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_xlabel(f"difference to {words(found.baseline)} [points]")
    caption = "Paired on the same prompts, with 95 % intervals. Right of the line: more successes than the baseline."
    return Drawn("differences", "Differences by benchmark", caption, figure)


def verdict_bars(found: Evaluated) -> Drawn | None:
    """What the replies do, as the judge says, of each method; and how long they are."""
    suites = [suite for suite in (SAFETY, OVER_REFUSAL) if found.tasks(suite)]
    if not suites:
        return None
    names = list(found.methods)
    with axes(len(suites) + 1, height=0.8 + (0.55 + 0.28 * len(names)) * (len(suites) + 1)) as (figure, all_axes):
        shown: dict[str, None] = {}
        for axis, suite in zip(all_axes, suites, strict=False):
            for y, name in enumerate(names):
                left = 0.0
                for label, share in found.verdicts(name, suite).items():
                    handle = {} if label in shown else {"label": label}
                    shown[label] = None
                    axis.barh(y, 100 * share, left=left, color=SERIES[_OF_LABEL[label]], height=0.7, **handle)
                    left += 100 * share
            kind = "harmful prompts" if suite == SAFETY else "harmless prompts"
            axis.set(xlim=(0, 100), title=f"{kind}: verdicts [% of replies]")
        lengths = [[outcome.tokens for outcome in found.said(name)] or [0] for name in names]
        all_axes[-1].boxplot(lengths, positions=range(len(names)), orientation="horizontal", showfliers=False,
                             widths=0.6, **{f"{part}props": {"color": INK} for part in ("box", "whisker", "cap")},
                             medianprops={"color": SERIES[2]})  # fmt: skip
        all_axes[-1].set_title("length of the replies [tokens]")
        for axis in all_axes:
            axis.set_yticks(range(len(names)), [words(name, 18) for name in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
        figure.legend(loc="outside upper left", ncols=4)
    caption = "All replies of all seeds. Boxes hold the middle half of the lengths, whiskers reach 1.5 times as far."
    return Drawn("verdicts", "What the replies do", caption, figure)


def by_category(found: Evaluated, categories: list[Category]) -> Drawn | None:
    """The rate of each method by category; pale where it rests on few prompts."""
    shown = sorted(categories, key=lambda category: -category.n)[: 2 * _MOST_CATEGORIES]
    shown = [category for suite in (SAFETY, OVER_REFUSAL) for category in shown if category.suite == suite]
    if not shown:
        return None
    places = {name: place for place, name in enumerate(found.methods)}
    with axes(height=1.0 + 0.24 * len(shown)) as (figure, axis):
        told = set[str]()
        for y, category in enumerate(shown):
            values = [100 * rate.value for rate in category.rates.values()]
            axis.plot([min(values), max(values)], [y, y], color=GRID, lw=2, zorder=1)
            for name, rate in category.rates.items():
                label = {} if name in told else {"label": words(name)}
                told.add(name)
                axis.plot(100 * rate.value, y, "o", ms=5, color=color(places[name]),
                          alpha=0.35 if category.n < _PALE else 1.0, **label)  # fmt: skip
        axis.set_yticks(range(len(shown)), [
            f"{words(category.name, 24)}, {'harmful' if category.suite == SAFETY else 'harmless'} (n={category.n})"
            for category in shown
        ])  # fmt: skip
        axis.set(xlim=(-3, 103), ylim=(len(shown) - 0.5, -0.5), xlabel="successes [% of prompts]")
        figure.legend(loc="outside upper left", ncols=3)
    caption = (
        "Successes: harmful prompts refused, harmless ones answered; first seed of each method. Pale: below "
        f"{_PALE} prompts."
    )
    return Drawn("categories", "By category", caption, figure)
