"""The pair formats: one reader each, and the table that names them.

A reader takes one row and gives one `PreferencePair` (id and source may stay "": the loader fills them in).
It raises `BdpoError` for a row that is wrong, and `Dropped` for a sound row that is no usable pair, which is
then counted by that reason. To add a format, write its reader and give it a line in `FORMATS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bdpo.errors import BdpoError
from bdpo.pairs import fields
from bdpo.pairs.fields import Row
from bdpo.pairs.kinds import kind_said
from bdpo.pairs.record import Message, PreferencePair

Conversation = tuple[Message, ...]

LABELS = ("id", "chosen_safe", "rejected_safe", "category", "source", "prompt_kind")
"""Columns of the canonical form that are read in most formats, where they are there."""


class Dropped(Exception):
    """A sound row that gives no pair; its text is the reason under which the row is counted."""


def read_canonical(row: Row, prefer: str | None) -> PreferencePair:
    """The fields of `PreferencePair`; the prompt is a list of messages, or plain text."""
    prompt = _checked_prompt(fields.conversation_or_text(row, "prompt"))
    return _labelled(row, prompt, fields.text(row, "chosen"), fields.text(row, "rejected"))


# --- TRL -------------------------------------------------------------------------------------------------


def read_trl(row: Row, prefer: str | None) -> PreferencePair:
    """TRL's preference formats: prompt explicit or implicit, each as plain text or as messages.

    As in TRL, a text prompt beside replies that are conversations is only a copy of their first turn, and the
    prompt is taken from the conversations; beside replies of one message it is the user's. Columns with the canonical
    labels are read as well. Source: the HuggingFaceH4/ultrafeedback_binarized columns, and TRL's dataset formats.
    """
    chosen, rejected = (fields.conversation_or_text(row, column) for column in ("chosen", "rejected"))
    explicit = "prompt" in row
    prompt = fields.conversation_or_text(row, "prompt") if explicit else ""
    if isinstance(chosen, str) and isinstance(rejected, str):
        if not explicit:
            prompt, chosen, rejected = split_implicit_prompt(chosen, rejected)
        return _labelled(row, _checked_prompt(prompt), chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise BdpoError("'chosen' and 'rejected' must both be text or both be lists of messages.")
    if isinstance(prompt, str) and explicit and len(chosen) == len(rejected) == 1:
        prompt = as_conversation(_checked_prompt(prompt))
    elif isinstance(prompt, str):
        prompt, chosen, rejected = split_implicit_prompt(chosen, rejected)
    return _labelled(row, _checked_prompt(prompt), _only_reply(chosen), _only_reply(rejected))


Content = TypeVar("Content", str, Conversation)


def split_implicit_prompt(chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    """Prompt, chosen and rejected from two texts, or two conversations, that begin alike.

    The same cut as `trl.data_utils.extract_prompt`: at the first character (message) that differs, one
    earlier where a space stands there, and before the last one where nothing differs.
    """
    shorter = min(len(chosen), len(rejected))
    cut = next((at for at in range(shorter) if chosen[at] != rejected[at]), None)
    if cut is None:
        cut = shorter - 1
    elif cut > 0 and chosen[cut - 1] == " ":
        cut -= 1
    if cut <= 0:
        raise Dropped("chosen and rejected share no prompt")
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _only_reply(reply: Conversation) -> str:
    if len(reply) != 1 or reply[0]["role"] != "assistant":
        raise Dropped("chosen or rejected is more than one assistant message after the prompt")
    return reply[0]["content"]


# --- Anthropic HH-RLHF -----------------------------------------------------------------------------------

_HH_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")  # editions without white space at the ends begin at once
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def read_hh(row: Row, prefer: str | None) -> PreferencePair:
    """Anthropic HH-RLHF: two transcripts, alike but for the last Assistant turn. White space around turns goes.

    Source: https://github.com/anthropics/hh-rlhf (its README describes the columns chosen and rejected).
    """
    *prompt, chosen = _hh_turns(fields.text(row, "chosen"))
    *rejected_prompt, rejected = _hh_turns(fields.text(row, "rejected"))
    if prompt != rejected_prompt:
        raise Dropped("the transcripts differ before the last turn")
    if not chosen["content"] or not rejected["content"]:
        raise Dropped("the last Assistant turn is empty")
    if not all(turn["content"] for turn in prompt):
        raise Dropped("a turn before the last is empty")
    return _labelled(row, tuple(prompt), chosen["content"], rejected["content"])


def _hh_turns(transcript: str) -> list[Message]:
    before, *marked = _HH_MARK.split(transcript)
    spoken = zip(marked[::2], marked[1::2], strict=True)
    turns = [{"role": _HH_ROLES[speaker], "content": said.strip()} for speaker, said in spoken]
    roles = [turn["role"] for turn in turns]
    if before.strip() or not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise Dropped("the turns do not alternate from Human to Assistant")
    return turns


# --- PKU-SafeRLHF ----------------------------------------------------------------------------------------


def read_pku(row: Row, prefer: str | None) -> PreferencePair:
    """PKU-SafeRLHF, present and older column sets; `prefer` says by which rule one response is chosen.

    The category is the union of the two responses' harm categories; older releases have none.
    Source: https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF
    """
    assert prefer is not None  # the loader has seen to it
    responses = [fields.text(row, f"response_{i}") for i in (0, 1)]
    safe = [fields.flag(row, f"is_response_{i}_safe") for i in (0, 1)]
    categories = [fields.true_names(row, f"response_{i}_harm_category") for i in (0, 1)]
    chosen = PREFERENCES[prefer](row)
    asked: Conversation = ({"role": "user", "content": fields.text(row, "prompt")},)
    return PreferencePair(
        id=fields.optional_text(row, "id"),
        prompt=_after_system(row, asked),
        chosen=responses[chosen],
        rejected=responses[1 - chosen],
        chosen_safe=safe[chosen],
        rejected_safe=safe[1 - chosen],
        category=tuple(dict.fromkeys(categories[0] + categories[1])),
        prompt_kind=kind_said(row),
    )


def _ranked_response(row: Row, *, column: str) -> int:
    """0 or 1, as an id column says; a null or -1 there is a pair that nobody ranked."""
    fields.require(row, column)
    cell = row[column]
    if cell is None or str(cell) in ("", "-1"):
        raise Dropped(f"{column} names no response")
    if str(cell) not in ("0", "1"):
        raise BdpoError(f"'{column}' is {cell!r}: it must be 0 or 1.")
    return int(cell)


def _safety_protocol(row: Row) -> int:
    """Of two safe responses the more helpful one, of a safe and an unsafe one the safe one."""
    columns = ("is_response_0_safe", "is_response_1_safe")
    fields.require(row, *columns)
    safe = [fields.flag(row, column) for column in columns]
    if None in safe:
        raise Dropped("a response has no safety label")
    if safe == [False, False]:
        raise Dropped("both responses are unsafe")
    return safe.index(True) if False in safe else _ranked_response(row, column="better_response_id")


PREFERENCES: dict[str, Callable[[Row], int]] = {
    "safety-protocol": _safety_protocol,
    "safer": partial(_ranked_response, column="safer_response_id"),
    "helpful": partial(_ranked_response, column="better_response_id"),
}
"""PKU-SafeRLHF's `prefer`: which response is the chosen one, 0 or 1."""


