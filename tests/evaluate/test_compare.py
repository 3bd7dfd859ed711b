"""Comparing runs: every number by hand on record files written here, and what is refused."""

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from runs_written import SETTINGS, SUITE_OF, outcome, row, write_run

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.records import RecordFile
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.outcomes import TaskRecord, claim_run, open_runs
from bdpo.evaluate.results.statistics import Mean, Part, Rate, compare_means, mean
from bdpo.evaluate.results.tables import Grid

# --- one benchmark ------------------------------------------------------------------------------------------------
BASE = {"strongreject": [0, 1, 0, 0], "xstest-safe": [1, 1, 1, 1]}
SAFE = {"strongreject": [1, 1, 1, 0], "xstest-safe": [1, 1, 0, 0]}


def test_rates_and_paired_differences_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path, "base", BASE)
    write_run(tmp_path, "DPO", SAFE)
    found = compare([tmp_path])
    assert (found.baseline, list(found.methods), found.weights) == (
        "base",
        ["base", "DPO"],
        {"safety": 0.5, "over-refusal": 0.5},
    )
    strongreject = row(found, "strongreject")
    assert strongreject.n == 4 and strongreject.cells["base"].difference is None
    score, difference = strongreject.cells["DPO"].score, strongreject.cells["DPO"].difference
    assert isinstance(score, Rate) and (score.successes, score.n, score.value) == (3, 4, 0.75)
    assert difference is not None
    # won prompts 0 and 2, lost none: McNemar p = 2 / 2^2; 0.5 - sqrt(2) 0.449358 to 0.5 + sqrt(2) 0.204413 (Newcombe)
    assert difference.value == 0.5
    assert (difference.low, difference.high) == pytest.approx((-0.135489, 0.789084), abs=2e-6)
    assert (difference.gained, difference.lost, difference.p) == (2, 0, 0.5)


def test_holm_is_over_all_p_values_of_the_table(tmp_path: Path) -> None:
    ones, zeros = [1.0] * 8, [0.0] * 8
    write_run(tmp_path, "base", {"strongreject": zeros, "xstest-safe": ones})
    write_run(tmp_path, "DPO", {"strongreject": ones, "xstest-safe": [0.0] + [1.0] * 7})
    found = compare([tmp_path])
    # p of 8 against 0 is 2 / 2^8 = 1/128, of 0 against 1 it is 1; the smaller of two is doubled
    cells = [row(found, name).cells["DPO"] for name in ("strongreject", "xstest-safe")]
    assert [cell.difference.p for cell in cells if cell.difference] == [1 / 128, 1.0]
    assert [cell.p_holm for cell in cells] == [1 / 64, 1.0]


def test_a_prompt_that_one_judge_could_not_read_is_left_out_of_every_method(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"strongreject": [0, 1, 0, 0]})
    write_run(tmp_path, "DPO", {"strongreject": [1, 1, None, 0]})
    found = row(compare([tmp_path]), "strongreject")
    assert (found.n, found.unread) == (3, 1)
    assert [found.cells[name].score.value for name in ("base", "DPO")] == [1 / 3, 2 / 3]


def test_samples_of_a_prompt_are_averaged_first(tmp_path: Path) -> None:
    for name, scores in (("base", (0, 0, 0, 0)), ("DPO", (1, 0, 1, 1))):
        run = claim_run(tmp_path, name, name, name, {"weights": name})
        run = run.with_tasks({"gsm8k": TaskRecord("capability", "right", 4, SETTINGS | {"samples": 2})})
        run.append("gsm8k", [outcome(f"p{i // 2}", score, sample=i % 2) for i, score in enumerate(scores)])
    cell = row(compare([tmp_path]), "gsm8k").cells["DPO"]
    assert isinstance(cell.score, Mean) and (cell.score.value, cell.score.n) == (0.75, 2)
    assert cell.p_holm is None and cell.difference and cell.difference.value == 0.75


def test_means_of_several_samples_are_no_outcomes_even_where_all_are_0_or_1(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"gsm8k": [0, 0]}, samples=2)
    write_run(tmp_path, "DPO", {"gsm8k": [1, 1]}, samples=2)
    cell = row(compare([tmp_path]), "gsm8k").cells["DPO"]
    assert isinstance(cell.score, Mean) and cell.difference and (cell.difference.p, cell.p_holm) == (None, None)


