"""Runs whose files are torn, empty, of other fields or hostile: one sentence, or text that stays text."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.report.page import write_report

HOSTILE = "<script>alert(1)</script>\x1b[31m{{ 7*7 }}[/x]"


@pytest.fixture
def run(trained: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def record(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((run / "run.json").read_text())
    change(content)
    (run / "run.json").write_text(json.dumps(content))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("file", ["run.json", "heldout.parquet", "recipe.yaml", "metrics.json"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b"[1]"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        fifo,
    ],
    ids=["empty", "torn", "a list", "no text", "a pipe"],
)
def test_a_torn_file_is_named(run: Path, file: str, change: Callable[[Path], Any]) -> None:
    change(run / file)
    with pytest.raises(BdpoError, match="name the folder of a run"):
        write_report([run], run / "report.html")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(tau="wide"), "run.json: tau"),
        (lambda r: r.update(scores=[]), "run.json: scores"),
        (lambda r: r["scores"]["train"].update(path=3), r"run.json: scores.train.path"),
        (lambda r: r.update(method=["x"]), "run.json: method"),
        (lambda r: r.update(weights={"a": 1}), "run.json: weights.a"),
        (lambda r: r.update(peak_memory_bytes="much"), "run.json: peak_memory_bytes"),
        (lambda r: r.update(data={}), "run.json: data.refusals"),
        (lambda r: r["data"].update(findings=[{}]), "run.json: data.findings.0.severity"),
    ],
)
def test_other_fields_of_the_record_are_named(run: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    record(run, change)
    with pytest.raises(BdpoError, match=said):
        write_report([run], run / "report.html")


@pytest.mark.parametrize(
    ("section", "keys"), [("train", {"seed": "first"}), ("train", []), ("balance", {"weighting": []}), ("more", 3)]
)
def test_other_fields_of_the_recipe_are_named(run: Path, section: str, keys: Any) -> None:
    content = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump(content | {section: keys}))
    with pytest.raises(BdpoError, match=f"recipe.yaml: {section}"):
        write_report([run], run / "report.html")


def test_aliases_of_a_recipe_are_not_unfolded(run: Path) -> None:
    """A value of 9^9 parts: to print it would take all memory."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
    lines = bomb.replace("\n", "\n  ").rstrip()
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(f"{recipe}\nmore:\n  {lines}\n")
    with pytest.raises(BdpoError, match="its aliases unfold to more than 100000 values"):
        write_report([run], run / "report.html")


def test_other_columns_of_the_held_out_pairs_are_named(run: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "d": ["wide"]}), run / "heldout.parquet")
    with pytest.raises(BdpoError, match=r"heldout.parquet: the column d"):
        write_report([run], run / "report.html")


def test_hostile_texts_of_a_record_show_as_text(run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content.update(method=HOSTILE, label=HOSTILE, command=HOSTILE, device=HOSTILE, started=[HOSTILE], seconds={})
        content["data"]["findings"] = [{"severity": HOSTILE, "name": HOSTILE, "count": 1, "explanation": HOSTILE}]
        content["versions"] = {"bdpo": HOSTILE}

    record(run, change)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["history"] += [3, {"step": HOSTILE, "loss": HOSTILE}, {"loss": None}, {HOSTILE: 1.0, "step": 1}]
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_report([run], run / "report.html")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "\x1b" not in page and "&lt;script&gt;alert(1)" in page