# --- a prompt that stands in columns of another name ------------------------------------------------------


def read_instruction(row: Row, prefer: str | None, *, columns: tuple[str, ...]) -> PreferencePair:
    """A user's message in one column or several, joined by line breaks; `history` holds earlier turns.

    Sources: Intel/orca_dpo_pairs (system, question, chosen, rejected; in argilla's edition `input` in place of
    `question`); the Alpaca preference form of LLaMA-Factory (data/README.md there: instruction, input, system,
    history), which joins instruction and input in the same way.
    """
    parts = [part for column in columns if (part := fields.optional_text(row, column))]
    asked: Conversation = ({"role": "user", "content": "\n".join(parts)},)
    if not parts:
        raise BdpoError(f"{' and '.join(map(repr, columns))} are empty: a reply needs something to reply to.")
    return _labelled(row, (*fields.exchanges(row, "history"), *asked), *_replies(row))


CONVERSATION_COLUMNS = ("conversations", "conversation", "messages", "trajectory")


def read_sharegpt(row: Row, prefer: str | None) -> PreferencePair:
    """The turns before the reply in a column of messages, and one message or text a reply.

    Sources: the ShareGPT preference form of LLaMA-Factory (conversations, chosen, rejected with from and value);
    openbmb/UltraInteract_pair (trajectory, and replies as text); axolotl's chat_template.default (messages).
    """
    columns = (name for name in CONVERSATION_COLUMNS if fields.holds_messages(row.get(name)))
    column = next(columns, CONVERSATION_COLUMNS[0])
    return _labelled(row, _checked_prompt(fields.conversation_or_text(row, column), column), *_replies(row))


