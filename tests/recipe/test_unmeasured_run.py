"""A run without the balance: scored in one pass, and whatever needs comprehension is left out rather than made up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bdpo.errors import BdpoError
from bdpo.forward import passes
from bdpo.recipe.run import RunResult, run_recipe
from bdpo.recipe.sections import Recipe, parse_recipe
from bdpo.report.page import write_report
from bdpo.report.runs import open_run
from bdpo.score import open_scores
from bdpo.train import BDPOConfig
from tiny import Bdpo

OFF = {"balance": {"enabled": False}}


@pytest.fixture(autouse=True, scope="module")
def in_home(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield


def recipe_in(home: Path, **sections: Any) -> Recipe:
    return parse_recipe({
        "model": {"name": str(home / "model")},
        "data": {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl")},
        "score": {"dir": str(home / "scores")},
        "train": {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 8, "max_steps": 2,
                  "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "steps", "save_steps": 1},
        **sections,
    })  # fmt: skip


@pytest.fixture(scope="module")
def passed(home: Path) -> Iterator[list[int]]:
    """Response tokens of each forward pass of the frozen model."""
    tokens: list[int] = []
    branch_logps = passes.branch_logps

    def counted(model: Any, batch: Any, **how: Any) -> Any:
        tokens.append(int(batch.lengths.sum()))
        return branch_logps(model, batch, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "branch_logps", counted)
        yield tokens


@pytest.fixture(scope="module")
def run(home: Path, passed: list[int]) -> RunResult:
    return run_recipe(recipe_in(home, **OFF), home / "dpo")


def reply_tokens(folder: Path) -> int:
    rows = open_scores(folder).rows
    return sum(len(ids) for side in ("chosen", "rejected") for ids in rows[f"{side}_ids"])


def test_each_reply_is_computed_once(run: RunResult, home: Path, passed: list[int]) -> None:
    record = json.loads((run.out / "run.json").read_text())
    folders = [Path(record["scores"][part]["path"]) for part in ("train", "eval")]
    assert sum(passed) == sum(map(reply_tokens, folders))
    assert [open_scores(folder).measured for folder in folders] == [False, False]
    assert run.scores.manifest["key"]["estimator"] == "none" and run.scores.path == home / "scores"


def test_what_needs_comprehension_is_absent(run: RunResult) -> None:
    names = {name for entry in run.history for name in entry}
    assert "eval_rewards/margins" in names and not {name for name in names if "imbalance" in name}
    assert {entry["balance/chosen"] for entry in run.history if "loss" in entry} == {1.0}, "which is DPO's weight"
    record = json.loads((run.out / "run.json").read_text())
    assert (record["tau"], record["tercile_edges"]) == (None, None)
    held = pq.read_table(run.out / "heldout.parquet")
    assert held["d"].to_pylist() == [None] * 9 and str(held.schema.field("d").type) == "double"
    assert held["w_c"].to_pylist() == held["w_r"].to_pylist() == [1.0] * 9
    assert "Comprehension was not needed and not measured" in (run.out / "README.md").read_text()


def test_the_report_says_that_it_was_not_measured(run: RunResult, tmp_path: Path) -> None:
    assert open_run(run.out).points == []
    write_report([run.out], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"Comprehension was not measured for {run.out}: it trained without the balance." in page
    assert 'id="comprehension"' not in page and "Training against held out" in page


def test_the_pairs_are_not_shown_with_scores_that_say_nothing(run: RunResult, bdpo_: Bdpo, home: Path) -> None:
    code, _, err = bdpo_("data", "show", "pairs.jsonl", "--scores", "scores")
    assert code == 2 and "--scores scores: comprehension was not measured there; run bdpo score" in err


def test_balance_takes_over_the_folder_and_the_run_before_goes_on(run: RunResult, home: Path) -> None:
    reference = list(run.scores.rows["ref_chosen_logps"])
    weights = (run.out / "model.safetensors").read_bytes()
    balanced = run_recipe(recipe_in(home), home / "b-dpo")
    assert balanced.scores.path == home / "scores" and balanced.scores.measured
    assert list(balanced.scores.rows["ref_chosen_logps"]) == pytest.approx(reference, abs=1e-5)
    assert len(open_run(run.out).points) == 21, "its pairs have been measured since"
    (run.out / "checkpoint-2").rename(run.out / "gone")
    (run.out / "gone" / "trainer_state.json").unlink()
    again = run_recipe(recipe_in(home, **OFF), run.out, resume=True)
    assert again.scores.measured and "imbalance_low/rewards/margins" in {n for entry in again.history for n in entry}
    assert (run.out / "model.safetensors").read_bytes() == weights


def test_without_comprehension_the_balance_is_refused(home: Path, bdpo_: Bdpo) -> None:
    said = "score.estimator is none, and comprehension is asked for: name another one (pmi), or train with"
    with pytest.raises(BdpoError) as refused:
        run_recipe(recipe_in(home, score={"estimator": "none"}), home / "never")
    assert said in str(refused.value)
    off = ("--set", "balance.enabled=false", "--model", "model", "--data", "pairs.jsonl", "--out", "measured")
    code, _, err = bdpo_("score", *off, "--estimator", "none")
    assert code == 2 and said in err and not (home / "measured").exists()
    assert bdpo_("score", *off)[0] == 0 and open_scores(home / "measured").measured, "a table is asked for"


@pytest.mark.parametrize(
    ("given", "needs"),
    [
        ({}, True), ({"balance": False}, False), ({"balance_weights": False}, True), ({"balance_scale": False}, True),
        ({"balance_weights": False, "balance_scale": False}, False), ({"temperature": float("inf")}, True),
        ({"weighting": "constant"}, True),
    ],
    ids=str,
)  # fmt: skip
def test_who_needs_comprehension(given: dict[str, Any], needs: bool, tmp_path: Path) -> None:
    args = BDPOConfig(output_dir=str(tmp_path), use_cpu=True, **given)
    assert args.needs_comprehension is needs and args.scoring().estimator == ("pmi" if needs else "none")
    assert args.scoring(measure=True).estimator == "pmi"


def test_the_best_checkpoint_by_imbalance_needs_it(tmp_path: Path) -> None:
    best = {"metric_for_best_model": "eval_imbalance_low/rewards/margins", "output_dir": str(tmp_path), "use_cpu": True}
    with pytest.raises(BdpoError, match=r"without the balance no imbalance is measured: .* temperature=inf"):
        BDPOConfig(**best, balance=False)
    assert BDPOConfig(**best, temperature=float("inf")).needs_comprehension
