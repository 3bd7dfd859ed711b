"""Variables of a chat template, set in its source: whoever renders with the tokenizer then renders with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from bdpo.errors import BdpoError

_GIVEN = ("messages", "add_generation_prompt", "tools", "documents")  # by the conversation itself


def set_template_variables(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any]) -> None:
    """Let the tokenizer's chat template see variables (JSON values), such as enable_thinking, at each rendering.

    It renders as `apply_chat_template(..., **variables)` would, and the template's hash tells settings apart.

    Raises:
        BdpoError: there is no chat template, or a name is no name of a variable or one of the conversation's own.
    """
    if not variables:
        return
    if tokenizer.chat_template is None:
        raise BdpoError("The tokenizer has no chat template to give variables to: give one with --chat-template.")
    wrong = next((name for name in variables if not name.isidentifier() or name in _GIVEN), None)
    if wrong is not None:
        raise BdpoError(f"'{wrong}' cannot be a variable of a chat template: leave it out.")
    # Without the empty text behind them, Jinja would take a line break that begins the template for theirs.
    head = "".join(f"{{% set {name} = {value!r} %}}" for name, value in variables.items()) + "{{ '' }}"
    template = tokenizer.get_chat_template()
    tokenizer.chat_template = template if template.startswith(head) else head + template
