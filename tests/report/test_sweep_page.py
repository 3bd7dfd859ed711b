"""The page of a sweep: the finished cells as methods with their settings and seeds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from asked import write_method

from bdpo.errors import BdpoError
from bdpo.report.evaluated import open_evaluation
from bdpo.report.figures_evaluation import trade_off
from bdpo.report.page import write_report
from bdpo.report.runs import compared_with, open_runs

COLD, HOT = "B-DPO balance.temperature=0.5", "B-DPO balance.temperature=2"
# label, seed, refused, answered
CELLS = [("base", None, 30, 110), ("DPO", 1, 90, 80), ("DPO", 2, 86, 84), (COLD, 1, 60, 109), (HOT, 1, 84, 100)]


@pytest.fixture(scope="module")
def sweep(trained: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    records: list[dict[str, Any]] = []
    for place, (label, seed, refused, answered) in enumerate(CELLS):
        folder = out / "cells" / str(place)
        if seed is not None:
            shutil.copytree(trained[label == "DPO"], folder)
        write_method(folder / "evaluation", label, refused, answered, seed=seed or 0)
        records.append({"name": f"{label}/{seed}", "label": label, "seed": seed, "folder": f"cells/{place}"})
    waiting = {"name": "DPO/3", "label": "DPO", "seed": 3, "folder": "cells/9", "state": "begun"}
    cells = [*({**record, "state": "finished"} for record in records), waiting]
    (out / "sweep.json").write_text(json.dumps({"study": {}, "cells": cells}))
    return out


def test_the_finished_cells_are_its_runs_by_setting(sweep: Path) -> None:
    trained, evaluations = open_runs(sweep)
    assert [run.name for run in trained] == ["DPO", "DPO", COLD, HOT]
    found = open_evaluation(evaluations)
    assert found.baseline == "base" and {name: len(runs) for name, runs in found.methods.items()} == {
        "base": 1, "DPO": 2, COLD: 1, HOT: 1,
    }  # fmt: skip
    evidence = found.evidence("DPO")
    assert evidence.safety is not None and evidence.seeds == 2
    assert evidence.safety.value == pytest.approx((90 + 86) / 240 - 30 / 120)


def test_a_curve_leads_through_the_settings_of_a_method_and_seeds_are_small_points(sweep: Path) -> None:
    drawn = trade_off(open_evaluation(open_runs(sweep)[1]))
    assert drawn is not None
    [axis] = drawn.figure.axes
    [curve] = [line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert curve.get_xdata() == pytest.approx([100 * 109 / 120, 100 * 100 / 120])
    assert curve.get_ydata() == pytest.approx([100 * 60 / 120, 100 * 84 / 120])
    said = [mark.told for mark in drawn.marks]
    assert "DPO, seed 1 of 2: answers 66.7 %, refuses 75.0 %" in said
    assert "DPO, seed 2 of 2: answers 70.0 %, refuses 71.7 %" in said
    assert [row[0] for row in drawn.rows] == ["base", "DPO", COLD, HOT]
    # by hand: Wilson's interval of 30 in 120 is 18.11 to 33.43 %
    assert drawn.rows[0][2] == "25.0 % [18.1, 33.4]"


def test_the_page_has_one_gap_a_setting_and_every_run_in_the_table(sweep: Path, tmp_path: Path) -> None:
    write_report([sweep], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h3>Training against held out: ") == 3 and "DPO (2 seeds)" in page
    assert page.count('<th scope="col">DPO, seed 42</th>') == 4, "in the table of facts and in that of differences"
    assert f"{HOT} against base" in page


def test_its_settings_are_compared_with_what_the_sweep_compared_them_with(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    (tmp_path / "sweep" / "compare.json").write_text(json.dumps({"baseline": "DPO", "reference": "base", "rows": []}))
    assert compared_with(tmp_path / "sweep") == {"baseline": "DPO", "reference": "base"}
    write_report([tmp_path / "sweep"], tmp_path / "report.html")
    assert f"{HOT} against DPO" in (tmp_path / "report.html").read_text()
    write_report([tmp_path / "sweep"], tmp_path / "report.html", baseline=COLD)
    assert f"{HOT} against {COLD}" in (tmp_path / "report.html").read_text(), "what is named has the last word"


def test_the_picks_of_a_sweep_are_judged_on_prompts_that_they_were_not_picked_on(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    (tmp_path / "sweep" / "chosen").mkdir()
    (tmp_path / "sweep" / "chosen" / "compare.json").write_text("{}")
    assert open_runs(tmp_path / "sweep")[1] == [tmp_path / "sweep" / "chosen"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"study": {}, "cells": []}, "holds no finished cell"),
        ({"study": {}, "cells": [{"name": "DPO/1"}]}, "is not as bdpo sweep writes it"),
        ({"cells": "none"}, "holds no 'study'"),
    ],
)
def test_a_sweep_without_cells_is_refused(tmp_path: Path, content: dict[str, Any], why: str) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(BdpoError, match=why):
        write_report([tmp_path], tmp_path / "report.html")
