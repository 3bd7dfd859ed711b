"""matplotlib figures in the page's look: inlined as SVG that follows light and dark, or saved for papers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdpo.files import file_made_whole
from bdpo.terminal import visible

if TYPE_CHECKING:  # matplotlib is loaded when something is drawn
    from matplotlib.figure import Figure

INK, GRID, SHADE = "#1b1f24", "#d8dadd", "#e9ecf0"
SERIES = ("#6b7078", "#1f62b4", "#c05a00", "#1d7a52", "#8a3fa0", "#a8324a", "#4d6a00", "#00707c")
"""The baseline's colour, then the methods'; each reaches 4.5:1 on white. The page has a lighter one for dark."""
VARIABLES = {INK: "ink", GRID: "grid", SHADE: "shade"} | {color: f"c{i}" for i, color in enumerate(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.size": 9,
    "axes.edgecolor": GRID, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True, "savefig.transparent": True,
}  # fmt: skip
WIDTH = 4.7  # inches; at 390 px of screen its letters can still be read
_SVG_DPI = 72  # of matplotlib's SVG: places in the figure are asked for at the resolution that it was laid out for
_LABEL, _ACROSS = 32, 68  # characters of a label of the legend, and of all that stand side by side
_MOST_ON_A_LINE = 100  # places of a curve that tell their value


@dataclass(frozen=True)
class Mark:
    """A place of a figure that tells what it is, under the pointer or by the keyboard."""

    axes: Any
    x: float
    y: float
    told: str
    to: str = ""  # id of what holds more of it on the page
    corner: tuple[float, float] | None = None  # the opposite one, of a bar


@dataclass
class Told:
    """What a figure says beside its lines, gathered while it is drawn: its marks, and a row of numbers a line."""

    marks: list[Mark] = field(default_factory=list)
    rows: list[tuple[str, ...]] = field(default_factory=list)
    series: dict[str, int] = field(default_factory=dict)  # name -> number of the series

    def gid(self, name: str) -> str:
        """By what the lines of a series are found in the SVG, to show it alone."""
        return f"s{self.series.setdefault(name, len(self.series))}"

    def once(self, name: str) -> dict[str, str]:
        """The keywords of a line that belongs to a series; the legend names it once."""
        return {"gid": self.gid(name)} if name in self.series else {"gid": self.gid(name), "label": words(name, _LABEL)}

    def legend(self, figure: Figure, columns: int) -> None:
        """The legend of all series, where there are some, in as many columns as have room; the figure grows with it."""
        if self.series:
            longest = max(len(words(name, _LABEL)) for name in self.series)
            columns = max(1, min(columns, _ACROSS // (longest + 8)))
            rows = -(-len(self.series) // columns)
            figure.set_figheight(figure.get_figheight() + 0.17 * max(0, rows - 2))
            figure.legend(loc="outside upper left", ncols=columns)

    def line(
        self,
        axes: Any,
        steps: Sequence[float],
        values: Sequence[float],
        style: str,
        name: str,
        who: str = "",
        **how: Any,
    ) -> None:
        """Draw a curve over steps, with its marks and its numbers; nothing where there are no values.

        Args:
            name: of the series in the legend.
            who: what marks and numbers call it, where the series has several lines.
        """
        if not steps:
            return
        who = who or name
        axes.plot(steps, values, style, **self.once(name), **how)
        apart = -(-len(steps) // _MOST_ON_A_LINE)
        for place in sorted({*range(0, len(steps), apart), len(steps) - 1}):
            step, value = steps[place], values[place]
            self.marks.append(Mark(axes, step, value, f"{who}, step {step:g}: {value:.4g}"))
        self.rows.append((who, *(f"{value:.4g}" for value in (values[0], values[-1], min(values), max(values)))))


OF_LINES = ("curve", "first", "last", "lowest", "highest")
"""The head of `Told.rows` as `Told.line` fills them."""


@dataclass(frozen=True)
class Spot:
    """A mark, or an entry of the legend, as the page lays it over the SVG."""

    told: str
    to: str
    style: str  # place, and size of what is no point, in per cent of the figure
    kind: str  # classes: point or bar, and to which side there is room to tell it
    series: int | None = None  # of a legend's entry


@dataclass(frozen=True)
class Shown:
    """A figure as the page holds it."""

    drawn: Drawn
    svg: str
    marks: list[Spot]
    keys: list[Spot]


@dataclass(frozen=True)
class Drawn:
    """A figure with what stands under it."""

    name: str  # of its file
    title: str
    caption: str
    figure: Figure
    marks: Sequence[Mark] = ()
    head: Sequence[str] = ()  # of the figure in numbers
    rows: Sequence[Sequence[str]] = ()

    def shown(self) -> Shown:
        """The figure for the page."""
        svg = self._svg()  # also lays it out
        return Shown(self, svg, [_spot(mark) for mark in self.marks], list(self._keys()))

    def _svg(self) -> str:
        """Inline SVG: its colours are the page's variables, its ids this figure's own, its series classes."""
        from matplotlib import rc_context

        with rc_context({**_STYLE, "svg.hashsalt": self.name}):
            sink = io.StringIO()
            self.figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
        text = sink.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r' id="(s\d+)"', r' class="series \1"', text)
        used = set(re.findall(r"[#](\w+)[\")]", text))
        text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
        text = re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), text)
        label = escape(f"{visible(self.title)}. {visible(self.caption)}", quote=True)
        opening = f'<svg role="img" aria-label="{label}" '
        return opening + re.sub(r'\bwidth="[^"]*"', "", text.removeprefix("<svg "), count=1)

    def _keys(self) -> Iterator[Spot]:
        """The entries of the legend whose series can be shown alone."""
        handles: list[Any] = [handle for axis in self.figure.axes for handle in axis.get_legend_handles_labels()[0]]
        artists: list[Any] = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
        for legend in self.figure.legends:
            for text, artist in zip(legend.get_texts(), artists, strict=True):
                if artist.get_gid() and len(artists) > 1:
                    box = text.get_window_extent()
                    reach = 3 * box.height  # the sample of the line, left of the text
                    ends = [(box.x0 - reach, box.y0), (box.x1, box.y1)]
                    place = _placed(self.figure, ends, sized=True)
                    yield Spot(text.get_text(), "", place, "", int(artist.get_gid()[1:]))

    def save(self, folder: Path, kinds: Sequence[str] = ("svg", "png")) -> None:
        """Write it in white, for papers: the same figure gives the same bytes.

        Raises:
            NotWritable: what was there before is kept.
        """
        from matplotlib import rc_context

        for kind in kinds:
            undated: dict[str, Any] = {"metadata": {"Date": None}} if kind == "svg" else {}
            style = {**_STYLE, "svg.hashsalt": self.name}
            with rc_context(style), file_made_whole(folder / f"{self.name}.{kind}") as path:
                self.figure.savefig(path, format=kind, dpi=200, transparent=False, facecolor="white", **undated)


@contextmanager
def axes(rows: int = 1, columns: int = 1, height: float = 3.0, **how: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure in the page's look and its axes, to be drawn on."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=_SVG_DPI)
        yield figure, figure.subplots(rows, columns, **how)


def words(text: object, longest: int = 28) -> str:
    """Text from outside as a label: control characters spelt out, and not too long. A setting loses its section.

    >>> words("B-DPO balance.temperature=0.5"), words("one that is too long to be read", 15)
    ('B-DPO temperature=0.5', 'one tha…be read')
    """
    told = re.sub(r"\b[a-z_]+\.(?=\w+=)", "", " ".join(visible(text).split()))
    tail = (longest - 1) // 2
    return told if len(told) <= longest else f"{told[: longest - 1 - tail]}…{told[-tail:]}"


def color(place: int) -> str:
    """The colour of a series; after the last of `SERIES` they begin again behind the baseline's."""
    return SERIES[place if place < len(SERIES) else 1 + (place - 1) % (len(SERIES) - 1)]


def _spot(mark: Mark) -> Spot:
    ends = mark.axes.transData.transform([(mark.x, mark.y), mark.corner or (mark.x, mark.y)])
    figure = mark.axes.figure
    x, y = ends.mean(axis=0) / (figure.bbox.width, figure.bbox.height)
    sides = "point" if mark.corner is None else "bar", "left" if x > 0.5 else "right", "above" if y < 0.5 else "below"
    place = _placed(figure, ends.tolist(), sized=mark.corner is not None)
    return Spot(mark.told, mark.to, place, " ".join(sides))


def _placed(figure: Figure, ends: Sequence[Sequence[float]], sized: bool) -> str:
    """CSS of a place in a figure, given in its pixels from the lower left."""
    xs, ys = ([end[of] / size for end in ends] for of, size in enumerate((figure.bbox.width, figure.bbox.height)))
    style = f"left:{100 * min(xs):.2f}%;top:{100 * (1 - max(ys)):.2f}%"
    if not sized:
        return style
    return f"{style};width:{100 * (max(xs) - min(xs)):.2f}%;height:{100 * (max(ys) - min(ys)):.2f}%"


def _variable(found: str) -> str:
    return f"var(--{VARIABLES[found]})" if found in VARIABLES else found
