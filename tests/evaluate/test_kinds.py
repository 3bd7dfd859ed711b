"""Preferences by kind: every number by hand, or by a slow bootstrap written here."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from bdpo.errors import BdpoError
from bdpo.evaluate.plan import Plan, preference_items
from bdpo.evaluate.results.clustered import Clusters, clustered_difference, clustered_mean
from bdpo.evaluate.results.compare import compare
from bdpo.evaluate.results.kind_table import kind_grids
from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.evaluate.results.statistics import Rate

NO = "I'm sorry, but I can't help with that."


def test_kind_of_pairs_in_data(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Tea?"}]
    said = [("Stir.", NO, "unsafe"), (NO, "Stir.", "harmless"), ("Stir.", "Shake.", "")]
    rows = [{"prompt": asked, "chosen": c, "rejected": r, "said": kind} for c, r, kind in said]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    items = preference_items(Plan(pairs=str(data)))
    assert [item.kind for item in items] == ["harmless", "unsafe", ""]
    assert len({item.prompt for item in items}) == 1
    assert [item.kind for item in preference_items(Plan(pairs=str(data), pairs_kind="said"))] == [
        "unsafe", "harmless", "",
    ]  # fmt: skip
    data.write_text(data.read_text().replace('"harmless"', '"odd"'))
    with pytest.raises(BdpoError, match="'prompt_kind' is 'odd': it must be unsafe or harmless"):
        preference_items(Plan(pairs=str(data), pairs_kind="said"))


def test_starter_has_both_kinds() -> None:
    kinds = [item.kind for item in preference_items(Plan(pairs="starter", pairs_split="validation"))]
    assert (kinds.count("unsafe"), kinds.count("harmless")) == (56, 29)


def test_cluster_bootstrap_against_a_slow_one() -> None:
    draw = np.random.default_rng(5)
    prompts = [f"p{i}" for i in draw.integers(12, size=40)]
    scores, other = draw.normal(size=(2, 1, 40))
    clusters = Clusters.of(prompts)
    members = [np.flatnonzero(clusters.of_pair == g) for g in range(clusters.n)]
    means, differences = [], []
    for _ in range(4000):
        pairs = np.concatenate([members[g] for g in draw.integers(clusters.n, size=clusters.n)])
        means.append(scores[0, pairs].mean())
        differences.append((scores - other)[0, pairs].mean())
    found = clustered_mean([(scores, clusters)], shares=False)
    gap = clustered_difference([(scores, clusters)], [other], shares=False)
    assert found.value == pytest.approx(scores.mean()) and gap.value == pytest.approx((scores - other).mean())
    stretch = t.ppf(0.975, clusters.n - 1) / 1.959964 * (clusters.n / (clusters.n - 1)) ** 0.5  # of prompts, not pairs
    for one, slow, near in ((found, means, 0.05), (gap, differences, 0.07)):
        expected = one.value + stretch * (np.quantile(slow, (0.025, 0.975)) - one.value)
        assert (one.low, one.high) == pytest.approx(expected, abs=near)


def test_kinds_count_alike_and_seeds_are_drawn() -> None:
    many, few = np.array([[1.0] * 9]), np.array([[0.0]])
    found = clustered_mean([(many, Clusters.of("abcdefghi")), (few, Clusters.of("z"))], shares=True)
    assert (found.value, found.n) == (0.5, 10)
    # with the pseudo-prompts 11 of 13 and 2 of 5 are won: half of the sum, and of the two variances a quarter
    middle, deviation = (11 / 13 + 2 / 5) / 2, (11 * 2 / 13**3 + 2 * 3 / 5**3) ** 0.5 / 2
    expected = (middle - 1.96 * deviation, middle + 1.96 * deviation)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)
    seeds = clustered_mean([(np.array([[1.0], [0.0]]), Clusters.of("a"))], shares=True)
    # one prompt, whose mean over the two seeds drawn is 0, 1/2 or 1: a variance of 1/8 / 25 between, 0.044 within draws
    half = 1.96 * (0.005 + 0.044) ** 0.5
    assert (seeds.value, seeds.seeds) == (0.5, 2)
    assert (seeds.low, seeds.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.01)
    assert seeds.std == pytest.approx(2**-0.5)


@pytest.mark.parametrize("seeds", [1, 3])
def test_pairs_of_a_few_prompts_that_are_all_won_prove_little(seeds: int) -> None:
    # 6 prompts of 5 pairs, and pseudo-prompts of as many: as if 6 outcomes were drawn, whatever the seeds
    won, lost, clusters = np.ones((seeds, 30)), np.zeros((seeds, 30)), Clusters.of("abcdef" * 5)
    mean = clustered_mean([(won, clusters)], shares=True)
    assert (mean.value, mean.low, mean.high) == (1.0, pytest.approx(0.8 - 1.96 * 0.016**0.5, abs=0.01), 1.0)
    same, half = clustered_difference([(won, clusters)], [won], shares=True), 1.96 * (1 / 32) ** 0.5
    assert (same.value, same.low, same.high) == (0, pytest.approx(-half, abs=0.01), pytest.approx(half, abs=0.01))
    gone = clustered_difference([(lost, clusters)], [won], shares=True)  # 7 of 8 lost, 1 gained: -6/8, variance 7/16
    assert (gone.value, gone.low, gone.high) == (-1, -1, pytest.approx(-0.75 + 1.96 * (7 / 128) ** 0.5, abs=0.01))


#                    unsafe          harmless    neither
MARGINS = {"base": [-1.0, 1.0, 0.0, 2.0, -1.0, 5.0],
           "DPO": [1.0, 0.5, 3.0, 1.0, -2.0, 5.0],
           "B-DPO": [2.0, 2.0, 3.0, 3.0, -2.0, 5.0]}  # fmt: skip


def write(out: Path) -> None:
    kinds = ["unsafe"] * 3 + ["harmless"] * 2 + [""]
    for name, margins in MARGINS.items():
        run = claim_run(out, name, name, name, {"weights": name})
        run = run.with_tasks({"preferences": TaskRecord("preferences", "ranked", 6, {"prompts": "6", "judge": "x"})})
        lines = [
            Outcome(f"p{i}", 0, "", "?", "!", "", 1, float(m > 0), margin=m, kind=kinds[i], prompt=f"q{i}")
            for i, m in enumerate(margins)
        ]
        run.append("preferences", lines)


def test_rows_by_kind_by_hand(tmp_path: Path) -> None:
    write(tmp_path)
    rows = {row.name: row for row in compare([tmp_path]).rows}
    values = {name: {m: cell.score.value for m, cell in row.cells.items()} for name, row in rows.items()}
    assert values["preferences unsafe"] == pytest.approx({"base": 1 / 3, "DPO": 1.0, "B-DPO": 1.0})
    assert values["preferences harmless"] == {"base": 0.5, "DPO": 0.5, "B-DPO": 0.5}
    assert values["preferences balanced"] == pytest.approx({"base": 5 / 12, "DPO": 0.75, "B-DPO": 0.75})
    # less the base: DPO 2, -0.5, 3 and -1, -1; B-DPO 3, 1, 3 and 1, -1
    assert values["preferences unsafe reward"] == pytest.approx({"DPO": 2 / 3, "B-DPO": 1.0})
    assert values["preferences harmless reward"] == {"DPO": 0.0, "B-DPO": 0.5}
    assert values["preferences balanced reward"] == pytest.approx({"DPO": 1 / 3, "B-DPO": 0.75})
    assert values["preferences unsafe log-ratio margin"] == pytest.approx({"DPO": 1.5, "B-DPO": 7 / 3})
    assert values["preferences balanced log-ratio margin"] == pytest.approx({"DPO": 0.25, "B-DPO": 7 / 6})
    paired = rows["preferences harmless reward"].cells["B-DPO"]
    assert isinstance(paired.score, Rate) and paired.difference is not None
    assert (paired.difference.value, paired.difference.gained, paired.difference.lost) == (0.5, 1, 0)
    balanced = rows["preferences balanced reward"].cells["B-DPO"].difference
    assert balanced is not None and balanced.value == pytest.approx(0.75 - 1 / 3)
    assert rows["preferences balanced"].n == 5  # the pair of neither kind is not counted


def test_rewards_are_against_the_reference_and_differences_to_the_baseline(tmp_path: Path) -> None:
    write(tmp_path)
    compared = compare([tmp_path], baseline="B-DPO")
    assert (compared.baseline, compared.reference) == ("B-DPO", "base")
    rows = {row.name: row for row in compared.rows}
    rewards = rows["preferences harmless reward"].cells
    assert {name: cell.score.value for name, cell in rewards.items()} == {"DPO": 0.0, "B-DPO": 0.5}
    assert rewards["B-DPO"].difference is None and rewards["DPO"].difference.value == -0.5
    everything = rows["preferences reward"].cells  # of six pairs, the last gains nothing: DPO 2 right, B-DPO 4
    assert {name: cell.score.value for name, cell in everything.items()} == pytest.approx(
        {"DPO": 2 / 6, "B-DPO": 4 / 6}
    )
    assert everything["DPO"].difference.value == pytest.approx(-2 / 6)
    nats = rows["preferences unsafe log-ratio margin"].cells
    assert nats["DPO"].difference.value == pytest.approx(1.5 - 7 / 3)
    assert rows["preferences unsafe"].cells["base"].difference.value == pytest.approx(1 / 3 - 1)


def test_a_table_for_the_terminal(tmp_path: Path) -> None:
    write(tmp_path)
    (grid,) = kind_grids(tmp_path)
    assert grid.head == ("", "prompts", "base", "DPO", "B-DPO")
    assert grid.rows[1][0] == "preferences unsafe reward" and grid.rows[1][2] == "-"
    assert grid.rows[1][3].startswith("66.7 [")
