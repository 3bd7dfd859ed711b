"""What is written for a model on the command line -> its name and what that means. It loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bdpo.errors import BdpoError
from bdpo.secrets import refuse_secrets


def named_models(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """(name, model) of each `NAME=MODEL` or `MODEL`; several models may share a name: seeds of one method.

    >>> named_models(["starter", "DPO=runs/1", "DPO=runs/2"])
    [('starter', 'starter'), ('DPO', 'runs/1'), ('DPO', 'runs/2')]
    """
    refuse_secrets(list(arguments), "bdpo evaluate", "the name of a model")
    named = []
    for argument in arguments:
        name, equals, model = argument.partition("=")
        named.append((name.strip(), model) if equals and not Path(argument).exists() else (argument, argument))
        if not all(named[-1]):
            raise BdpoError(f"'{argument}': write MODEL, or NAME=MODEL.")
    twice = next((model for model in named if named.count(model) > 1), None)
    if twice:
        raise BdpoError(f"'{twice[1]}' is given twice: take one of them out.")
    return named
