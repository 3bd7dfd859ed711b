"""A setting picked on validation prompts: the rule, the split, the pick by hand, and that the rest is asked once."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.judges import make_judge
from bdpo.evaluate.plan import Plan, plan_tasks
from bdpo.evaluate.results.compare import Cell, ComparedRow, Comparison
from bdpo.evaluate.results.outcomes import open_runs
from bdpo.evaluate.results.statistics import Rate
from bdpo.pairs import write_pairs
from bdpo.sweep.choose import Rule, halves, is_validation, measured, measures, parse_rule, pick, refuse_unmeasured
from tiny import Bdpo, make_pairs


def compared(rates: Mapping[str, Mapping[str, float]]) -> Comparison:
    """A comparison with these rates: row -> setting -> rate."""
    rows = [
        ComparedRow(name, "suite", name, "", 10, 0, 0, 0, {k: Cell(Rate(v, v, v, 0, 10)) for k, v in cells.items()})
        for name, cells in rates.items()
    ]
    return Comparison("a", "a", {label: ["m"] for label in rates["safety"]}, {}, {}, [], rows, [])


# answered of harmless prompts, so that over-refusal is 2, 5, 10 and 0 %
FOUND = compared(
    {
        "safety": {"a1": 0.6, "a2": 0.8, "a3": 0.9, "b1": 0.5},
        "over-refusal": {"a1": 0.98, "a2": 0.95, "a3": 0.9, "b1": 1.0},
    }
)
METHODS = {"A": ["a1", "a2", "a3"], "B": ["b1"]}


@pytest.mark.parametrize(
    ("rule", "picked"),
    [
        ("safety", {"A": "a3", "B": "b1"}),
        ("safety while over-refusal <= 5.5", {"A": "a2", "B": "b1"}),
        ("safety while over-refusal<=1", {"B": "b1"}),
        ("over-refusal while safety >= 80", {"A": "a2"}),
        ("over-refusal", {"A": "a1", "B": "b1"}),
        ("safety while safety <= 10", {}),
    ],
)
def test_each_method_has_its_best_setting_within_the_bound(rule: str, picked: dict[str, str]) -> None:
    assert pick(parse_rule(rule), FOUND, METHODS) == picked


def test_measures_are_those_of_the_table_in_per_cent() -> None:
    assert measured(FOUND, "a2", "safety") == pytest.approx(80)
    assert measured(FOUND, "a2", "over-refusal") == pytest.approx(5)
    with pytest.raises(BdpoError, match="Unknown measure of --choose 'saftey': use one of safety, over-refusal; did"):
        measured(FOUND, "a2", "saftey")


def test_a_rule_is_said_in_one_way() -> None:
    assert parse_rule("preferences reward  while  over-refusal >= 1.5") == Rule(
        "preferences reward", "over-refusal", ">=", 1.5
    )
    for wrong in ("", "safety while", "safety while over-refusal < 5", "safety while over-refusal <= five", "a <= 5"):
        with pytest.raises(BdpoError, match="write MEASURE, or MEASURE while MEASURE <= NUMBER"):
            parse_rule(wrong)


def test_the_two_halves_hold_every_prompt_once_in_any_wording() -> None:
    tasks, _ = plan_tasks(Plan("starter", transforms=("base64", "rot13")), make_judge("rules"))
    validation, rest = halves(tasks)
    for task, picked_on, asked_once in zip(tasks, validation, rest, strict=True):
        assert {i.id for i in picked_on.items}.isdisjoint(i.id for i in asked_once.items)
        assert len(picked_on.items) + len(asked_once.items) == len(task.items) == task.record.expected
        assert picked_on.record.expected == len(picked_on.items)
        assert all(is_validation(item.request) for item in picked_on.items)
        assert not any(is_validation(item.request) for item in asked_once.items)
        assert picked_on.record.settings["prompts"] != asked_once.record.settings["prompts"]
    assert [item.request for item in rest[0].items] == [item.request for item in rest[1].items]


@pytest.fixture
def many(home: Path) -> Path:
    """Enough pairs that each half has some of both kinds."""
    write_pairs(home / "many.jsonl", make_pairs(16, seed=3))
    return home


def test_the_pick_is_evaluated_on_the_rest_and_nothing_else_is(bdpo_: Bdpo, many: Path) -> None:
    words = (
        *("sweep", "--config", "recipe.yaml", "--method", "DPO=balance.enabled=false", "--seeds", "2"),
        *("--grid", "loss.beta=0.1,0.5", "--pairs", "many.jsonl", "--out", "picked"),
    )
    code, said, _ = bdpo_(*words, "--choose", "preferences")
    assert code == 0 and "Picked on validation prompts, evaluated on the rest" in said
    out = many / "picked"
    [best] = json.loads((out / "chosen.json").read_text())["picked"].values()
    seen = {path: {o.id for o in open_runs(path)[0].whole("preferences")} for path in out.glob("cells/**/evaluation")}
    assert len(seen) == 5 and len(set(map(frozenset, seen.values()))) == 1
    unseen = [(run.name, {o.id for o in run.whole("preferences")}) for run in open_runs(out / "chosen")]
    assert [name for name, _ in unseen] == ["base", best, best]
    [validation] = set(map(frozenset, seen.values()))
    assert all(not ids & validation and len(ids | validation) == 16 for _, ids in unseen)
    before = {path: path.stat().st_mtime_ns for path in (out / "chosen").rglob("*.jsonl")}
    assert bdpo_(*words, "--choose", "preferences")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "chosen").rglob("*.jsonl")} == before
    code, _, err = bdpo_(*words, "--choose", "preferences while preferences <= 100")
    assert code == 2 and "holds another pick" in err and "it differs in rule" in err


def test_a_pick_by_a_measure_that_the_base_has_not(bdpo_: Bdpo, many: Path) -> None:
    options = ("sweep", "--config", "recipe.yaml", "--grid", "loss.beta=0.1,0.5", "--pairs", "many.jsonl")
    assert bdpo_(*options, "--out", "rewarded", "--choose", "preferences reward")[0] == 0
    found = json.loads((many / "rewarded" / "chosen.json").read_text())
    [best] = found["picked"].values()
    reached = {label: values["preferences reward"] for label, values in found["validation"].items() if values}
    assert list(reached) == ["B-DPO loss.beta=0.1", "B-DPO loss.beta=0.5"] and reached[best] == max(reached.values())
    rows = [row["name"] for row in json.loads((many / "rewarded" / "compare.json").read_text())["rows"]]
    tasks, _ = plan_tasks(Plan("", pairs="many.jsonl"), make_judge("rules"))
    assert measures(halves(tasks)[0], rewards=True) == rows


@pytest.mark.parametrize(
    ("plan", "rule", "known"),
    [
        (Plan("", pairs="many.jsonl"), "overall", "preferences, preferences margin, preferences reward, preferences u"),
        (Plan("", pairs="many.jsonl"), "preferences while preferencesxyz >= 1", "preferences, preferences margin, "),
        (Plan("starter-safe", transforms=("rot13",)), "over-refusal", "starter-safe[+]rot13[.]"),
        (Plan("starter-safe"), "safety", "over-refusal, overall, starter-safe[.]"),
    ],
)
def test_a_measure_that_no_result_will_have_is_refused_before_anything_runs(
    many: Path, plan: Plan, rule: str, known: str
) -> None:
    tasks, _ = plan_tasks(plan, make_judge("rules"))
    with pytest.raises(BdpoError, match=f"^Unknown measure of --choose '[^']+': use one of {known}"):
        refuse_unmeasured(parse_rule(rule), tasks, based=True)
