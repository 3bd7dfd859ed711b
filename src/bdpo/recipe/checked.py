"""Values of a recipe against what takes them, a complaint being one sentence in the user's words."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bdpo.errors import BdpoError, nearest

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def sentence(error: ValidationError, root: type[BaseModel]) -> str:
    """The first complaint of pydantic of a `root`, in the user's words."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        kind = root if len(path) == 1 else root.model_fields[path[0]].annotation
        section: Any = next(kind for kind in (*get_args(kind), kind) if hasattr(kind, "model_fields"))
        return f"unknown key '{'.'.join(path)}'{_nearest(path[-1], list(section.model_fields))}"
    return f"{'.'.join(path)} is {first['input']!r}, but {_wish(error)}."


def _wish(error: ValidationError) -> str:
    """What pydantic says a value should be."""
    first = error.errors()[0]
    if first["type"] in ("model_type", "dict_type"):
        return "it should be a section with keys"
    message = str(first["msg"]).replace("Input should", "it should")
    return message[0].lower() + message[1:]


def _numbers(value: Any) -> Any:
    """Numbers like 1e-6, which are text to YAML, within a mapping or a list: no type says there what they are."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _nearest(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    if near:
        return f": did you mean '{near}'?"
    return f"; there are {', '.join(known[:12])}{', ...' if len(known) > 12 else '.'}"


def typed(values: Mapping[str, Any], kind: type, where: str, elsewhere: Mapping[str, str] = {}) -> dict[str, Any]:
    """Check names and types of values against the fields of a dataclass; `1e-4`, text to YAML, becomes a number.

    `elsewhere` names fields that may not stand here, and where they belong.
    """
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    hints = get_type_hints(kind)
    for name in values:
        refuse_unknown(str(name), known, where, elsewhere)
    return {name: fit(value, hints[name], f"{where}.{name}") for name, value in values.items()}


def refuse_unknown(name: str, known: Sequence[str], where: str, elsewhere: Mapping[str, str]) -> None:
    """Raise BdpoError, with the nearest right name, where a key is none of those known, or stands elsewhere."""
    here = [other for other in known if other not in elsewhere]
    if name not in here:
        near = f": did you mean '{elsewhere[name]}'?" if name in elsewhere else _nearest(name, here)
        raise BdpoError(f"{where}: unknown key '{name}'{near}")


def fields_written(file: Path, kind: str, *bases: str) -> list[str]:
    """The fields of a dataclass as they are written in a file, which is not run: importing it may take seconds.

    Nothing where the class is not there, or has other bases, from which it may have further fields.
    """
    if not file.is_file():
        return []
    classes = (node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.ClassDef))
    found = next((node for node in classes if node.name == kind), None)
    if found is None or [ast.unparse(base) for base in found.bases] != [*bases]:
        return []
    fields = (node.target for node in found.body if isinstance(node, ast.AnnAssign))
    return [target.id for target in fields if isinstance(target, ast.Name)]


def fit(value: Any, hint: Any, where: str) -> Any:
    """The value as the type `hint` takes it; BdpoError where it does not."""
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(_numbers(value) if isinstance(value, dict) else value)
    except ValidationError as error:
        raise BdpoError(f"{where} is {value!r}, but {_wish(error)}.") from None