# --- averages -----------------------------------------------------------------------------------------------------
def test_the_same_prompts_in_another_wording_are_shown_and_not_averaged(tmp_path: Path) -> None:
    SUITE_OF["strongreject+rot13"] = "safety"
    write_run(tmp_path, "base", {"strongreject": [1, 1, 1, 0], "strongreject+rot13": [0, 0, 0, 0], "advbench": [0, 1]})
    found = compare([tmp_path])
    assert row(found, "strongreject+rot13").cells["base"].score.value == 0
    assert row(found, "safety").cells["base"].score.value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert row(found, "overall").n == 6


def test_suites_are_macro_averages_and_overall_is_weighted(tmp_path: Path) -> None:
    scores = {"strongreject": [1, 1, 1, 0], "advbench": [0, 1], "xstest-safe": [1, 0], "gsm8k": [0, 0, 1, 0]}
    write_run(tmp_path, "base", scores)
    found = compare([tmp_path], weights={"safety": 2, "over-refusal": 1, "capability": 1})
    value = {row.name: row.cells["base"].score.value for row in found.rows}
    assert value["safety"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert (value["over-refusal"], value["capability"]) == (0.5, 0.25)
    assert value["overall"] == pytest.approx(0.5 * 0.625 + 0.25 * 0.5 + 0.25 * 0.25)
    assert found.weights == {"safety": 0.5, "over-refusal": 0.25, "capability": 0.25}
    assert (row(found, "safety").n, row(found, "overall").n) == (6, 12)


def test_an_average_draws_each_benchmarks_prompts_apart() -> None:
    # a rate of 0 and a rate of 1 have an average of 1/2 whatever is drawn
    found = mean([0, 0, 0, 1, 1], parts=[Part(3, 0.5), Part(2, 0.5)])
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 5)
    weighted = compare_means([[1, 1, 3, 3]], [[0, 0, 0, 0]], parts=[Part(2, 0.75), Part(2, 0.25)])
    assert (weighted.value, weighted.low, weighted.high) == (1.5, 1.5, 1.5)
    seeds = mean([[0, 0, 1, 1], [1, 1, 1, 1]], parts=[Part(2, 0.5), Part(2, 0.5)])
    assert seeds.value == 0.75 and seeds.std == pytest.approx(np.std([0.5, 1.0], ddof=1))


def test_an_average_of_rates_has_a_width_where_all_are_0_or_1(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"strongreject": [0] * 10, "xstest-safe": [1] * 10})
    overall = row(compare([tmp_path]), "overall").cells["base"].score
    assert (overall.value, overall.n) == (0.5, 20)  # half of Wilson's 0.277533 (statistics.rate) to either side
    assert (overall.low, overall.high) == (pytest.approx(0.361233, abs=1e-6), pytest.approx(0.638767, abs=1e-6))


def test_parts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(BdpoError, match="The parts have 3 prompts, the scores 2"):
        mean([0, 1], parts=[Part(3, 1.0)])


# --- seeds --------------------------------------------------------------------------------------------------------
def test_runs_of_one_name_are_seeds_of_one_method(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"strongreject": [0, 0, 0]})
    write_run(tmp_path, "DPO", {"strongreject": [1, 1, 0]}, model="runs/1")
    write_run(tmp_path, "DPO", {"strongreject": [1, 0, 0]}, model="runs/2")
    assert [run.folder.name for run in open_runs(tmp_path)] == ["base", "dpo", "dpo-2"]
    found = compare([tmp_path])
    assert found.methods == {"base": ["base"], "DPO": ["runs/1", "runs/2"]}
    cell = row(found, "strongreject").cells["DPO"]
    assert isinstance(cell.score, Mean)  # the doctest of statistics.mean has these numbers
    assert (cell.score.value, cell.score.seeds) == (0.5, 2) and cell.score.std == pytest.approx(0.235702, abs=1e-6)
    assert cell.difference and (cell.difference.value, cell.difference.seeds, cell.difference.p) == (0.5, 2, None)


def test_the_same_weights_in_two_folders_are_one_run(tmp_path: Path) -> None:
    for folder, seed in (("a", [1, 1]), ("b", [0, 1])):
        write_run(tmp_path / folder, "base", {"strongreject": [0, 0]})
        write_run(tmp_path / folder, "DPO", {"strongreject": seed}, model=f"runs/{folder}")
    found = compare([tmp_path / "a", tmp_path / "b"])
    assert {name: len(models) for name, models in found.methods.items()} == {"base": 1, "DPO": 2}


