"""The room of stage 3: imports inside it point one way, and a benchmark of a new kind is one function and one line."""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bdpo import evaluate
from bdpo.evaluate.ask.benchmarks import BENCHMARKS
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.evaluation import Subject
from bdpo.evaluate.evaluation import evaluate as evaluated
from bdpo.evaluate.grading.scorers import SCORERS, Grade, Scorer
from bdpo.evaluate.judges import Judge, make_judge
from bdpo.evaluate.plan import Plan, plan_tasks
from bdpo.evaluate.replies.collect import Prompts, Reply, Sampling
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.tables import evaluation_grids

ROOM = Path(evaluate.__file__).parent
# the map in the room's docstring: one line a place, an import points to the same place or to one above it
WAY = re.findall(r"^(\w+)(?:/|\.py) ", evaluate.__doc__ or "", re.MULTILINE)
MODULES = [path for path in sorted(ROOM.rglob("*.py")) if path != ROOM / "__init__.py"]


def test_the_map_names_every_place_of_the_room() -> None:
    assert sorted(WAY) == sorted({path.relative_to(ROOM).with_suffix("").parts[0] for path in MODULES})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOM)))
def test_imports_point_only_up_the_map(path: Path) -> None:
    here = path.relative_to(ROOM).with_suffix("").parts[0]
    imported = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
    ]
    names = [f"{node.module}.{alias.name}" for node in imported for alias in node.names]
    places = {name.split(".")[2] for name in names if name.startswith("bdpo.evaluate.")}
    assert not {there for there in places if WAY.index(there) > WAY.index(here)}


class Thankful:
    """A generator that thanks for every other prompt."""

    key, may_cache = {"weights": "aaaa"}, False

    def fingerprint(self, messages: Sequence[Any], where: str) -> str:
        return where

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: Any = None) -> dict[str, list[Reply]]:
        said = {id: "Thanks." if i % 2 else "No." for i, id in enumerate(prompts)}
        return {id: [Reply(id, 0, text, "end", 1, 1)] for id, text in said.items()}


def thanks(items: Sequence[Item], replies: Sequence[str], judge: Judge) -> list[Grade]:
    return [Grade(float("Thanks" in reply)) for reply in replies]


def test_a_benchmark_of_a_new_kind_is_one_function_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "thanks", Scorer(lambda judge: "replies that thank", thanks, "the word"))
    new = replace(BENCHMARKS["starter-safe"], name="thankful", suite="capability", scoring="thanks")
    monkeypatch.setitem(BENCHMARKS, "thankful", new)
    judge = make_judge("rules")
    tasks, missing = plan_tasks(Plan("thankful", limit=4), judge, logps=False)
    (record,) = evaluated([Subject("m", "m", "m", Thankful())], tasks, tmp_path, judge)
    assert missing == {} and tasks[0].record.settings["judge"] == "the word"
    assert (record["suite"], record["measure"], record["score"], record["n"]) == (
        "capability", "replies that thank", 0.5, 4,
    )  # fmt: skip
    assert evaluation_grids([record])[0].notes == ("Score: replies that thank (thankful).",)
    assert [(row.name, row.cells["m"].score.value) for row in compare([tmp_path]).rows] == [
        ("thankful", 0.5), ("capability", 0.5), ("overall", 0.5),
    ]  # fmt: skip