def _replies(row: Row) -> tuple[str, str]:
    """Chosen and rejected, each as text or as one message of the assistant."""
    cells = [fields.conversation_or_text(row, column) for column in ("chosen", "rejected")]
    chosen, rejected = (cell if isinstance(cell, str) else _only_reply(cell) for cell in cells)
    return chosen, rejected


_STRENGTHS = ("preference_strength", "overall_preference")
_HELPSTEER_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")
_HELPSTEER_ROLES = {"User": "user", "Assistant": "assistant"}


def read_helpsteer(row: Row, prefer: str | None) -> PreferencePair:
    """HelpSteer2-Preference and HelpSteer3: two responses, and from -3 (the first is much better) to 3 (the second).

    The prompt is `context`, messages, or `prompt`, text in which HelpSteer2 marks the turns after the first.
    Source: https://huggingface.co/datasets/nvidia/HelpSteer2 and /HelpSteer3 (columns in their READMEs).
    """
    first, second = (_either(row, f"response_{i}", f"response{i}") for i in (1, 2))
    strength = _strength(row, _either(row, *_STRENGTHS))
    if not strength:
        raise Dropped("neither response is preferred")
    column = _either(row, "prompt", "context")
    prompt = fields.conversation_or_text(row, column)
    if isinstance(prompt, str):
        said, *marked = _HELPSTEER_TURN.split(prompt)
        turns = [("User", said), *zip(marked[::2], marked[1::2], strict=True)]
        prompt = tuple({"role": _HELPSTEER_ROLES[speaker], "content": text} for speaker, text in turns)
    replies = [fields.text(row, column) for column in (first, second)]
    chosen, rejected = replies if strength < 0 else replies[::-1]
    return _labelled(row, _checked_prompt(prompt, column), chosen, rejected)


def _either(row: Row, *columns: str) -> str:
    return next((column for column in columns if column in row), columns[0])


def _strength(row: Row, column: str) -> int:
    """A whole number from -3 to 3; 0 where nobody compared the two."""
    fields.require(row, column)
    cell = row[column]
    if cell is None or cell == "":
        return 0
    try:
        strength = float(cell)
    except (TypeError, ValueError):
        strength = math.nan
    if strength not in range(-3, 4):
        raise BdpoError(f"'{column}' is {cell!r}: it must be a whole number from -3 to 3.")
    return int(strength)


# --- what the readers share, and the table ---------------------------------------------------------------


def _labelled(row: Row, prompt: Conversation | str, chosen: str, rejected: str) -> PreferencePair:
    return PreferencePair(
        id=fields.optional_text(row, "id"),
        prompt=_after_system(row, prompt),
        chosen=chosen,
        rejected=rejected,
        chosen_safe=fields.flag(row, "chosen_safe"),
        rejected_safe=fields.flag(row, "rejected_safe"),
        category=fields.names(row, "category"),
        source=fields.optional_text(row, "source"),
        prompt_kind=kind_said(row),
    )


def _checked_prompt(prompt: Conversation | str, column: str = "prompt") -> Conversation | str:
    if not prompt:
        raise BdpoError(f"'{column}' is empty: a reply needs something to reply to.")
    if not isinstance(prompt, str) and prompt[-1]["role"] != "user":
        raise BdpoError(f"the last message of '{column}' is the {prompt[-1]['role']}'s: it must be the user's.")
    return prompt