# --- preferences --------------------------------------------------------------------------------------------------
def test_what_a_second_folder_adds_to_the_same_weights_is_not_lost(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "base", {"strongreject": [1, 0]})
    write_run(tmp_path / "b", "base", {"gsm8k": [1, 0]})
    with pytest.raises(BdpoError, match="are the same weights under one name, and differ in gsm8k: evaluate into one"):
        compare([tmp_path / "a", tmp_path / "b"])


def test_preferences_have_a_margin_and_the_reward_accuracy_against_the_baseline(tmp_path: Path) -> None:
    for name, margins in (("base", [-2.0, 1.0, 3.0, -1.0]), ("DPO", [1.0, 0.5, 5.0, -0.5])):
        run = claim_run(tmp_path, name, name, name, {"weights": name})
        run = run.with_tasks({"preferences": TaskRecord("preferences", "ranked", 4, SETTINGS)})
        lines = [outcome(f"p{i}", float(value > 0), margin=value) for i, value in enumerate(margins)]
        run.append("preferences", lines)
    found = compare([tmp_path])
    assert [row.name for row in found.rows] == ["preferences", "preferences margin", "preferences reward"]
    ranked, margin, reward = found.rows
    assert [ranked.cells[name].score.value for name in ("base", "DPO")] == [0.5, 0.75]
    assert margin.cells["base"].score.value == 0.25 and margin.cells["DPO"].score.value == 1.5
    difference = margin.cells["DPO"].difference
    assert difference and difference.value == 1.25  # (3 - 0.5 + 2 + 0.5) / 4
    assert list(reward.cells) == ["DPO"] and reward.cells["DPO"].score.value == 0.75
    assert found.weights == {}


# --- refusals -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("field", "value"), [("prompts", "4 prompts (bbbb)"), ("judge", "llm 1"), ("max_new_tokens", 128)]
)
def test_runs_under_other_settings_are_refused_by_field(tmp_path: Path, field: str, value: Any) -> None:
    write_run(tmp_path, "base", BASE)
    write_run(tmp_path, "DPO", SAFE, **{field: value})
    with pytest.raises(BdpoError) as caught:
        compare([tmp_path])
    assert str(caught.value) == (
        f"strongreject was evaluated with another {field} in {tmp_path}/base ({SETTINGS[field]}) than in "
        f"{tmp_path}/dpo ({value}): such runs cannot be compared; evaluate one of them again."
    )


def test_what_not_every_run_has_is_left_out_and_said(tmp_path: Path) -> None:
    write_run(tmp_path, "base", BASE)
    write_run(tmp_path, "DPO", {"strongreject": SAFE["strongreject"], "gsm8k": [1]})
    found = compare([tmp_path])
    assert found.left_out == ["gsm8k", "xstest-safe"] and list(found.settings) == ["strongreject"]


def test_nothing_in_common_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"gsm8k": [1]})
    write_run(tmp_path, "DPO", {"strongreject": [1]})
    with pytest.raises(BdpoError, match="no benchmark in common: evaluate them with the same --suite"):
        compare([tmp_path])


def test_an_evaluation_cut_short_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", BASE)
    lines = (run.folder / "strongreject.jsonl").read_text().splitlines(keepends=True)
    (run.folder / "strongreject.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20])  # torn
    with pytest.raises(BdpoError, match=r"strongreject.jsonl holds 3 of 4 outcomes: run the same `bdpo evaluate`"):
        compare([tmp_path])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"baseline": "dpo"}, "No method 'dpo' to compare with; there are base, DPO."),
        ({"weights": {"safty": 1.0}}, "--weights: 'safty' was not evaluated; there are safety, over-refusal."),
        ({"weights": {"safety": -1.0}}, "--weights: each must be 0 or more, and one of them above 0."),
        ({"weights": {"safety": 0.0}}, "--weights: each must be 0 or more, and one of them above 0."),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    write_run(tmp_path, "base", BASE)
    write_run(tmp_path, "DPO", SAFE)
    with pytest.raises(BdpoError) as caught:
        compare([tmp_path], **arguments)
    assert str(caught.value) == said


def test_a_folder_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"holds no evaluation \(no \*/run.json\): run `bdpo evaluate --out"):
        compare([tmp_path])
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(BdpoError, match=r"base/run.json cannot be read \(another format\)"):
        compare([tmp_path])


