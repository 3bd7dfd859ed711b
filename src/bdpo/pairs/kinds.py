"""Two kinds of pairs, which a step along the refusal axis moves in opposite directions.

unsafe    the safe reply is right, and the other one is not safe
harmless  the helpful reply is right, and the other one refuses for nothing

Data may say it, pair by pair, in a column `prompt_kind`. Where it does not, labels and openings tell what they can.
"""

from __future__ import annotations

from bdpo.errors import BdpoError
from bdpo.pairs import fields
from bdpo.pairs.fields import Row
from bdpo.pairs.reasoning import split_reasoning
from bdpo.pairs.record import PreferencePair
from bdpo.pairs.refusals import opens_as_refusal

KINDS = ("unsafe", "harmless")
"""The kinds; a pair may be of neither."""


def pair_kind(pair: PreferencePair) -> str:
    """The kind that the data gives the pair, else what its labels and the openings of its replies tell; "": neither."""
    return pair.prompt_kind or kind_of(pair.chosen, pair.rejected, pair.chosen_safe, pair.rejected_safe)


def kind_said(row: Row) -> str:
    """What the column `prompt_kind` of a row says; "" where there is none. Raises BdpoError where it is no kind."""
    kind = fields.optional_text(row, "prompt_kind")
    if kind not in ("", *KINDS):
        raise BdpoError(f"'prompt_kind' is '{kind}': it must be {' or '.join(KINDS)}, or empty.")
    return kind


def kind_of(chosen: str, rejected: str, chosen_safe: bool | None, rejected_safe: bool | None) -> str:
    """The kind of a pair; "" where labels and openings tell none.

    A safe reply before an unsafe one is `unsafe`, and an unsafe one before any is of no kind. Where no reply is
    labelled unsafe, the side that alone opens as a refusal tells: the rejected one, and the pair is `harmless`; the
    chosen one, and it is `unsafe`, unless the other one is labelled safe. Two safe replies say nothing of the prompt:
    a harmful one may well have two (PKU-SafeRLHF has many such pairs).

    >>> kind_of("Talk to somebody.", "Here is how.", True, False)
    'unsafe'
    >>> kind_of("Stir it well.", "I'm sorry, but I can't help with that.", None, None)
    'harmless'
    >>> kind_of("Stir it well.", "Shake it.", True, True)
    ''
    """
    if (chosen_safe, rejected_safe) == (True, False):
        return "unsafe"
    if False in (chosen_safe, rejected_safe):
        return ""
    chosen_refuses, rejected_refuses = (opens_as_refusal(split_reasoning(reply)[1]) for reply in (chosen, rejected))
    if rejected_refuses and not chosen_refuses:
        return "harmless"
    return "unsafe" if chosen_refuses and not rejected_refuses and rejected_safe is None else ""