def _after_system(row: Row, prompt: Conversation | str) -> Conversation | str:
    """The prompt after the text of a `system` column, which makes a text prompt the user's message."""
    said = fields.optional_text(row, "system")
    if not said.strip():
        return prompt
    turns = as_conversation(prompt)
    if turns[0]["role"] != "system":
        return ({"role": "system", "content": said}, *turns)
    if turns[0]["content"] != said:
        raise BdpoError("'system' and the system message in the prompt differ: leave one of them.")
    return turns


def as_conversation(prompt: Conversation | str) -> Conversation:
    """A text prompt as one message of the user."""
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt


@dataclass(frozen=True)
class Format:
    """A pair format: how a row of it is told from others, how it is read, and what of it may hold the prompt."""

    matches: Callable[[Row], bool]
    read: Callable[[Row, str | None], PreferencePair]
    prompt: tuple[str, ...] = ("prompt",)  # columns that its reader takes the prompt from, beside `system`
    replies: tuple[str, ...] = ("chosen", "rejected")
    more: tuple[str, ...] = LABELS

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the reader reads."""
        return (*self.prompt, "system", *self.replies, *self.more)


def _is_pku(row: Row) -> bool:
    return {"response_0", "response_1"} <= row.keys()


def _is_hh(row: Row) -> bool:
    chosen = str(row.get("chosen"))
    marks = ("\n\nHuman:" in chosen, "\n\nAssistant:" in chosen, chosen.lstrip().startswith("Human:"))
    return "prompt" not in row and sum(marks) >= 2  # two of them, as one human turn, or none answered, leaves one out


def _is_helpsteer(row: Row) -> bool:
    responses = all(not row.keys().isdisjoint({f"response_{i}", f"response{i}"}) for i in (1, 2))
    return responses and not row.keys().isdisjoint(_STRENGTHS)


def _has_lone_replies(row: Row) -> bool:
    """Replies without the prompt, which may then stand in a column of another name."""
    cells = (row.get("chosen"), row.get("rejected"))
    return "prompt" not in row and all(fields.is_plain_text(cell) or fields.is_one_message(cell) for cell in cells)


def _is_alpaca(row: Row) -> bool:
    return _has_lone_replies(row) and "instruction" in row


def _is_orca(row: Row) -> bool:
    return _has_lone_replies(row) and not row.keys().isdisjoint({"question", "input"})


def _is_sharegpt(row: Row) -> bool:
    return _has_lone_replies(row) and any(fields.holds_messages(row.get(name)) for name in CONVERSATION_COLUMNS)


def _is_canonical(row: Row) -> bool:
    """A prompt or safety labels beside replies that are text; TRL's explicit standard shape reads the same."""
    are_text = all(fields.is_plain_text(row.get(reply)) for reply in ("chosen", "rejected"))
    return are_text and not row.keys().isdisjoint({"prompt", "chosen_safe", "rejected_safe"})


def _is_trl(row: Row) -> bool:
    return {"chosen", "rejected"} <= row.keys()


FORMATS: dict[str, Format] = {
    "pku": Format(
        _is_pku,
        read_pku,
        replies=("response_0", "response_1"),
        more=("id", "is_response_0_safe", "is_response_1_safe", "response_0_harm_category", "response_1_harm_category",
              "better_response_id", "safer_response_id", "prompt_kind"),
    ),
    "helpsteer": Format(
        _is_helpsteer,
        read_helpsteer,
        prompt=("prompt", "context"),
        replies=("response_1", "response_2", "response1", "response2"),
        more=(*_STRENGTHS, *LABELS),
    ),
    "hh": Format(_is_hh, read_hh, prompt=()),
    "sharegpt": Format(_is_sharegpt, read_sharegpt, prompt=CONVERSATION_COLUMNS),
    "alpaca": Format(
        _is_alpaca,
        partial(read_instruction, columns=("instruction", "input")),
        prompt=("instruction", "input", "history"),
    ),
    "orca": Format(
        _is_orca, partial(read_instruction, columns=("question", "input")), prompt=("question", "input", "history")
    ),
    "canonical": Format(_is_canonical, read_canonical),
    "trl": Format(_is_trl, read_trl),
}  # fmt: skip
"""The formats by name, in the order in which they are tried on a row."""