# --- the folder ---------------------------------------------------------------------------------------------------
def test_a_model_keeps_its_folder_and_other_weights_are_refused(tmp_path: Path) -> None:
    first = claim_run(tmp_path, "B-DPO (mine)", "runs/x", "runs/x", {"weights": "aaaa"})
    assert first.folder.name == "b-dpo-mine"
    assert claim_run(tmp_path, "B-DPO (mine)", "runs/x", "runs/x", {"weights": "aaaa"}) == first
    assert claim_run(tmp_path, "B-DPO (mine)", "runs/y", "runs/y", {"weights": "bbbb"}).folder.name == "b-dpo-mine-2"
    assert claim_run(tmp_path, "B-DPO (mine)", "/home/me/runs/x", "runs/x", {"weights": "aaaa"}) == first, (
        "its own path"
    )
    assert claim_run(tmp_path, "another", "runs/x", "runs/x", {"weights": "aaaa"}).folder.name == "another"
    folders = {"results.json": "results-json", "v1.5": "v1.5", "x" * 300: "x" * 100}  # the first is a file of ours
    for name, folder in folders.items():
        assert claim_run(tmp_path, name, "runs/z", "runs/z", {"weights": "dddd"}).folder.name == folder
    with pytest.raises(BdpoError) as caught:
        claim_run(tmp_path, "B-DPO (mine)", "runs/x", "runs/x", {"weights": "cccc"})
    assert str(caught.value) == (
        f"{first.folder} holds results that depend on something else; it differs in weights (aaaa there, cccc now). "
        "Choose another --out, or remove what is there."
    )


def test_a_task_under_other_settings_is_refused_and_further_tasks_are_added(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", BASE)
    record = TaskRecord("capability", "right", 1, SETTINGS)
    assert set(run.with_tasks({"gsm8k": record}).tasks) == {"strongreject", "xstest-safe", "gsm8k"}
    with pytest.raises(BdpoError, match=r"base: xstest-safe holds .* differs in judge \(rules 1 there, llm 1 now\)"):
        run.with_tasks({"xstest-safe": TaskRecord("over-refusal", "answered", 4, SETTINGS | {"judge": "llm 1"})})


# --- what a folder holds that was not written here ----------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"score": "high"}, {"tokens": None}, {"more": 1}])
def test_outcomes_of_other_fields_or_types_are_refused_by_field(tmp_path: Path, fields: dict[str, Any]) -> None:
    run = write_run(tmp_path, "base", {"xstest-safe": [1.0]})
    RecordFile(run.folder / "xstest-safe.jsonl").append([asdict(outcome("p1", 1.0)) | fields])
    with pytest.raises(
        BdpoError, match=rf"xstest-safe.jsonl cannot be read \('{next(iter(fields))}': .*another folder"
    ):
        compare([tmp_path])


@pytest.mark.parametrize(("field", "value"), [("order", "first"), ("name", 3), ("tasks", [])])
def test_a_run_of_other_types_is_refused_by_field(tmp_path: Path, field: str, value: Any) -> None:
    file = write_run(tmp_path, "base", {"xstest-safe": [1.0]}).folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(BdpoError, match=rf"run.json cannot be read \('{field}': .*another folder"):
        compare([tmp_path])


def test_tables_obey_no_markup_and_no_escapes() -> None:
    console = Console(file=io.StringIO(), width=120, color_system="truecolor", force_terminal=True)
    evil = "[red]\x1b]0;x\x07:smile:"
    Grid(evil, ("", evil), [(evil, evil)], (evil,)).render(console)
    assert console.file.getvalue().count(r"[red]\x1b]0;x\x07:smile:") == 5  # type: ignore[attr-defined]


def test_columns_that_a_line_has_no_room_for_stand_in_a_further_table() -> None:
    # by hand: 8 + 4 characters for the first column; with two columns of 10 + 3 each 38 of 40, and a third has no room
    grid = Grid("Settings", ("setting", "a of [%]", "b", "c"), [("DPO 0.25", "0123456789", "[1.0, 2.0]", "short")])
    console = Console(file=io.StringIO(), width=40)
    grid.render(console)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, printed)) <= 40 and sum("setting" in line for line in printed) == 2
    [first, second] = [line for line in printed if "DPO 0.25" in line]
    assert "0123456789" in first and "[1.0, 2.0]" in first and "short" in second
    assert [line.strip() for line in printed].count("Settings") == 1
