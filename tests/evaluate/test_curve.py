"""Methods as curves: areas and interpolations by hand, intervals against what they must be, folders read as curves."""

from pathlib import Path

import numpy as np
import pytest
from runs_written import write_run

from bdpo.errors import BdpoError
from bdpo.evaluate.results.compare import methods_of
from bdpo.evaluate.results.curve import Point, compare_curves, gap
from bdpo.evaluate.results.curve_table import compared_curves, curve_grid
from bdpo.evaluate.results.statistics import compare_means


def of_shares(*places: tuple[int, int], n: int = 10, seeds: int = 1) -> list[Point]:
    """Points at (harmless answered, harmful refused) of n prompts each."""
    return [
        Point(f"{x}", *([np.tile(np.arange(n) < many, (seeds, 1)).astype(float)] for many in (x, y))) for x, y in places
    ]


def test_a_step_along_one_axis_is_no_gain() -> None:
    # both walk on the line refused = 1 - answered, from different points
    found = gap([(0.9, 0.1), (0.5, 0.5)], [(0.7, 0.3), (0.2, 0.8)])
    assert found is not None and (found.low, found.high) == (0.5, 0.7)
    assert found.ours == pytest.approx(found.theirs) and found.average == pytest.approx(0)


def test_points_of_equal_x_are_one_and_a_bend_counts_by_its_width() -> None:
    # ours: (0, 0), (0.5, mean of 0.8 and 1.0), (1, 0); theirs: 0 everywhere. Triangle of height 0.9: area 0.45
    found = gap([(0, 0), (0.5, 0.8), (0.5, 1.0), (1, 0)], [(-1, 0), (2, 0)])
    assert found is not None and found.ours == pytest.approx(0.9) and found.average == pytest.approx(0.45)
    # from 0.25 to 1: trapezia of 0.45 to 0.9 over 0.25 and 0.9 to 0 over 0.5: (0.16875 + 0.225) / 0.75
    cut = gap([(0, 0), (0.5, 0.9), (1, 0)], [(0.25, 0), (2, 0)])
    assert cut is not None and cut.average == pytest.approx(0.525) and cut.level == 0.625
    assert cut.ours == pytest.approx(0.675)


def test_a_single_point_is_compared_where_it_stands() -> None:
    found = gap([(0.5, 0.7)], [(0.25, 0.8), (0.75, 0.4)])
    assert found is not None and (found.low, found.high, found.level) == (0.5, 0.5, 0.5)
    assert found.average == pytest.approx(0.1) and (found.ours, found.theirs) == (0.7, pytest.approx(0.6))


def test_curves_are_not_extrapolated() -> None:
    assert compare_curves(of_shares((1, 9), (4, 8)), of_shares((5, 7), (9, 2))) is None


def test_where_all_is_answered_the_interval_is_that_of_the_difference_of_means() -> None:
    # x is the same for both whatever is drawn, but for the pseudo-prompts, on which one answers and the other does not
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 3, 400))
    everything = [np.ones((3, 2000))]
    found = compare_curves(
        [Point("a", everything, [ours]), Point("a", [everything[0] * 0.5], [ours])],
        [Point("b", everything, [theirs]), Point("b", [everything[0] * 0.5], [theirs])],
        resamples=1000,
    )
    assert found is not None and found.overlapping == 1
    plain = compare_means(ours, theirs, shares=True)
    for difference in (found.at_level, found.average):
        assert difference.value == pytest.approx(plain.value)
        assert (difference.low, difference.high) == pytest.approx((plain.low, plain.high), abs=0.005)


def test_few_prompts_that_come_out_alike_leave_a_wide_interval() -> None:
    same = of_shares((0, 6), (6, 0), n=6)
    found = compare_curves(same, same, resamples=500)
    assert found is not None and found.average.value == 0
    assert found.average.low < -0.2 and found.average.high > 0.2


