"""A conversation as the model's chat template writes it: the prompt, and what each reply adds to it, as texts.

Training, scoring, evaluation and the data check all render here, so that what one of them takes all take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError

from bdpo.errors import BdpoError, first_line
from bdpo.pairs.bounds import bounded
from bdpo.pairs.reasoning import CLOSE, KEYS, OPEN, reasoning_of, split_reasoning, with_reasoning
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


_OURS = {"messages", "add_generation_prompt", "date_string", "tools", "documents", "chat_template"}  # set here
_DROPPED, _TEXT = "dropped", "text"  # what a template does with reasoning that it has no key for


def render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], where: str, *, add_generation_prompt: bool
) -> str:
    """The conversation as text; with `add_generation_prompt` up to where the next reply begins.

    Args:
        where: what to call the conversation in an error.

    Raises:
        BdpoError: no chat template, or one that refuses the conversation.
    """
    return _apply(tokenizer, _turns(tokenizer, messages), where, add_generation_prompt=add_generation_prompt)


def render_replies(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], replies: Sequence[str], where: str
) -> tuple[str, list[str]]:
    """The text of a conversation before the reply, and for each reply the text that it adds, end of turn included.

    A reply's reasoning is written as the template writes that of a last turn. Templates that leave it out (DeepSeek-R1)
    or that open it in the prompt get it where the model writes it; a reply without one then closes the block at once.

    Raises:
        BdpoError: as `render`, or a template that does not render the prompt as a prefix of the conversation.
    """
    turns = _turns(tokenizer, messages)
    prompt = _apply(tokenizer, turns, where, add_generation_prompt=True)
    return prompt, [_added(tokenizer, turns, prompt, reply, where) for reply in replies]


def set_template_kwargs(
    tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any], where: str = "model.chat_template_kwargs"
) -> None:
    """Give variables of the chat template, such as `enable_thinking`, a value for whenever a caller says nothing.

    They are written at the head of the template, and so they are saved with the tokenizer: training, evaluation and a
    server of the result write the same prompts.

    Raises:
        BdpoError: a variable that the template does not have, or that bdpo sets itself.
    """
    if not kwargs:
        return
    template = tokenizer.chat_template or ""
    texts = list(template.values()) if isinstance(template, dict) else [template]
    for name in kwargs:
        if name in _OURS:
            raise BdpoError(f"{where}: {name} is set by bdpo itself; leave it out.")
        if not name.isidentifier() or not any(re.search(rf"\b{name}\b", text) for text in texts):
            raise BdpoError(f"{where}: the chat template has no variable '{name}'; leave it out.")
    head = "".join(
        f"{{%- if {name} is not defined -%}}{{%- set {name} = {value!r} -%}}{{%- endif -%}}"
        for name, value in kwargs.items()
    )
    defaults = f"{head}{{{{ '' }}}}"  # the last keeps a line break after it, which a tag would swallow
    # models that share a tokenizer say it again, and another text would count as another template
    begun = [text if text.startswith(defaults) else defaults + text for text in texts]
    tokenizer.chat_template = dict(zip(template, begun, strict=True)) if isinstance(template, dict) else begun[0]


def _added(tokenizer: PreTrainedTokenizerBase, turns: list[Message], prompt: str, reply: str, where: str) -> str:
    reasoning, answer = split_reasoning(reply)
    opened, closed = (prompt.rstrip().endswith(mark) for mark in (OPEN, CLOSE))
    if reasoning and closed:
        raise BdpoError(
            f"{where}: the reply has reasoning, and the prompt that the chat template writes has closed it already: "
            "take it out (data.reasoning: drop), or let the model think (model.chat_template_kwargs)."
        )
    if not reasoning or _form(tokenizer, tokenizer.get_chat_template()) != _DROPPED:
        text = _apply(tokenizer, [*turns, *_turns(tokenizer, [_said(reply)])], where, add_generation_prompt=False)
        if text.startswith(prompt):
            return text[len(prompt) :]
        if not opened:
            raise BdpoError(_no_prefix(prompt, text, where))
    head = prompt.rstrip().removesuffix(OPEN) if opened else prompt
    text = _apply(tokenizer, [*turns, _said(answer)], where, add_generation_prompt=False)
    if not text.startswith(head):
        raise BdpoError(_no_prefix(head, text, where))
    rest = text[len(head) :]
    if rest.lstrip().startswith(OPEN):  # an empty block, whose place the reply's own takes
        rest = rest[rest.index(CLOSE) :]
    opening = "" if opened else f"{OPEN}\n"
    closing = "" if rest.lstrip().startswith(CLOSE) else f"\n{CLOSE}\n\n"
    return f"{opening}{reasoning or ''}{closing}{rest}"


def _turns(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[Message]:
    """The messages with the assistant's reasoning under the key that the template reads, or in the text."""
    return [_turn(tokenizer, message) if message["role"] == "assistant" else message for message in messages]


def _turn(tokenizer: PreTrainedTokenizerBase, message: Message) -> Message:
    reasoning, answer = reasoning_of(message), message["content"]
    if reasoning is None:
        reasoning, answer = split_reasoning(answer)
    if reasoning is None or tokenizer.chat_template is None:
        return message
    form = _form(tokenizer, tokenizer.get_chat_template())
    if form in KEYS:
        return {**_said(answer), form: reasoning}
    return message if OPEN in message["content"] else _said(with_reasoning(reasoning, answer))


@lru_cache(maxsize=1)
def _form(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """How the template takes the reasoning of a last turn: by a key of `KEYS`, else as text, or not at all.

    Templates are told by what they do with a conversation made for it. `template` is the tokenizer's own.
    """
    asked, thought, answer = {"role": "user", "content": "Hi"}, "Because of 2719.", "Yes."
    turns = {key: {**_said(answer), key: thought} for key in KEYS} | {_TEXT: _said(with_reasoning(thought, answer))}
    texts = {
        form: _apply(tokenizer, [asked, turn], "A reply with reasoning", add_generation_prompt=False)
        for form, turn in turns.items()
    }
    return next((form for form, text in texts.items() if thought in text), _DROPPED)


def _said(reply: str) -> Message:
    return {"role": "assistant", "content": reply}


def _no_prefix(prompt: str, text: str, where: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, prompt, strict=False)) if a != b), len(text))
    return (
        f"{where}: the chat template does not render the prompt as a prefix of the conversation. The prompt "
        f"has {prompt[at : at + 40]!r} where the conversation has {text[at : at + 40]!r}. Give a template "
        "that leaves earlier turns as they are (model.chat_template), for example without reasoning blocks."
    )


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], where: str, *, add_generation_prompt: bool
) -> str:
    if tokenizer.chat_template is None:
        raise BdpoError("The tokenizer has no chat template: give one (model.chat_template) or use plain-text pairs.")
    how: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "date_string": _DATE.strftime("%d %b %Y")}
    try:
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            how["chat_template"] = _DATE_MACRO + template
        with bounded():
            text = tokenizer.apply_chat_template(messages, tokenize=False, **how)
    except TemplateSyntaxError as error:
        raise BdpoError(
            f"The chat template is no Jinja template (line {error.lineno}: {first_line(error)}): mend it, or give "
            "another (model.chat_template)."
        ) from error
    except Exception as error:  # templates raise what they like: TemplateError itself by their raise_exception
        refused, why = type(error) is TemplateError, first_line(error)
        what = "refuses the conversation" if refused else "fails at the conversation"
        mend = "mend the turns" if refused else "mend the template, or give another (model.chat_template)"
        raise BdpoError(f"{where}: the chat template {what} ({why}): {mend}.") from error
    return str(text)
