"""Values out of one row: each function takes a row and a column name, and gives a checked value.

A fault is a BdpoError that names the column and the mend; the caller adds the file and the line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bdpo.errors import BdpoError
from bdpo.pairs.reasoning import reasoning_of, with_reasoning
from bdpo.pairs.record import Message

Row = Mapping[str, Any]

ROLES = ("system", "user", "assistant")

_SPEAKERS = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "ai": "assistant", "developer": "system",
}  # fmt: skip
"""What ShareGPT, Gemma, OpenAI and others call the speakers."""


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
    """Messages where the cell is a list of them, or one message alone (or the JSON text of that, as in CSV), else
    the text. A message has `role` and `content`, or ShareGPT's `from` and `value`."""
    cell = _from_json(value(row, column), _is_conversation)
    if _is_message(cell):
        cell = [cell]
    if isinstance(cell, list | tuple):
        return _messages(cell, f"'{column}'")
    if isinstance(cell, str) and cell.startswith("[{'role'"):
        raise BdpoError(f"'{column}' is a list of messages in Python's notation: write it with json.dumps.")
    return _text(cell, f"'{column}'")


def holds_messages(cell: Any) -> bool:
    """Whether a cell is a list of messages (or the JSON text of one), whoever speaks in them."""
    cell = _from_json(cell, _is_conversation)
    return isinstance(cell, list | tuple) and len(cell) > 0 and all(map(_has_speaker, cell))


def exchanges(row: Row, column: str) -> tuple[Message, ...]:
    """Earlier turns as LLaMA-Factory's `history` writes them, a list of [asked, answered], or as messages; () where
    there are none."""
    cell = _from_json(row.get(column), lambda parsed: isinstance(parsed, list))
    if holds_messages(cell):
        return _messages(cell, f"'{column}'")
    turns: list[Message] = []
    for pair in () if cell is None or cell == "" else cell:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BdpoError(f"'{column}' holds {_short(pair)}: each entry is a list of two texts, asked and answered.")
        said = (_text(text, f"an entry of '{column}'") for text in pair)
        turns += ({"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True))
    return tuple(turns)


def is_one_message(cell: Any) -> bool:
    """Whether a cell is a message, or a list of one (or the JSON text of that)."""
    cell = _from_json(cell, _is_conversation)
    return _is_message(cell) or (isinstance(cell, list | tuple) and len(cell) == 1)


NOT_TEXT = ("image", "images", "video", "videos", "audio", "audios", "tools", "tool_calls", "function_call")
"""Columns, and keys of a message, for what belongs to a conversation beside its text (TRL, OpenAI, LLaMA-Factory)."""


def beside_text(row: Row, columns: Iterable[str]) -> str | None:
    """The first column, or key of a message in one of `columns`, that holds images, tools or the like; None: none."""
    said = (_from_json(row.get(column), _is_conversation) for column in columns)
    messages = (cell for cells in said for cell in (cells if isinstance(cells, list | tuple) else [cells]))
    holders = (row, *(cell for cell in messages if isinstance(cell, Mapping)))
    return next((key for holder in holders for key in NOT_TEXT if holder.get(key) not in _NOTHING), None)


_NOTHING: tuple[Any, ...] = (None, "", "[]", "null", [], {}, ())


def texts_in(cell: Any) -> list[str]:
    """Every text that a cell says, at any depth, without the names of the speakers."""
    cell = _from_json(cell, lambda parsed: isinstance(parsed, list | dict))
    if isinstance(cell, str):
        return [cell] if cell.strip() else []
    if isinstance(cell, Mapping):
        return [text for key, part in cell.items() if key not in ("role", "from") for text in texts_in(part)]
    return [text for part in cell for text in texts_in(part)] if isinstance(cell, list | tuple) else []


def is_plain_text(cell: Any) -> bool:
    """Whether a cell is text that does not stand for messages."""
    return isinstance(cell, str) and not cell.startswith("[{") and isinstance(_from_json(cell, _is_conversation), str)


def _messages(cells: list[Any] | tuple[Any, ...], where: str) -> tuple[Message, ...]:
    """Role and content of each message, an assistant's reasoning in its content (see `reasoning`).

    Other keys (weights, time stamps) are no part of the text.
    """
    if not cells:
        raise BdpoError(f"{where} is an empty list: it needs at least one message.")
    messages = []
    for number, cell in enumerate(cells, start=1):
        place = f"message {number} of {where}"
        role, content = _said(cell)
        if role not in ROLES:
            raise BdpoError(f"{place} needs a role of {', '.join(ROLES)}, and has {_short(cell)}.")
        content = _text(content, f"the content of {place}")
        if role == "assistant":
            content = with_reasoning(_reasoning(cell, place), content)
        messages.append({"role": role, "content": content})
    return tuple(messages)


def _reasoning(cell: Mapping[str, Any], place: str) -> str | None:
    reasoning = reasoning_of(cell)
    return None if reasoning is None else _text(reasoning, f"the reasoning of {place}").strip("\n")


def _said(cell: Any) -> tuple[Any, Any]:
    """Role and content of a message as it stands there, in either notation."""
    if not isinstance(cell, Mapping):
        return None, None
    speaker = cell.get("from") if cell.get("role") is None else cell["role"]
    content = cell.get("value") if cell.get("content") is None else cell["content"]
    known = str(speaker).lower()
    return _SPEAKERS.get(known, known if known in ROLES else speaker), content


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


def _is_message(cell: Any) -> bool:
    return _has_speaker(cell) and not cell.keys().isdisjoint({"content", "value"})


def _is_conversation(parsed: Any) -> bool:
    """Whether JSON text stands for messages; a reply may be JSON itself, so one message alone must name a role."""
    if _is_message(parsed):
        return _said(parsed)[0] in ROLES
    return isinstance(parsed, list) and bool(parsed) and all(map(_has_speaker, parsed))


def _has_speaker(cell: Any) -> bool:
    return isinstance(cell, Mapping) and not cell.keys().isdisjoint({"role", "from"})


def _short(cell: Any) -> str:
    shown = repr(cell.get("role") or cell.get("from")) if isinstance(cell, Mapping) else repr(cell)
    return shown if len(shown) <= 40 else shown[:37] + "..."
