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
    "originalprompt", "fullprompt", "usercontent", "ask", "asked", "post", "selftext", "passage", "document", "article",
    "paragraph", "knowledge", "chathistory", "dialoguehistory", "dialoghistory", "conversationhistory", "previousturns",
    "prevturns", "pastturns", "past",
)  # fmt: skip
_COLUMNS = {  # ours -> names that others give it, in letters alone
    "system": ("system", "systemprompt", "systemmessage", "systeminstruction", "systeminstructions", "systemcontent",
               "systemmsg", "sysprompt", "sys", "preamble", "persona"),
    "prompt": _SPOKEN,
    "chosen": ("chosen", "chosenresponse", "chosenanswer", "preferred", "preferredresponse", "preferredoutput",
               "accepted", "responsechosen", "chosenmessages", "chosenconversations",
               "chosenconversation", "responsej", "answerchosen", "betterresponse", "win", "winner", "positive"),
    "rejected": ("rejected", "rejectedresponse", "rejectedanswer", "dispreferred", "dispreferredresponse",
                 "nonpreferredoutput", "nonpreferred", "responserejected", "rejectedmessages", "rejectedconversations",
                 "rejectedconversation", "responsek", "answerrejected", "worseresponse", "lose",
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

    That is told by the column's name; where no column holds the prompt, every sentence of another column may be it.
    A mapping that names the prompt is taken at its word.
    """
    if not _NAME_THE_PROMPT.isdisjoint(columns):
        return
    held = next((name for name in format.prompt if row.get(name)), None)
    cut = held is None and "prompt" in format.prompt and all(fields.is_plain_text(row.get(r)) for r in format.replies)
    unread = [
        name
        for name in row
        if name not in format.columns and (_ours(name) in ("prompt", "system") or (cut and _is_sentence(row[name])))
    ]
    if not unread:
        return
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
    """The mapping under which rows with these columns could be read, "..." where the names do not tell it.

    >>> likely_mapping(["history", "human_ref_A", "human_ref_B", "labels"])
    {'prompt': 'history', 'chosen': '...', 'rejected': '...'}
    """
    names, found = list(names), dict[str, str]()
    for name in names:
        ours = _ours(name)
        if ours is not None and ours not in names:
            found.setdefault(ours, name)
    if "chosen" in found and "rejected" not in {*found, *names}:
        del found["chosen"]  # "winner" alone says which of two is, and is none
    lacking = [ours for ours in ("chosen", "rejected") if ours not in {*found, *names}]
    if lacking and "prompt" not in {*found, *names}:
        lacking = ["prompt", *lacking]  # without one, it is what both texts begin with
    return found | dict.fromkeys(lacking, "...")


def shown_mapping(mapping: Mapping[Any, str]) -> str:
    """A mapping as a recipe has it."""
    return "data.columns: {" + ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items()) + "}"


def _mend(lost: list[str], row: Row, held: str | None) -> str:
    """What to do about the lost columns beside `held`, the column that the prompt is read from, if there is one."""
    mapping = {_ours(name) or "prompt": name for name in reversed(lost)}
    asked = mapping.pop("prompt", None)
    if asked is None or held is None:
        whole = ({} if asked is None else {"prompt": asked}) | mapping
        return f"map it ({shown_mapping(whole)}; for bdpo data, --columns), or take the column out"
    apart = f"if it is no part of the prompt, say so ({shown_mapping({held: held})})"
    if not isinstance(row[held], str):
        return f"put it into {held!r}; {apart}"
    turns = not isinstance(row[asked], str) or fields.holds_messages(row[asked])
    part = "history" if turns or _letters(asked) == "history" else "input"
    joined = shown_mapping({"instruction": held, part: asked, **mapping})
    return f"map it ({joined}; for bdpo data, --columns); {apart}"


def _is_sentence(cell: Any) -> bool:
    """Whether a cell says something, three words at least, and is more than a name or a date."""
    return any(len(text.split()) >= 3 for text in fields.texts_in(cell))


def _ours(name: str) -> str | None:
    return _OURS.get(_letters(name))


def _letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _flat(texts: Iterable[str]) -> str:
    return " ".join(" ".join(texts).split())
