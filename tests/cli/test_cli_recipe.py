"""`bdpo recipe`: what lies in the package comes out as it is, and its schema knows every key of every recipe."""

import json
from pathlib import Path

import pytest
import yaml

from bdpo.cli import recipe as cli
from tiny import Bdpo

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_is_copied_byte_for_byte_and_never_over_another(home: Path, bdpo_: Bdpo) -> None:
    code, out, _ = bdpo_("recipe", "list")
    assert code == 0 and out.startswith("starter") and {line.split()[0] for line in out.splitlines()} == {
        path.stem for path in RECIPES.glob("*.yaml")
    }  # fmt: skip
    assert cli.copied_first() == "bdpo recipe copy starter && "
    assert bdpo_("recipe", "copy", "starter")[0] == 0
    assert (home / "recipes/starter.yaml").read_bytes() == (RECIPES / "starter.yaml").read_bytes()
    assert cli.copied_first() == ""
    code, _, err = bdpo_("recipe", "copy", "starter")
    assert code == 2 and "recipes/starter.yaml is there already: choose another --out" in err
    code, _, err = bdpo_("recipe", "copy", "startr")
    assert code == 2 and "did you mean 'starter'?" in err


def test_the_schema_knows_the_keys_of_every_recipe(home: Path, bdpo_: Bdpo) -> None:
    schema = json.loads(bdpo_("recipe", "schema")[1])
    sections = {name: _keys(schema, of) for name, of in schema["properties"].items()}
    assert schema["additionalProperties"] is False
    assert {"learning_rate", "bf16", "tokens_per_batch"} <= sections["train"] and "beta" not in sections["train"]
    for path in RECIPES.glob("*.yaml"):
        for section, keys in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            assert set(keys) <= sections[section], (path.name, section)


def _keys(schema: dict, of: dict) -> set[str]:
    """The properties of a section, which may be a reference, or one of several."""
    kinds = of.get("anyOf", [of])
    resolved = [schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind for kind in kinds]
    return {name for kind in resolved for name in kind.get("properties", {})}
