"""The rules of the house that a machine can keep: which way imports point, and how long files and functions are."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import bdpo

SRC = Path(bdpo.__file__).parent
# the map of bdpo/__init__.py: an import points to the same room or to one that stands before it
WAY = ["later", "errors", "files", "processes", "secrets", "terminal", "yaml_text", "endpoint", "starter", "pairs",
       "tokens", "models", "forward", "method", "score", "train", "evaluate", "report", "recipe",
       "sweep", "cli"]  # fmt: skip
APART = {("evaluate", "train"), ("report", "train")}  # recipe, sweep and cli bring these together
PUBLIC_NAMES = {"balance": "method", "comprehension": "method", "losses": "method", "scored": "score"}
MODULES = sorted(SRC.rglob("*.py"))


def room(name: str) -> str:
    return PUBLIC_NAMES.get(name, name)


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports, wherever in it; of `from bdpo import x` the room x."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {room(name.split(".")[1]) for name in names if name.startswith("bdpo.")}
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_only_to_the_left(path: Path) -> None:
    parts = path.relative_to(SRC).with_suffix("").parts
    if parts[0] in ("__init__", "__main__"):
        return
    here = room(parts[0])
    backwards = {there for there in imported_rooms(path) if WAY.index(there) > WAY.index(here)}
    assert not backwards and not {(here, there) for there in imported_rooms(path)} & APART


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert not long


def test_every_room_stands_on_the_map() -> None:
    rooms = {path.stem for path in SRC.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms - {"__init__", "__main__", "__pycache__", "py", "recipes"} <= {*WAY, *PUBLIC_NAMES}
    assert all(f" {name}" in (bdpo.__doc__ or "") for name in rooms & set(WAY))


def test_no_two_test_files_have_one_name() -> None:
    """They are imported by it, and the second one of a name would stop the collection of all."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert not [name for name, n in names.items() if n > 1]
