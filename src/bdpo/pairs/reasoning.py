"""Reasoning of a reply: what a model thinks before it answers.

In a pair it stands in the text, as models write it: `<think>`, the reasoning, `</think>`, the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bdpo.pairs.record import Message, PreferencePair

OPEN, CLOSE = "<think>", "</think>"
KEYS = ("reasoning_content", "reasoning", "thinking")
"""What servers, templates and data sets call the key of a message that holds its reasoning."""


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Reasoning and answer of an assistant's text; the reasoning is None where there is no block of it.

    A text that goes on from a prompt which opened the block begins without `<think>`; its `</think>` must then stand on
    a line of its own. Line breaks at the ends of both parts go, as in Qwen3's template.

    >>> split_reasoning("<think>\\nIs it 4?\\n</think>\\n\\nYes.")
    ('Is it 4?', 'Yes.')
    >>> split_reasoning("Is it 4?\\n</think>\\n\\nYes.")
    ('Is it 4?', 'Yes.')
    >>> split_reasoning("The tag </think> ends it.")
    (None, 'The tag </think> ends it.')
    """
    thought, closed, answer = text.partition(CLOSE)
    begun = thought.lstrip().startswith(OPEN)
    own_line = thought.endswith("\n") and (not answer or answer.startswith("\n"))
    thought = thought.lstrip().removeprefix(OPEN) if begun else thought
    if not closed or OPEN in thought or not (begun or own_line):
        return None, text
    return thought.strip("\n"), answer.lstrip("\n")


def with_reasoning(reasoning: str | None, answer: str) -> str:
    """One text of both, as `split_reasoning` takes it apart."""
    return answer if reasoning is None else f"{OPEN}\n{reasoning}\n{CLOSE}\n\n{answer}"


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """What a message holds under a key for reasoning; None where there is no such key, or nothing in it."""
    return next((message[key] for key in KEYS if isinstance(message.get(key), str) and message[key].strip()), None)


def drop_reasoning(pair: PreferencePair) -> PreferencePair:
    """The pair with the answers alone, in its replies and in the assistant's turns of its prompt."""
    prompt = pair.prompt if isinstance(pair.prompt, str) else tuple(_answer_alone(turn) for turn in pair.prompt)
    chosen, rejected = (split_reasoning(reply)[1] for reply in (pair.chosen, pair.rejected))
    return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)


def _answer_alone(turn: Message) -> Message:
    if turn["role"] != "assistant":
        return turn
    return {"role": "assistant", "content": split_reasoning(turn["content"])[1]}
