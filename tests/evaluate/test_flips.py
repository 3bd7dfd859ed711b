"""Prompts gained and lost, categories, seeds and the verdict of `bdpo compare`, on evaluations written by hand."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from runs_written import SETTINGS, outcome, row, write_run

from bdpo.cli.tables import render_flips
from bdpo.evaluate.results.compare import compare, methods_of
from bdpo.evaluate.results.flips import flips
from bdpo.evaluate.results.outcomes import TaskRecord, claim_run
from bdpo.evaluate.results.tables import comparison_grids, summary
from tiny import Bdpo


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


EVIL = "[red]\x1b[31m"


def written(out: Path, name: str, scores: list[float], categories: str = "aab", model: str = "") -> None:
    run = claim_run(out, name, model or name, name, {"weights": model or name})
    run = run.with_tasks({"strongreject": TaskRecord("safety", "refused", len(scores), SETTINGS)})
    run.append("strongreject", [
        outcome(f"p{i}", score, category=categories[i].strip(), request=f"Ask {i} {EVIL}", reply=f"{name} says {i}",
                verdict="refusal" if score else "compliance", reason=f"Reason {i}.")
        for i, score in enumerate(scores)
    ])  # fmt: skip


def test_gained_and_lost_by_id_and_by_category(tmp_path: Path) -> None:
    written(tmp_path, "base", [0, 1, 0], "aa ")
    written(tmp_path, "DPO", [1, 0, 1], "aa ")
    found = compare([tmp_path])
    cell = row(found, "strongreject").cells["DPO"]
    assert (cell.gained, cell.lost, cell.seeds) == (["p0", "p2"], ["p1"], [pytest.approx(2 / 3)])
    assert row(found, "safety").cells["DPO"].gained == ["p0", "p2"]
    (category,) = found.categories  # p2 has none
    assert (category.benchmark, category.category, category.suite, category.n) == ("strongreject", "a", "safety", 2)
    assert [category.cells[name].score.value for name in ("base", "DPO")] == [0.5, 0.5]
    assert (category.cells["DPO"].gained, category.cells["DPO"].lost) == (["p0"], ["p1"])
    difference = category.cells["DPO"].difference
    assert difference is not None and (difference.value, difference.p) == (0.0, None), "beside the table's p values"
    # n = 3 and phi = (0 - 2) / sqrt(2 * 1 * 1 * 2) = -1, so that the distances of Wilson's 0.207 to 0.939 (2/3) and
    # 0.062 to 0.792 (1/3) add up: 1/3 - 2 * 0.459 to 1/3 + 2 * 0.272
    shown = comparison_grids(found)[-1].rows[0][3]
    assert shown.splitlines()[2:] == ["+33.3 [-58.5, +87.7]", "2 gained, 1 lost", "p = 1.000"]


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([], ""),
        ([[0, 1, 0]], "difference p:"),  # the same replies: p is 1
        ([[1, 1, 0]], "difference Gained p:"),
        ([[1, 1, 0], [1, 1, 0]], "difference Gained"),  # two seeds
    ],
)
def test_the_legend_tells_of_what_the_table_has(tmp_path: Path, others: list[list[float]], told: str) -> None:
    written(tmp_path, "base", [0, 1, 0])
    for seed, scores in enumerate(others):
        written(tmp_path, "DPO", scores, model=f"s{seed}")
    grid = comparison_grids(compare([tmp_path]))[-1]
    legend, cells = grid.notes[0], grid.rows[0][-1]
    words = ("difference", "Gained", "p:")
    assert [word for word in words if f" {word}" in legend.replace("differences", "")] == told.split()
    shown = {"difference": "+", "Gained": "gained", "p:": "p = "}
    assert [word for word in words if shown[word] in cells] == told.split()
    assert ("Newcombe" in legend) == bool(others)


def test_of_several_seeds_the_majority_counts(tmp_path: Path) -> None:
    written(tmp_path, "base", [0, 1, 0])
    for model, scores in (("s1", [1, 0, 0]), ("s2", [1, 1, 1]), ("s3", [0, 0, 0])):
        written(tmp_path, "DPO", scores, model=model)  # means of 2/3, 1/3 and 1/3
    found = compare([tmp_path])
    cell = row(found, "strongreject").cells["DPO"]
    assert (cell.gained, cell.lost) == (["p0"], ["p1"])
    assert (
        cell.seeds == pytest.approx([1 / 3, 1, 0]) and cell.difference and cell.difference.value == pytest.approx(1 / 9)
    )


def test_two_seeds_that_disagree_are_neither(tmp_path: Path) -> None:
    written(tmp_path, "base", [1, 0, 1])
    for model, scores in (("s1", [0, 1, 0]), ("s2", [1, 0, 0])):
        written(tmp_path, "DPO", scores, model=model)
    cell = row(compare([tmp_path]), "strongreject").cells["DPO"]
    assert (cell.gained, cell.lost) == ([], ["p2"])


def test_averages_have_seeds_and_flips_of_all_their_benchmarks(tmp_path: Path) -> None:
    write_run(tmp_path, "base", {"strongreject": [0, 0], "advbench": [1, 0, 0, 0]})
    write_run(tmp_path, "DPO", {"strongreject": [1, 0], "advbench": [0, 0, 0, 1]})
    cell = row(compare([tmp_path]), "safety").cells["DPO"]
    assert (cell.gained, cell.lost, cell.seeds) == (["p0", "p3"], ["p0"], [0.375])  # (1/2 + 1/4) / 2


def test_flips_show_both_replies_and_the_reason(tmp_path: Path) -> None:
    written(tmp_path, "base", [0, 1, 0])
    written(tmp_path, "DPO", [1, 0, 1])
    found, methods = compare([tmp_path]), methods_of([tmp_path])
    told = flips(found, methods, 1)
    assert [(flip.benchmark, flip.method, flip.gained, flip.after.id) for flip in told] == [
        ("strongreject", "DPO", True, "p0"),
        ("strongreject", "DPO", False, "p1"),
    ]
    assert len(flips(found, methods, 5)) == 3
    console = Console(file=io.StringIO(), width=80)
    render_flips(told[:1], "base", console)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1:] == [
        "strongreject, p0: gained by DPO",
        "prompt  Ask 0 [red]\\x1b[31m",
        "base    base says 0",
        "        -> compliance: Reason 0.",
        "DPO     DPO says 0",
        "        -> refusal: Reason 0.",
    ]


def test_of_seeds_a_reply_is_shown_that_flipped(tmp_path: Path) -> None:
    written(tmp_path, "base", [0, 1, 0])
    for model, scores in (("s1", [0, 1, 0]), ("s2", [1, 1, 0]), ("s3", [1, 1, 0])):
        written(tmp_path, "DPO", scores, model=model)
    (flip,) = flips(compare([tmp_path]), methods_of([tmp_path]), 5)
    assert (flip.before.score, flip.after.score, flip.after.id) == (0, 1, "p0")


def test_compare_ends_with_the_verdict(bdpo_: Bdpo, tmp_path: Path) -> None:
    many = 120
    write_run(tmp_path, "base", {"strongreject": [0] * many, "xstest-safe": [1] * many})
    write_run(tmp_path, "DPO", {"strongreject": [1] * 60 + [0] * 60, "xstest-safe": [1] * many})
    code, out, _ = bdpo_("compare", str(tmp_path), "--show", "flips", "--top", "2")
    # Newcombe's, phi 0: 1/2 - sqrt(0.0881^2 + 0.0310^2) to 1/2 + 0.0881, of Wilson's of 60 and of 0 of 120
    sentence = (
        "Refuses more (+50.0 points [+40.7, +58.8]) at a cost of at most 5 points. This is one seed: another training "
        "run may come out otherwise."
    )
    assert code == 0 and " ".join(out.split()).endswith(f"DPO: {sentence}")
    assert [line for line in out.splitlines() if ": gained by DPO" in line] == [
        f"strongreject, p{i}: gained by DPO" for i in (0, 1)
    ]
    written = json.loads((tmp_path / "compare.json").read_text())
    assert written["verdicts"] == {"DPO": sentence}
    assert len(written["rows"][0]["cells"]["DPO"]["gained"]) == 60
    assert (tmp_path / "compare.md").read_text().endswith(f"\nDPO: {sentence}\n")


def test_nothing_is_judged_where_nothing_was_asked(bdpo_: Bdpo, tmp_path: Path) -> None:
    for name in ("base", "DPO"):
        write_run(tmp_path / "pairs", name, {"preferences": [1, 0]})
        write_run(tmp_path / "capability", name, {"gsm8k": [1, 0]})
    code, out, _ = bdpo_("compare", str(tmp_path / "capability"))
    assert code == 0 and "No verdict" not in out
    assert json.loads((tmp_path / "capability" / "compare.json").read_text())["verdicts"] == {}
    code, out, _ = bdpo_("compare", str(tmp_path / "pairs"))
    assert code == 0 and "DPO: No verdict: 2 held-out pairs are too few, 100 are needed." in out


def test_tokens_and_seconds_add_up_and_change_no_result(tmp_path: Path) -> None:
    run = write_run(tmp_path, "base", {"strongreject": [0]})
    before = summary([run])
    run = run.with_generated("strongreject", 100, 4.0).with_generated("strongreject", 50, 1.0)
    assert summary([run]) == before  # two evaluations of the same replies are the same, byte for byte
    assert json.loads((run.folder / "run.json").read_text())["generated"] == {
        "strongreject": {"tokens": 150, "seconds": 5.0}
    }
