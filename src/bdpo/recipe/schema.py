"""The JSON Schema of a recipe: what an editor completes and underlines."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

from bdpo.recipe.sections import ELSEWHERE, Recipe
from bdpo.train.config import BDPOConfig


def recipe_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a recipe file; the sections `train` and `peft` hold what their dataclasses take."""
    from peft import LoraConfig

    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["train"] |= _keys(BDPOConfig, ELSEWHERE)
    schema["properties"]["peft"] = {"anyOf": [{"type": "object"} | _keys(LoraConfig), {"type": "null"}]}
    return schema


def _keys(kind: type, elsewhere: Any = ()) -> dict[str, Any]:
    """The fields of a dataclass as properties of an object that takes no others."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init and field.name not in elsewhere]
    return {"properties": {name: _type(hints[name]) for name in names}, "additionalProperties": False}


def _type(hint: Any) -> dict[str, Any]:
    """The schema of a type; a number may be written as text (1e-4 is text to YAML), and a class is anything."""
    try:
        schema = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).json_schema()
    except PydanticUserError:  # a class of peft or transformers, which JSON does not know
        return {}
    if "$defs" in schema:  # its definitions would have to move to the root
        return {}
    number = {"type": "string", "pattern": r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"}
    return {"anyOf": [schema, number]} if "number" in str(schema) else schema
