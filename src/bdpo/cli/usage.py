"""The line of usage of every command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class _Command(TyperCommand):
    """A command whose usage names arguments as they are typed; Typer puts those that are needed in braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces behind the command's name."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class Commands(typer.Typer):
    """Typer with such commands."""

    def command(self, name: str | None = None, **how: Any) -> Callable[..., Any]:
        """As Typer's."""
        return super().command(name, **{"cls": _Command, **how})
