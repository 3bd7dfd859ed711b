"""matplotlib figures in the page's look: inlined as SVG that follows light and dark, or saved for papers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from bdpo.files import file_made_whole
from bdpo.terminal import visible

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
WIDTH = 5.2  # inches; at 390 px of screen its letters can still be read


@dataclass(frozen=True)
class Drawn:
    """A figure with what stands under it."""

    name: str  # of its file
    title: str
    caption: str
    figure: Figure

    @property
    def svg(self) -> str:
        """Inline SVG: its colours are the page's variables, its ids this figure's own."""
        with rc_context({**_STYLE, "svg.hashsalt": self.name}):
            sink = io.StringIO()
            self.figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
        text = sink.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        used = set(re.findall(r"[#](\w+)[\")]", text))
        text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
        text = re.sub("#[0-9a-f]{6}", lambda found: _variable(found[0]), text)
        label = escape(f"{visible(self.title)}. {visible(self.caption)}", quote=True)
        opening = f'<svg role="img" aria-label="{label}" '
        return opening + re.sub(r'\bwidth="[^"]*"', "", text.removeprefix("<svg "), count=1)

    def save(self, folder: Path) -> None:
        """Write it as SVG and PNG, for papers.

        Raises:
            NotWritable: what was there before is kept.
        """
        for kind in ("svg", "png"):
            with rc_context(_STYLE), file_made_whole(folder / f"{self.name}.{kind}") as path:
                self.figure.savefig(path, format=kind, dpi=200, transparent=False, facecolor="white")


@contextmanager
def axes(rows: int = 1, columns: int = 1, height: float = 3.0, **how: Any) -> Iterator[tuple[Figure, Any]]:
    """A figure in the page's look and its axes, to be drawn on."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height))
        yield figure, figure.subplots(rows, columns, **how)


def words(text: object, longest: int = 28) -> str:
    """Text from outside as a label: control characters spelt out, and not too long."""
    told = " ".join(visible(text).split())
    return told if len(told) <= longest else f"{told[: longest - 1]}…"


def color(place: int) -> str:
    """The colour of a series; after the last of `SERIES` they begin again behind the baseline's."""
    return SERIES[place if place < len(SERIES) else 1 + (place - 1) % (len(SERIES) - 1)]


def _variable(found: str) -> str:
    return f"var(--{VARIABLES[found]})" if found in VARIABLES else found
