"""What a sweep writes of cells that are finished, without training any: methods as curves over their settings."""

import json
from pathlib import Path

import pytest

from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.sweep.plan import Cell, Study, cells
from bdpo.sweep.results import Progress
from tiny import Bdpo

STUDY = Study(
    recipe="recipe.yaml", methods={"DPO": "balance.enabled=false", "B-DPO": ""}, grid=("loss.beta=0.1,0.2",),
    baseline="DPO loss.beta=0.2",
)  # fmt: skip
# harmless prompts answered and harmful ones refused, of 10
PLACES = {
    "base": (10, 1), "DPO loss.beta=0.1": (8, 4), "DPO loss.beta=0.2": (4, 6), "B-DPO loss.beta=0.1": (8, 6),
    "B-DPO loss.beta=0.2": (6, 8),
}  # fmt: skip


def finished(cell: Cell, **asked: tuple[str, int]) -> None:
    """A cell's folder as a sweep leaves it, as far as results are made of it."""
    run = claim_run(cell.evaluation, cell.label, cell.label, cell.label, {"weights": cell.label})
    for task, (suite, successes) in asked.items():
        run = run.with_tasks({task: TaskRecord(suite, "successes", 10, {})})
        run.append(task, [Outcome(f"p{i}", 0, "", "?", "!", "end", 1, float(i < successes)) for i in range(10)])
    if cell.seed is not None:
        (cell.folder / "README.md").write_text("a card")
        (cell.folder / "metrics.json").write_text(json.dumps({"final": {}}))


def test_methods_are_curves_over_their_settings_as_compare_has_them(home: Path, bdpo_: Bdpo) -> None:
    out = home / "curves"
    found = cells(STUDY, out)
    for cell in found:
        answered, refused = PLACES[cell.label]
        finished(cell, safe=("over-refusal", answered), unsafe=("safety", refused))
    titles = [grid.title for grid in Progress(STUDY, found, [], out).write_results()]
    assert titles == ["Settings", "Harmful refused at equal harmless answered [%]"]
    compared = json.loads((out / "compare.json").read_text())
    curves = compared["curves"]
    assert curves["baseline"] == "DPO" and list(curves["differences"]) == ["base", "B-DPO"]
    # both answer 6 to 8 of 10. DPO refuses 6 of 10 at 4 and 4 at 8, so 5 at 6 and 4.5 at 7; B-DPO 8 at 6, 7 at 7
    gap = curves["differences"]["B-DPO"]["gap"]
    assert (gap["low"], gap["high"], gap["level"]) == pytest.approx((0.6, 0.8, 0.7))
    assert (gap["ours"], gap["theirs"], gap["average"]) == pytest.approx((0.7, 0.45, 0.25))
    assert curves["differences"]["base"] is None, "it answers more than any setting of DPO"
    folders = [str(cell.evaluation) for cell in found]
    assert bdpo_("compare", *folders, "--curve", "--baseline", "DPO loss.beta=0.2", "--out", "by hand")[0] == 0
    assert json.loads((home / "by hand" / "compare.json").read_text())["curves"] == curves
    for written in ("results.md", "compare.md"):
        assert "| B-DPO | 2 and 2 | 60.0 to 80.0 | 70.0 and 45.0 | 70.0 | +25.0" in (out / written).read_text()


@pytest.mark.parametrize(
    ("grid", "suites"), [((), ("over-refusal", "safety")), (STUDY.grid, ("safety", "safety"))], ids=["points", "kinds"]
)
def test_there_are_no_curves_without_several_settings_or_without_both_kinds(
    home: Path, grid: tuple[str, ...], suites: tuple[str, str]
) -> None:
    study = STUDY.model_copy(update={"grid": grid, "baseline": None})
    out = home / f"no curves {len(grid)}"
    found = cells(study, out)
    for cell in found:
        finished(cell, one=(suites[0], 4), two=(suites[1], 6))
    assert [grid.title for grid in Progress(study, found, [], out).write_results()] == ["Settings"]
    assert "curves" not in json.loads((out / "compare.json").read_text())
