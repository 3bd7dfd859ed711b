"""Columns of other names: the mapping that a user gives, and prompts that no reader would read.

A data set may keep its prompt, or a part of it, in a column that its format does not know. Left unread, the pairs
would be about something else and nothing would say so; so such a row is refused, with the mapping that reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bdpo.errors import BdpoError, nearest
from bdpo.pairs import fields
from bdpo.pairs.fields import Row
from bdpo.pairs.formats import FORMATS, Format

_SPOKEN = (
    "prompt", "question", "query", "instruction", "instructions", "input", "inputs", "problem", "request", "user",
    "human", "userprompt", "userquery", "usermessage", "userinput", "humanprompt", "inputtext", "prompttext", "context",
    "history", "conversation", "conversations", "messages", "dialogue", "dialog", "turns", "trajectory",
    "originalprompt", "fullprompt",
)  # fmt: skip
_COLUMNS = {  # ours -> names that others give it, in letters alone
    "system": ("system", "systemprompt", "systemmessage", "systeminstruction", "systemcontent"),
    "prompt": _SPOKEN,
    "chosen": ("chosen", "chosenresponse", "chosenanswer", "preferred", "preferredresponse", "preferredoutput",
               "accepted", "responsechosen", "answerchosen", "betterresponse", "win", "winner", "positive"),
    "rejected": ("rejected", "rejectedresponse", "rejectedanswer", "dispreferred", "dispreferredresponse",
                 "nonpreferredoutput", "nonpreferred", "responserejected", "answerrejected", "worseresponse", "lose",
                 "loser", "negative"),
}  # fmt: skip
_OURS = {name: ours for ours, names in _COLUMNS.items() for name in names}

_IDS = {"user", "human", "request"}
"""Names that beside a prompt are as often an id as a text."""

_NAME_THE_PROMPT = {column for format in FORMATS.values() for column in format.prompt}
"""Columns of ours by which a mapping says where the prompt stands, so that no other is taken for a part of it."""


def check_mapping(columns: Mapping[str, str]) -> None:
    """BdpoError where a mapping names a column that no format reads."""
    known = {column for format in FORMATS.values() for column in format.columns}
    for ours in columns:
        if ours not in known:
            near = nearest(ours, known)
            hint = f"did you mean '{near}'?" if near else "it maps the columns of docs/data.md, such as prompt."
            raise BdpoError(f"data.columns: no format reads a column '{ours}': {hint}")


def renamed(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with its columns under our names: `columns` maps ours to theirs. What stood under ours is replaced.

    >>> renamed({"question": "Why?", "chosen": "So."}, {"prompt": "question"})
    {'chosen': 'So.', 'prompt': 'Why?'}
    """
    if not columns:
        return row
    theirs = {ours: name for ours, name in columns.items() if name in row}
    left = {name: cell for name, cell in row.items() if name not in theirs.values() and name not in theirs}
    return {**left, **{ours: row[name] for ours, name in theirs.items()}}


def refuse_unread(row: Row, format: Format, columns: Mapping[str, str]) -> None:
    """BdpoError where a column that may hold (a part of) the prompt is not read and says what nothing read says.

    A mapping that names the prompt is taken at its word.
    """
    if not _NAME_THE_PROMPT.isdisjoint(columns):
        return
    unread = [name for name in row if name not in format.columns and _ours(name) in ("prompt", "system")]
    if not unread:
        return
    held = next((name for name in format.prompt if row.get(name)), None)
    said = _flat(text for column in format.columns for text in fields.texts_in(row.get(column)))
    lost = [
        name
        for name in unread
        if not (held and _letters(name) in _IDS) and any(_flat([t]) not in said for t in fields.texts_in(row[name]))
    ]
    if lost:
        raise BdpoError(
            f"the column {lost[0]!r} is not read, and what it says stands in no other: {_mend(lost, row, held)}."
        )


def likely_mapping(names: Iterable[str]) -> dict[str, str]:
    """The mapping under which rows with these columns could be read, as far as the names tell it."""
    found: dict[str, str] = {}
    for name in names:
        ours = _ours(name)
        if ours is not None and ours != name:
            found.setdefault(ours, name)
    return found or {ours: "..." for ours in ("prompt", "chosen", "rejected")}


def shown_mapping(mapping: Mapping[Any, str]) -> str:
    """A mapping as a recipe has it."""
    return "data.columns: {" + ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items()) + "}"


def _mend(lost: list[str], row: Row, held: str | None) -> str:
    """What to do about the lost columns beside `held`, the column that the prompt is read from, if there is one."""
    mapping = {_ours(name): name for name in reversed(lost)}
    asked = mapping.pop("prompt", None)
    if asked is None or held is None:
        whole = ({} if asked is None else {"prompt": asked}) | mapping
        return f"map it ({shown_mapping(whole)}; for bdpo data, --columns), or take the column out"
    apart = f"if it is no part of the prompt, say so ({shown_mapping({held: held})})"
    if not isinstance(row[held], str):
        return f"put it into {held!r}; {apart}"
    part = "history" if _letters(asked) == "history" else "input"
    joined = shown_mapping({"instruction": held, part: asked, **mapping})
    return f"map it ({joined}; for bdpo data, --columns); {apart}"


def _ours(name: str) -> str | None:
    return _OURS.get(_letters(name))


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _flat(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).split())
