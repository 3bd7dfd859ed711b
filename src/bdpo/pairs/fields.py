"""Values out of one row: each function takes a row and a column name, and gives a checked value.

A fault is a BdpoError that names the column and the mend; the caller adds the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from bdpo.errors import BdpoError
from bdpo.pairs.reasoning import reasoning_of, with_reasoning
from bdpo.pairs.record import Message

Row = Mapping[str, Any]

ROLES = ("system", "user", "assistant")


def require(row: Row, *columns: str) -> None:
    """BdpoError where the row has not all of these columns."""
    missing = [column for column in columns if column not in row]
    if missing:
        present = ", ".join(f"'{column}'" for column in row) or "none"
        raise BdpoError(f"no column '{missing[0]}' (the columns are {present}): add it, or rename the one meant.")


def value(row: Row, column: str) -> Any:
    """The cell in `column`; BdpoError where the column is missing or the cell is null."""
    require(row, column)
    if row[column] is None:
        raise BdpoError(f"'{column}' is null: fill it in, or take the row out.")
    return row[column]


def text(row: Row, column: str) -> str:
    """A cell that must be text, which may be empty."""
    return _text(value(row, column), f"'{column}'")


def optional_text(row: Row, column: str) -> str:
    """Text, "" where there is none; an integer (as row ids often are) is taken as its digits."""
    cell = row.get(column)
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return "" if cell is None else _text(cell, f"'{column}'")


def flag(row: Row, column: str) -> bool | None:
    """True, False, or None for not labelled; "true" and "false" (CSV) and 1 and 0 count too."""
    cell = row.get(column)
    known = {"": None, "none": None, "true": True, "1": True, "false": False, "0": False}
    key = str("" if cell is None else cell).strip().lower()
    if key not in known:
        raise BdpoError(f"'{column}' is {cell!r}: write true, false or null.")
    return known[key]


def names(row: Row, column: str) -> tuple[str, ...]:
    """A list of names, or one name alone, or nothing."""
    cell = _from_json(row.get(column), lambda parsed: isinstance(parsed, list))
    if cell is None or cell == "":
        return ()
    cells = [cell] if isinstance(cell, str) else cell
    if not isinstance(cells, list | tuple):
        raise BdpoError(f"'{column}' is {type(cell).__name__}: write text or a list of texts.")
    return tuple(_text(name, f"an entry of '{column}'") for name in cells)


def true_names(row: Row, column: str) -> tuple[str, ...]:
    """The keys that are true in a cell that maps names to booleans; () where the column is missing."""
    cell = _from_json(row.get(column), lambda parsed: isinstance(parsed, dict))
    if cell is None or cell == "":
        return ()
    if not isinstance(cell, Mapping):
        raise BdpoError(f"'{column}' is {type(cell).__name__}: it must map each category to true or false.")
    return tuple(str(name) for name, holds in cell.items() if holds)


def conversation_or_text(row: Row, column: str) -> tuple[Message, ...] | str:
    """Messages where the cell is a list of them (or the JSON text of one, as in CSV), else the text."""
    cell = _from_json(value(row, column), _is_messages)
    if isinstance(cell, list | tuple):
        return _messages(cell, f"'{column}'")
    if isinstance(cell, str) and cell.startswith("[{'role'"):
        raise BdpoError(f"'{column}' is a list of messages in Python's notation: write it with json.dumps.")
    return _text(cell, f"'{column}'")


def _messages(cells: list[Any] | tuple[Any, ...], where: str) -> tuple[Message, ...]:
    """Role and content of each message, an assistant's reasoning in its content (see `reasoning`).

    Other keys (weights, time stamps) are no part of the text.
    """
    if not cells:
        raise BdpoError(f"{where} is an empty list: it needs at least one message.")
    messages = []
    for number, cell in enumerate(cells, start=1):
        place = f"message {number} of {where}"
        if not isinstance(cell, Mapping) or cell.get("role") not in ROLES:
            raise BdpoError(f"{place} needs a role of {', '.join(ROLES)}, and has {_short(cell)}.")
        content = _text(cell.get("content"), f"the content of {place}")
        if cell["role"] == "assistant":
            content = with_reasoning(_reasoning(cell, place), content)
        messages.append({"role": cell["role"], "content": content})
    return tuple(messages)


def _reasoning(cell: Mapping[str, Any], place: str) -> str | None:
    reasoning = reasoning_of(cell)
    return None if reasoning is None else _text(reasoning, f"the reasoning of {place}").strip("\n")


def _text(cell: Any, where: str) -> str:
    if not isinstance(cell, str):
        raise BdpoError(f"{where} is {type(cell).__name__}, and must be text.")
    try:
        cell.encode()
    except UnicodeEncodeError:  # JSON can smuggle in "\ud83d", which no tokenizer and no file can take
        raise BdpoError(f"{where} holds half a character (a lone surrogate): export the text again.") from None
    return cell


def _from_json(cell: Any, accept: Callable[[Any], bool]) -> Any:
    """The cell, or what it says as JSON where `accept` takes that: CSV has no other way to hold a list.

    Anything else stays the text it is, since a reply may well begin with a bracket.
    """
    if not isinstance(cell, str) or not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        parsed = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return parsed if accept(parsed) else cell


def _is_messages(parsed: Any) -> bool:
    return isinstance(parsed, list) and bool(parsed) and all(isinstance(m, dict) and "role" in m for m in parsed)


def _short(cell: Any) -> str:
    shown = repr(cell.get("role")) if isinstance(cell, Mapping) else repr(cell)
    return shown if len(shown) <= 40 else shown[:37] + "..."
