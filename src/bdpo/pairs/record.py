"""The one record that every reader produces and every later stage consumes."""

from __future__ import annotations

from dataclasses import dataclass

Message = dict[str, str]
"""A chat message: {"role": "system" | "user" | "assistant", "content": text}."""


@dataclass(frozen=True)
class PreferencePair:
    """One prompt with a preferred and a dispreferred reply."""

    id: str  # unique in its data set; names the pair in every message
    prompt: tuple[Message, ...] | str  # a conversation ending before the reply, or plain text (no chat template)
    chosen: str  # the preferred reply, assistant text only
    rejected: str  # the dispreferred reply
    chosen_safe: bool | None = None  # None: not labelled
    rejected_safe: bool | None = None
    category: tuple[str, ...] = ()  # harm categories, empty where there are none
    source: str = ""  # data set it came from
    prompt_kind: str = ""  # unsafe or harmless, where the data says so; see `pairs.kinds`
