"""YAML as a recipe is typed: no key twice, and `yes`, `no`, `on` and `off` are words until a field says what it takes.

YAML 1.1 reads these four as true and false, wherever they stand; `save_strategy: no` means the word.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from bdpo.errors import BdpoError

_TRUTH = {"yes": True, "on": True, "no": False, "off": False}


class Word(str):
    """One of YAML's words of truth, unquoted, as it was typed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands in a mapping already."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise BdpoError(f"line {line}: the key '{key.value}' is given twice; leave one of them")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _truth(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    word = str(loader.construct_scalar(node))
    return Word(word) if word.lower() in _TRUTH else loader.construct_yaml_bool(node)


_Loader.add_constructor("tag:yaml.org,2002:bool", _truth)


def load_yaml(text: str) -> Any:
    """The content of YAML text, with a `Word` for each word of truth.

    Raises:
        BdpoError: it is no YAML, nests beyond reason, or gives a key twice; the line is named where it is known.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        raise BdpoError(" ".join(str(error).split())) from error
    except RecursionError:
        raise BdpoError("it nests too deep") from None


def as_meant(value: Any, hint: Any = Any) -> Any:
    """The value with each `Word` as a field of the type `hint` takes it: as text where it takes text, else as truth.

    >>> as_meant(Word("no"), str | None), as_meant(Word("no"), bool), as_meant([Word("on")], list[str] | str)
    ('no', False, ['on'])
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, dict):
        inside = next((get_args(kind)[1] for kind in kinds if get_origin(kind) is dict), Any)
        return {str(key) if isinstance(key, Word) else key: as_meant(cell, inside) for key, cell in value.items()}
    if isinstance(value, list):
        inside = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is list), Any)
        return [as_meant(cell, inside) for cell in value]
    if isinstance(value, Word):
        return str(value) if any(map(_takes_text, kinds)) else _TRUTH[value.lower()]
    return value


def _takes_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(isinstance(choice, str) for choice in get_args(kind))
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, str)
