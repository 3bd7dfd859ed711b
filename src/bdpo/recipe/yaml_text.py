"""YAML as a recipe is typed: no key twice, and `no`, `off`, `true` and the like are words until a field takes truth.

YAML 1.1 reads them as truth wherever they stand, but `save_strategy: no` means the word, and `limit: yes` nothing.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import JsonValue

from bdpo.errors import BdpoError

_TRUTH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}
_TAKE_TRUTH = (bool, Any, JsonValue)


class Word(str):
    """One of YAML's words of truth, unquoted, as it was typed."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands in a mapping already, and a mapping within itself."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.deep_construct = True  # without it a mapping within itself would be built

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise BdpoError(f"line {line}: the key '{key.value}' is given twice; leave one of them")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:bool", lambda loader, node: Word(node.value))


def load_yaml(text: str) -> Any:
    """The content of YAML text, with a `Word` for each word of truth.

    Raises:
        BdpoError: it is no YAML, nests beyond reason, or gives a key twice; the line is named where it is known.
    """
    try:
        return yaml.load(text, _Loader)  # a safe loader
    except yaml.YAMLError as error:
        raise BdpoError(" ".join(str(error).split())) from error
    except RecursionError:
        raise BdpoError("it nests too deep") from None


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
