"""What a row of the tables is: how a bad input is made, and what must be said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | list[Any] | dict[str, Any] | Callable[[Path], Any]


@dataclass(frozen=True)
class Bad:
    """A bad input."""

    command: str  # the words behind `bdpo`
    said: tuple[str, ...]  # what it is, where, and the mend: each stands in what is printed
    files: Mapping[str, Content] = field(default_factory=dict)
    code: int = 2  # 1: `data check` found errors
    leaves: str = ""  # what shows only after the work began leaves this file, from which the same command goes on


def bad(command: str, *said: str, code: int = 2, leaves: str = "", **files: Content) -> Bad:
    """A row of a table. Files are given by name, with `__` for the dot: `x__jsonl`; see `write`."""
    return Bad(command, said, {name.replace("__", "."): content for name, content in files.items()}, code, leaves)


def write(path: Path, content: Content) -> None:
    """Make one file: text and bytes as they are, a list as JSON lines, an object as JSON; else the function's work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, dict):
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


def pair(**changed: Any) -> dict[str, Any]:
    """A sound row, changed; a value of ... takes the column out."""
    row = {"id": "a", "prompt": [{"role": "user", "content": "Why?"}], "chosen": "So.", "rejected": "No."} | changed
    return {key: cell for key, cell in row.items() if cell is not ...}


def fifo(path: Path) -> None:
    os.mkfifo(path)