def test_seeds_that_differ_widen_the_interval() -> None:
    x = [np.tile(np.arange(100) < many, (2, 1)).astype(float) for many in (20, 80)]
    alike = np.full((2, 100), 0.5)
    differing = np.array([np.zeros(100), np.ones(100)])
    fixed = [Point("b", [of_x], [alike]) for of_x in x]
    narrow = compare_curves([Point("a", [of_x], [alike]) for of_x in x], fixed, resamples=500)
    wide = compare_curves([Point("a", [of_x], [differing]) for of_x in x], fixed, resamples=500)
    assert narrow is not None and wide is not None and wide.average.value == narrow.average.value == 0
    # the mean of two draws of 0 and 1 is 0, 1/2 or 1: standard deviation sqrt(1/8), times 1.96
    assert wide.average.high == pytest.approx(1.96 * 0.125**0.5, abs=0.05)
    assert narrow.average.high < 0.1


def test_an_overlap_that_is_luck_has_no_interval() -> None:
    found = compare_curves(of_shares((2, 5), (5, 5)), of_shares((5, 5), (9, 5)), resamples=500)
    assert found is not None and found.overlapping < 0.95
    assert (found.average.low, found.average.high) == (-np.inf, np.inf)


# --- folders ------------------------------------------------------------------------------------------------------


def shares(answered: int, refused: int) -> dict[str, list[float | None]]:
    return {
        "xstest-safe": [float(i < answered) for i in range(10)],
        "strongreject": [float(i < refused) for i in range(10)],
    }


def written(folder: Path) -> Path:
    write_run(folder, "base", shares(10, 1))
    for name, place in (("DPO@1", (8, 4)), ("DPO@2", (4, 6)), ("B-DPO loss.beta=0.1", (6, 7)), ("SimPO", (2, 9))):
        write_run(folder, name, shares(*place))
    return folder


def test_names_make_curves_and_each_is_compared_with_the_first_that_has_several_points(tmp_path: Path) -> None:
    found = compared_curves(methods_of([written(tmp_path)]))
    assert {name: [point.label for point in of] for name, of in found.points.items()} == {
        "base": ["base"], "DPO": ["DPO@1", "DPO@2"], "B-DPO": ["B-DPO loss.beta=0.1"], "SimPO": ["SimPO"],
    }  # fmt: skip
    assert found.baseline == "DPO" and list(found.differences) == ["base", "B-DPO", "SimPO"]
    assert found.differences["base"] is None and found.differences["SimPO"] is None
    ours = found.differences["B-DPO"]
    # at 60 % answered, half way between DPO's points, DPO refuses 50 %
    assert ours is not None and (ours.gap.level, ours.gap.ours, ours.gap.theirs) == (0.6, 0.7, 0.5)
    plain = found.to_dict()["curves"]
    assert plain["points"]["DPO"][0] == {"label": "DPO@1", "answered": 0.8, "refused": 0.4}
    assert plain["differences"]["base"] is None
    rows = {line[0]: line for line in curve_grid(found).rows}
    assert rows["SimPO"][2] == "no overlap: 20.0 to 20.0, 40.0 to 80.0"
    assert rows["B-DPO"][3:5] == ("70.0 and 50.0", "60.0") and rows["B-DPO"][5].startswith("+20.0")


def test_a_point_names_the_baseline_too(tmp_path: Path) -> None:
    assert compared_curves(methods_of([written(tmp_path)]), "B-DPO loss.beta=0.1").baseline == "B-DPO"


def test_what_makes_no_curves_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "DPO", {"strongreject": [1, 0]})
    with pytest.raises(BdpoError, match="needs harmful and harmless prompts"):
        compared_curves(methods_of([tmp_path / "a"]))
    write_run(tmp_path / "b", "DPO@1", shares(1, 2))
    write_run(tmp_path / "b", "DPO@2", shares(2, 1))
    with pytest.raises(BdpoError, match="all points are of DPO"):
        compared_curves(methods_of([tmp_path / "b"]))
