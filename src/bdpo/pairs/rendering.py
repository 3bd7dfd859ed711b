"""A conversation as the model's chat template writes it: the prompt, and what each reply adds to it, as texts.

Training, scoring, evaluation and the data check all render here, so that what one of them takes all take.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from bdpo.errors import BdpoError, first_line
from bdpo.pairs.record import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates print today's date; a fixed one keeps scores from changing overnight. They ask for it by the variable
# date_string, or by the function strftime_now: that one is shadowed by a macro, since templates are given no functions.
_DATE = datetime(2024, 7, 26)
_PRINTED = {f"%{letter}": _DATE.strftime(f"%{letter}") for letter in "aAbBcdHIjmMpSxXyY"}
_PRINTED |= {f"%-{letter}": _PRINTED[f"%{letter}"].lstrip("0") or "0" for letter in "dHIjmMSy"}
_REPLACED = "".join(f"|replace({directive!r}, {text!r})" for directive, text in _PRINTED.items())
_DATE_MACRO = "{%- macro strftime_now(format) -%}{{ format" + _REPLACED + " }}{%- endmacro -%}{{ '' }}"


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], where: str, *, add_generation_prompt: bool
) -> str:
    """The conversation as text; with `add_generation_prompt` up to where the next reply begins.

    Args:
        where: what to call the conversation in an error.

    Raises:
        BdpoError: no chat template, or one that refuses the conversation.
    """
    if tokenizer.chat_template is None:
        raise BdpoError("The tokenizer has no chat template: give one (model.chat_template) or use plain-text pairs.")
    how: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "date_string": _DATE.strftime("%d %b %Y")}
    try:
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            how["chat_template"] = _DATE_MACRO + template
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, **how)
    except TemplateSyntaxError as error:
        raise BdpoError(
            f"The chat template is no Jinja template (line {error.lineno}: {first_line(error)}): mend it, or give "
            "another (model.chat_template)."
        ) from error
    except Exception as error:  # templates raise jinja errors and whatever they like
        why = first_line(error)
        raise BdpoError(f"{where}: the chat template refuses the conversation ({why}): mend the turns.") from error
    return str(text)


def render_replies(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], replies: Sequence[str], where: str
) -> tuple[str, list[str]]:
    """The text of a conversation before the reply, and for each reply the text that it adds, end of turn included.

    Raises:
        BdpoError: as `render`, or a template that does not render the prompt as a prefix of the conversation.
    """
    prompt = render(tokenizer, messages, where, add_generation_prompt=True)
    return prompt, [_added(tokenizer, messages, prompt, reply, where) for reply in replies]


def _added(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: str, reply: str, where: str) -> str:
    text = render(tokenizer, (*messages, _said(reply)), where, add_generation_prompt=False)
    if not text.startswith(prompt):
        raise BdpoError(_no_prefix(prompt, text, where))
    return text[len(prompt) :]


def _said(reply: str) -> Message:
    return {"role": "assistant", "content": reply}


def _no_prefix(prompt: str, text: str, where: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, prompt, strict=False)) if a != b), len(text))
    return (
        f"{where}: the chat template does not render the prompt as a prefix of the conversation. The prompt "
        f"has {prompt[at : at + 40]!r} where the conversation has {text[at : at + 40]!r}. Give a template "
        "that leaves earlier turns as they are (model.chat_template), for example without reasoning blocks."
    )
