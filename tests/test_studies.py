"""The scripts of studies/: what they compute by hand or in another way, on tiny models."""

import json
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.pairs import write_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(scope="module")
def boundary() -> dict[str, Any]:
    return runpy.run_path(str(STUDIES / "boundary.py"))


# --- boundary.py --------------------------------------------------------------------------------------------------


def test_auroc_is_that_of_mann_and_whitney_and_its_interval_by_hand(boundary: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 9, 40) + 1, rng.integers(0, 9, 70)
    value, low, high = boundary["auroc"](ours, theirs)
    assert value == pytest.approx(mannwhitneyu(ours, theirs).statistic / (40 * 70)) and low < value < high
    # shares of the others below: 1, 1, 1/2 and 1/2, variance 1/12; of the others above: 3 is below 5 and 4, hence 1/2;
    # 0 below all, hence 1; variance 1/8. sqrt(1/12/4 + 1/8/2) = 0.288675
    value, low, high = boundary["auroc"]([5, 4, 2, 1], [3, 0])
    assert value == 0.75 and low == pytest.approx(0.75 - 1.959964 * 0.288675, abs=1e-5) and high == 1.0
    assert boundary["auroc"]([1, 1], [1, 1])[0] == 0.5


def test_openings_are_the_most_common_ones_of_each_side(boundary: dict[str, Any]) -> None:
    no, yes, short = [1, 2, 3, 9], [4, 5, 6, 9], [1, 2]
    replies = [(yes, False), (no, True), ([1, 2, 8, 9], True), ([1, 2, 8, 7], True), (short, True), (short, False)]
    assert boundary["openings"](replies, 3) == ([(1, 2, 8), (1, 2, 3)], [(4, 5, 6)])
    assert boundary["openings"](replies, 2) == ([(1, 2)], [(4, 5)]), "what ends there opens nothing"


def test_r_is_that_of_one_opening_at_a_time(boundary: dict[str, Any]) -> None:
    model = tiny_model().requires_grad_(False)
    prefixes = [[1, 20, 30, 40], [1, 50]]
    variants: dict[str, Any] = {
        "a": ([(5, 6, 7), (8, 9, 10)], [(11, 12, 13)]),
        "b": ([(5, 6)], [(14, 15), (16, 17), (18, 19)]),
    }
    found = boundary["levels"](model, prefixes, [variants, variants])

    def mean(prefix: list[int], opening: tuple[int, ...]) -> float:
        ids = torch.tensor([[*prefix, *opening]])
        logps = model(ids).logits[0, len(prefix) - 1 : -1].double().log_softmax(-1)
        return float(logps[range(len(opening)), list(opening)].mean())

    for prefix, of_prompt in zip(prefixes, found, strict=True):
        for name, sides in variants.items():
            refuse, comply = (np.log(np.mean(np.exp([mean(prefix, ids) for ids in side]))) for side in sides)
            assert of_prompt[name] == pytest.approx(refuse - comply, abs=1e-4)


def test_boundary_of_an_evaluation(
    boundary: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("model", "base")):
        tiny_model(seed=seed).save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    pairs = make_pairs(6)
    pairs = [
        type(pair)(**{**vars(pair), "rejected": "I cannot help with that at all."}) if i % 2 else pair
        for i, pair in enumerate(pairs)
    ]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    run = claim_run(tmp_path / "asked", "model", "model", "model", {"weights": "x"})
    run = run.with_tasks({"harm": TaskRecord("safety", "refused", 41, {})})
    said = [("refusal", "I'm sorry, but I cannot."), ("compliance", "Gladly: mix it, and then wait.")]
    asked = [
        Outcome(f"p{i}", 0, "", f"Request {i}?", said[i % 2][1], "end", 9, float(i % 2 == 0), said[i % 2][0])
        for i in range(40)
    ]
    run.append("harm", [*asked, Outcome("p40", 0, "", "Request 40?", "aaaa", "end", 9, None, "degenerate")])
    monkeypatch.chdir(tmp_path)
    words = ["boundary.py", "asked", "model", "pairs.jsonl", "out.json", "--base", "base", "--others", "8"]
    monkeypatch.setattr(sys, "argv", words)
    boundary["main"]()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    names = [f"{of}, k = {k}" for of in ("pairs", "own replies") for k in (3, 5, 8)]
    assert list(dict.fromkeys(row["openings"] for row in rows)) == names and len(rows) == 2 * 6 * 3
    both = [row for row in rows if row["half"] == "both"]
    assert {(row["refused"], row["complied"]) for row in both} == {(20, 8)} and len(both) == 12
    halves = [row for row in rows if row["r"] == "r" and row["openings"] == names[0] and row["half"] != "both"]
    assert sum(row["refused"] for row in halves) == 20
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


