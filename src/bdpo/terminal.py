"""What goes to a terminal: text from outside commands nothing, and a reader that leaves stops nothing; signs of life.

Whatever was not written in this package (data, ids, file names, a model's replies, a server's answers) goes through
`visible` or `plain`, since a terminal obeys escape sequences, and rich reads square brackets and colons as markup.
"""

from __future__ import annotations

import io
import math
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text
    from tqdm import tqdm

Item = TypeVar("Item")

# C0 but for tab and line break, DEL, C1; marks that turn the direction of writing; halves of characters
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: object) -> str:
    r"""The text with control characters spelt out.

    >>> print(visible("plain [/x] \x1b[31mred"))
    plain [/x] \x1b[31mred
    """
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def plain(text: object, style: str = "") -> Text:
    """The text for rich, which then reads no markup in it: also titles, headings and cells of tables."""
    from rich.text import Text

    return Text(visible(text), style=style)


def say(console: Console, text: object, style: str = "") -> None:
    """Print the text as it is, without breaking its lines."""
    console.print(plain(text, style), soft_wrap=True)


class _Outlasting(io.FileIO):
    """A file that takes what it is given when nobody reads any more (`bdpo train ... | head`)."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def steady_streams() -> None:
    """Let standard output and error go on where their reader left, and spell out what their encoding does not have.

    Streams that someone else has put in their place are left alone.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__") or os.name != "posix":
            continue
        raw = io.BufferedWriter(_Outlasting(stream.fileno(), "w", closefd=False))
        lines = stream.line_buffering or stream.write_through
        setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=lines))


# --- signs of life: on standard error, one at a time ---------------------------------------------------------------
_APART = 60.0  # seconds between two lines about the same stage
LINE = 120  # columns of a line that nobody folds: in a log file


def reading(what: object, *, torch: bool = True) -> None:
    """The first line of a command: what it reads, and that torch and transformers are loaded, which takes seconds.

    Of several processes only the first one says it.
    """
    if os.environ.get("RANK", "0") == "0":
        also = ", loading torch and transformers" if torch else ""
        print(visible(f"Reading {what}{also} ..."), file=sys.stderr, flush=True)


class LiveLine:
    """One line of a terminal that is written anew. A bar that begins takes its place, until it is written again."""

    _shown: ClassVar[LiveLine | None] = None

    def __init__(self) -> None:
        self._live: Live | None = None

    @staticmethod
    def possible() -> bool:
        """Whether standard error is a terminal in which a line can be written anew."""
        return is_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")

    def show(self, forms: Sequence[str]) -> None:
        """Write the first of these forms of one line, from the longest to the shortest, that has room."""
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            self.pause()
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
            LiveLine._shown = self
        text = plain(fitting(forms, self._live.console.width))
        text.no_wrap, text.overflow = True, "ellipsis"
        self._live.update(text, refresh=True)

    def close(self) -> None:
        """Take the line off the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = LiveLine._shown = None

    @staticmethod
    def pause() -> None:
        """Make room for something else."""
        if LiveLine._shown is not None:
            LiveLine._shown.close()


def bar(
    what: str, total: int, unit: str, *, after: float = 0.0, leave: bool = True, apart: float = _APART
) -> tqdm[Any]:
    """The bar of a stage, named, with an estimate; in a log file a line when it begins, each minute, and when it ends.

    Of several processes only the first one shows it.

    Args:
        unit: of `total`.
        after: seconds in which the stage may end without a word.
        leave: whether it stays when the stage is done.
        apart: seconds between two lines in a log file.
    """
    from tqdm import tqdm

    LiveLine.pause()
    how: dict[str, Any] = {} if os.environ.get("RANK", "0") == "0" else {"disable": True}
    if is_terminal():
        how |= {"dynamic_ncols": True}
    else:
        line = "{desc}: {percentage:.0f}% of {total_fmt} {unit}, {elapsed} gone, {remaining} left{postfix}"
        how |= {"file": _Lines(apart), "bar_format": line, "mininterval": 1.0}
    return tqdm(desc=what, total=total, unit=unit, delay=after, leave=leave, **how)


def each(items: Collection[Item], what: str, unit: str) -> Iterator[Item]:
    """The items, with a bar where going through them takes more than a second."""
    with bar(what, len(items), unit, after=1.0, leave=False) as progress:
        for item in items:
            yield item
            progress.update()


@contextmanager
def no_library_bars() -> Iterator[None]:
    """Without the bars that transformers draws of weights which it reads or writes; not for what may download them."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Lines:
    """What a bar writes its states to where no line can be written anew: few of them pass, and the last one does."""

    def __init__(self, apart: float) -> None:
        self.apart, self.state, self.passed = apart, "", -math.inf

    def write(self, text: str) -> None:
        self.state = text.strip("\r\n ") or self.state
        if self.state and (text == "\n" or time.monotonic() - self.passed >= self.apart):
            print(visible(self.state), file=sys.stderr)
            self.state, self.passed = "", time.monotonic()

    def flush(self) -> None:
        pass


def is_terminal() -> bool:
    """Whether somebody looks at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def fitting(forms: Sequence[str], width: int) -> str:
    """The first form that has room in so many columns, else the last.

    >>> fitting(["learning rate 3e-04", "lr 3e-04"], 10)
    'lr 3e-04'
    """
    return next((form for form in forms if len(form) <= width), forms[-1])


def duration(seconds: float) -> str:
    """A span of time in words.

    >>> duration(41.2), duration(170), duration(6000)
    ('41 s', '3 min', '1 h 40 min')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
