"""YAML from outside: no key twice, no end of aliases, and `no`, `off`, `true` are words until a field takes truth.

YAML 1.1 reads them as truth wherever they stand, but `save_strategy: no` means the word, and `limit: yes` nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import JsonValue

from bdpo.errors import BdpoError, first_line
from bdpo.files import read_bytes

_TRUTH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_MOST = 100_000  # values in a recipe: a few aliases of aliases can stand for billions
_TAKE_TRUTH = (bool, Any, JsonValue)


class Word(str):
    """One of YAML's words of truth, unquoted, as it was typed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands in a mapping already."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise BdpoError(f"line {line}: the key '{key.value}' is given twice; leave one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    try:
        if b"\0" in os.fsencode(text):
            raise ValueError
    except ValueError:
        line = node.start_mark.line + 1
        raise BdpoError(f"line {line}: a text has a NUL or half a character in it; take it out") from None
    return text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_constructor("tag:yaml.org,2002:bool", lambda loader, node: Word(node.value))


def read_yaml(path: Path) -> Any:
    """What a file written by bdpo holds, whoever changed it since: its words of truth are truth.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or as `load_yaml` says.
    """
    return as_meant(load_yaml(read_bytes(path).decode("utf-8-sig")))


def load_yaml(text: str) -> Any:
    """The content of YAML text, with a `Word` for each word of truth.

    Raises:
        BdpoError: it is no YAML, nests or unfolds beyond reason, or gives a key twice (the line is named).
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST:
            raise BdpoError(f"its aliases unfold to more than {_MOST} values")
        return loader.construct_document(node)
    except BdpoError:
        raise
    except yaml.YAMLError as error:
        raise BdpoError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # a 99th of June, 5,000 digits, a tag on x
        raise BdpoError(first_line(error)) from error
    except RecursionError:
        raise BdpoError("it nests too deep, or holds itself") from None


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node with its aliases unfolded; each node is counted once and kept in `known`."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def as_meant(value: Any, hint: Any = Any) -> Any:
    """The value with each `Word` as a field of the type `hint` takes it: as truth where it takes that, else as text.

    >>> as_meant(Word("no"), str | None), as_meant(Word("no"), bool), as_meant([Word("on")], list[str] | str)
    ('no', False, ['on'])
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, dict):
        inside = next((get_args(kind)[1] for kind in kinds if get_origin(kind) is dict), Any)
        return {as_meant(key, str): as_meant(cell, inside) for key, cell in value.items()}
    if isinstance(value, list):
        inside = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is list), Any)
        return [as_meant(cell, inside) for cell in value]
    if isinstance(value, Word):
        return _TRUTH[value.lower()] if any(kind in _TAKE_TRUTH for kind in kinds) else str(value)
    return value
