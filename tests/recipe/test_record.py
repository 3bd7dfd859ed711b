"""run.json and heldout.parquet: what a run says of itself, checked against what it left behind."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from bdpo.method.balance import balance
from bdpo.pairs.kinds import KINDS
from bdpo.recipe.record import refusal_shares
from bdpo.recipe.run import RunResult, run_recipe
from bdpo.recipe.sections import parse_recipe
from bdpo.score.folder import open_scores
from tiny import furnish, make_pairs

SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunResult]:
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=21, held=9)
    for pairs in (home / "pairs.jsonl", home / "held.jsonl"):
        pairs.write_text(pairs.read_text().replace('"prompt_kind"', '"said"'))
    recipe = parse_recipe({
        "model": {"name": str(home / "model")},
        "data": {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl"),
                 "columns": {"prompt_kind": "said"}},
        "train": {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "learning_rate": 1e-3},
    })  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        yield run_recipe(recipe, home / "run")


@pytest.fixture(scope="module")
def record(run: RunResult) -> dict[str, Any]:
    return json.loads((run.out / "run.json").read_text())


def test_it_names_the_scores_that_it_trained_on(run: RunResult, record: dict[str, Any]) -> None:
    train, held = (open_scores(record["scores"][part]["path"]) for part in ("train", "eval"))
    assert record["scores"]["train"]["key"] == train.manifest["key"] == run.scores.manifest["key"]
    assert record["pairs"] == {"train": len(train.rows), "held_out": len(held.rows)} == {"train": 21, "held_out": 9}
    expected = balance(list(train.rows["chosen_mi"]), list(train.rows["rejected_mi"]))
    assert record["tau"] == pytest.approx(expected.fit.tau) and record["mean_imbalance"] == 0.0
    assert record["mean_weights"] == pytest.approx(
        {"chosen": expected.chosen_weight.mean().item(), "rejected": expected.rejected_weight.mean().item()}
    )


def test_the_hash_is_that_of_the_weights(run: RunResult, record: dict[str, Any]) -> None:
    weights = run.out / "model.safetensors"
    assert record["weights"] == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}


def test_the_tercile_edges_part_the_imbalances_in_thirds(run: RunResult, record: dict[str, Any]) -> None:
    d = [c - r for c, r in zip(run.scores.rows["chosen_mi"], run.scores.rows["rejected_mi"], strict=True)]
    low, high = record["tercile_edges"]
    assert [sum(x < low for x in d), sum(low <= x < high for x in d), sum(x >= high for x in d)] == [7, 7, 7]


def test_the_held_out_rows_give_the_logged_means(run: RunResult, record: dict[str, Any]) -> None:
    rows = pq.read_table(run.out / "heldout.parquet").to_pydict()
    held = open_scores(record["scores"]["eval"]["path"]).rows
    assert rows["id"] == list(held["id"])
    for side in ("chosen", "rejected"):
        assert rows[f"{side}_logps_before"] == list(held[f"ref_{side}_logps"])
        ratios = [a - b for a, b in zip(rows[f"{side}_logps_after"], rows[f"{side}_logps_before"], strict=True)]
        assert sum(ratios) / 9 == pytest.approx(run.metrics[f"eval_logratios/{side}"], abs=1e-4)
    assert rows["d"] == pytest.approx(
        [c - r for c, r in zip(held["chosen_mi"], held["rejected_mi"], strict=True)], abs=1e-9
    )
    assert [c + r for c, r in zip(rows["w_c"], rows["w_r"], strict=True)] == pytest.approx([2.0] * 9)


def test_held_out_kinds_are_those_that_the_column_says(run: RunResult) -> None:
    rows = pq.read_table(run.out / "heldout.parquet").to_pydict()
    assert rows["kind"] == [pair.prompt_kind for pair in make_pairs(9, seed=1)] and set(rows["kind"]) == set(KINDS)
    gained = [
        c1 - c0 - (r1 - r0)
        for c0, c1, r0, r1 in zip(*(rows[f"{s}_logps_{w}"] for s in SIDES for w in ("before", "after")), strict=True)
    ]
    for kind in KINDS:
        margins = [m for m, k in zip(gained, rows["kind"], strict=True) if k == kind]
        assert run.metrics[f"eval_{kind}_margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)
        assert run.metrics[f"eval_{kind}_accuracy"] == pytest.approx(sum(m > 0 for m in margins) / len(margins))


def test_shares_of_refusals_by_hand() -> None:
    pairs = make_pairs(4)
    pairs[0] = replace(pairs[0], chosen="I'm sorry, but I can't help with that.")
    assert refusal_shares(pairs) == {"chosen": 0.25, "rejected": 0.0}
