"""Names of a room that are loaded when they are asked for: torch and transformers take seconds, a wrong path must not.

    __getattr__ = later(__name__, {"loading": ("LoadedModel", "load")})

An import of one module of such a room loads that module, and not its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def later(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package.

    Args:
        homes: module of the package -> the names that come from it.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return load
