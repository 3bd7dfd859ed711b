"""What goes to a terminal: text from outside commands nothing, and a reader that leaves stops nothing.

Whatever was not written in this package (data, ids, file names, a model's replies, a server's answers) goes through
`visible` or `plain`, since a terminal obeys escape sequences, and rich reads square brackets and colons as markup.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

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
