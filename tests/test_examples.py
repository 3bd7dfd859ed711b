"""The examples run, on a tiny model in place of the starter, and give the numbers that they promise."""

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdpo.evaluate.ask.benchmarks import BENCHMARKS
from bdpo.method.balance import WEIGHTINGS
from bdpo.method.losses import LOSSES
from bdpo.models.gguf import STARTER_FOLDER
from test_snippets import parse
from tiny import furnish

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What an example adds to a table is taken out again."""
    kept = [(table, dict(table)) for table in (LOSSES, WEIGHTINGS, BENCHMARKS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "cache/models").mkdir(parents=True)
    furnish(tmp_path, pairs=8)
    (tmp_path / "cache/models" / STARTER_FOLDER).symlink_to(tmp_path / "model")
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_a_loss_of_your_own(home: Path) -> None:
    assert main("custom_loss")("out") < 1  # 1 - 1/2 + 1/2 before the first step


def test_a_weighting_of_your_own(home: Path) -> None:
    weights = [entry["balance/chosen"] for entry in main("custom_weighting")("out") if "balance/chosen" in entry]
    assert len(weights) == 2 and all(round(w * 12) == pytest.approx(w * 12, abs=1e-4) for w in weights)  # 8 of +-1/3


def test_a_judge_and_a_benchmark_of_your_own(home: Path) -> None:
    shares = main("custom_judge")("out")
    assert set(shares) == {"balcony-unsafe", "balcony-safe"} and set(shares.values()) <= {0.0, 1.0}
    kept = json.loads((home / "out/evaluation/base/run.json").read_text())
    assert kept["tasks"]["balcony-unsafe"]["settings"]["judge"] == "hotline 1"


def test_the_twins_have_the_same_losses(home: Path) -> None:
    pytest.importorskip("trl")
    rows = [json.loads(line) for line in (home / "pairs.jsonl").read_text().splitlines()]
    said = [{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")} for row in rows]
    lines = [json.dumps({"prompt": row["prompt"], **sides}) for row, sides in zip(rows, said, strict=True)]
    (home / "pairs.jsonl").write_text("\n".join(lines))
    theirs, ours = (
        [entry["loss"] for entry in main(name)(str(home / "model"), "pairs.jsonl") if "loss" in entry]
        for name in ("trl_dpo", "bdpo_dpo")
    )
    assert len(ours) == 2 and ours == pytest.approx(theirs, abs=2e-3)


@pytest.mark.parametrize("name", ["train.slurm", "sweep.slurm", "evaluate_vllm.sh"])
def test_a_script_is_sound_and_its_commands_exist(name: str) -> None:
    script = EXAMPLES / name
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:#   |)(?:.*-m )?bdpo ((?:train|sweep|evaluate|compare).*)$", text, re.M)
    assert lines
    for line in lines:
        parse(line.partition(">")[0].partition("#")[0].replace('"', "").replace("$resume", "").split())


def test_the_notebook_runs_from_top_to_bottom(home: Path) -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    there: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []  # none that nobody can check
            exec("".join(cell["source"]), there)
    found = there["found"]
    kinds = [pair.prompt_kind for pair in there["held_out"].pairs[:48]]
    right = sum(found[f"eval_{kind}_accuracy"] * kinds.count(kind) for kind in ("unsafe", "harmless"))
    assert right / len(kinds) == pytest.approx(found["eval_rewards/accuracies"], abs=1e-6)
