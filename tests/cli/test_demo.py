"""What `bdpo demo` ends with, of two tiny models: the numbers are those of the outcomes written."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bdpo.cli import demo
from bdpo.evaluate.plan import Plan
from bdpo.evaluate.replies.collect import Sampling
from bdpo.pairs import write_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Two models of unlike weights, and 12 pairs in place of the 85 held-out ones."""
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate(("before", "after")):
        tiny_model(seed=seed).save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(12))
    monkeypatch.setattr(demo, "_RANKED", Plan("", pairs=str(tmp_path / "pairs.jsonl")))
    monkeypatch.setattr(demo, "_ASKED", Plan("starter", limit=2, sampling=Sampling(max_new_tokens=4)))
    return [(name, str(tmp_path / name)) for name in ("before", "after")]


def test_preferences_by_kind_before_and_after_and_a_few_replies(models: list[tuple[str, str]], tmp_path: Path) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    before, after = models
    demo.show_change(before, after, tmp_path / "evaluation", console)
    said = console.export_text()

    def outcomes(name: str, task: str) -> list[dict[str, Any]]:
        lines = (tmp_path / "evaluation" / name / f"{task}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line[:1] == "│"]
    table = {name: cells for name, *cells in rows}
    old, new = (outcomes(name, "preferences") for name in ("before", "after"))
    for kind in ("unsafe", "harmless"):
        places = [place for place, outcome in enumerate(old) if outcome["kind"] == kind]
        gains = [new[place]["margin"] - old[place]["margin"] for place in places]
        reward = f"{100 * np.mean([gain > 0 for gain in gains]):.1f} ["
        margin = f"{np.mean(gains):.2f} ["
        ranked = [f"{100 * np.mean([of[place]['margin'] > 0 for place in places]):.1f} [" for of in (old, new)]
        for name, numbers in (("", ranked), (" reward", ["-", reward]), (" log-ratio margin", ["-", margin])):
            prompts, *cells = table[f"preferences {kind}{name}"]
            assert prompts == str(len(places))
            assert all(cell.startswith(number) for cell, number in zip(cells, numbers, strict=True)), cells
    assert "preferences balanced reward" in said
    replies = said.partition("Sample replies")[2]
    assert all(outcomes("before", task)[0]["request"][:20] in replies for task in ("starter-unsafe", "starter-safe"))


def test_the_demo_ranks_all_85_held_out_pairs() -> None:
    from bdpo.evaluate.judges import make_judge
    from bdpo.evaluate.plan import plan_tasks

    [task], missing = plan_tasks(demo._RANKED, make_judge("rules"))
    kinds = [item.kind for item in task.items]
    assert (kinds.count("unsafe"), kinds.count("harmless"), len(kinds), missing) == (56, 29, 85, {})