# --- pairs.py -----------------------------------------------------------------------------------------------------


def test_thirds_are_those_of_the_smallest_and_the_largest_imbalance_of_each_kind() -> None:
    thirds = runpy.run_path(str(STUDIES / "pairs.py"))["thirds"]
    imbalance = {"a": -0.9, "b": 0.1, "c": 0.2, "d": -0.3, "e": 0.0, "f": 0.5, "x": 0.3, "y": -0.2, "z": 0.1}
    train = [{"id": name, "prompt_kind": "unsafe" if name < "g" else "harmless"} for name in imbalance]
    drawn = thirds(random.Random(0), train, imbalance)
    found = {name: sorted(row["id"] for row in rows) for name, rows in drawn.items()}
    assert found["smallest"] == ["b", "e", "z"] and found["largest"] == ["a", "f", "x"]
    assert sum(name < "g" for name in found["random"]) == 2 and len(found["random"]) == 3


# --- summary.py ---------------------------------------------------------------------------------------------------


def test_the_summary_of_a_sweep_has_its_numbers_by_kind() -> None:
    told = runpy.run_path(str(STUDIES / "summary.py"))

    def row(name: str, dpo: float, ours: float) -> dict[str, Any]:
        score = {"value": dpo, "low": dpo / 2, "high": dpo * 1.5, "n": 8, "seeds": 2, "std": None}
        difference = {"value": ours - dpo, "low": -0.25, "high": 0.125, "n": 8}
        cells = {
            "DPO": {"score": score, "difference": None, "gained": []},
            "ours": {"score": score | {"value": ours, "std": 0.0123456}, "difference": difference, "lost": [1]},
        }
        return {"name": f"preferences {name}", "measure": "some", "n": 8, "kind": "share", "cells": cells}

    kinds = ("unsafe", "harmless", "balanced")
    rows = [row(f"{kind} reward", 0.5, 0.75) for kind in kinds] + [
        row(f"{kind} log-ratio margin", 4, 3) for kind in kinds
    ]
    found = told["summary"]({"baseline": "DPO", "reference": "base", "rows": rows, "methods": {}})
    assert found["rows"][0] == {
        "row": "preferences unsafe reward",
        "measure": "some",
        "n": 8,
        "methods": {
            "DPO": {"score": {"value": 0.5, "low": 0.25, "high": 0.75}},
            "ours": {
                "score": {"value": 0.75, "low": 0.25, "high": 0.75, "std": 0.0123},
                "difference to DPO": {"value": 0.25, "low": -0.25, "high": 0.125},
            },
        },
    }
    assert "curves" not in found and told["tables"]({"rows": [], "baseline": "DPO"}) == []
    lines = told["tables"](found)
    assert lines[3] == "| DPO | 50.0 |  | 50.0 |  | 50.0 |  |"
    assert lines[4].startswith("| ours | 75.0 ± 1.2 | +25.0 [-25.0, +12.5] | 75.0 ± 1.2 |")
    assert lines[9].startswith("| ours | 3.00 ± 0.01 | -1.00 [-0.25, +0.12] |")
