"""`bdpo runs`: a line a run, with what its evaluation found; what is no run is named and stops nothing."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.recipe.listing import COLUMNS, list_runs
from tiny import Bdpo


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def write_run(folder: Path, *, accuracy: float, lr: float, enabled: bool = True, gap: float = 0, **loss: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"format": 1, "method": "B-DPO" if enabled else "DPO", "scores": {}}))
    recipe = {
        "loss": {"name": "dpo", **loss},
        "balance": {"enabled": enabled, "temperature": 2.0},
        "train": {"learning_rate": lr, "seed": 3},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    final = {"eval_rewards/accuracies": accuracy, "eval_logratios/chosen": -1.5, "eval_logratios/rejected": -4.25}
    final |= {"gap/accuracies": gap, "gap/margins": 3 * gap} if gap else {}
    (folder / "metrics.json").write_text(json.dumps({"final": final, "history": []}))


def evaluated(out: Path, model: str, refused: int, answered: int) -> None:
    run = claim_run(out, "DPO", model, model, {"weights": model})
    asked = {"strongreject": ("safety", refused), "xstest-safe": ("over-refusal", answered), "a+rot13": ("safety", 0)}
    for task, (suite, successes) in asked.items():
        run = run.with_tasks({task: TaskRecord(suite, "successes", 4, {})})
        run.append(task, [Outcome(f"p{i}", 0, "", "?", "!", "end", 1, float(i < successes)) for i in range(4)])


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_run(folder / "a", accuracy=0.6, lr=5e-6)
    write_run(folder / "sweep" / "b", accuracy=0.75, lr=1e-5, enabled=False, gap=0.25, beta=0.05)
    evaluated(folder / "all", str(folder / "a"), 3, 2)  # by its path
    evaluated(folder / "sweep" / "b" / "evaluation", "elsewhere/b", 1, 4)  # moved since, within the run itself
    return folder


def test_a_line_a_run(runs: Path) -> None:
    found = list_runs(runs)
    assert found.faults == [] and [list(line) for line in found.lines] == [list(COLUMNS)] * 2
    assert [list(line.values()) for line in found.lines] == [
        ["a", "B-DPO", 0.1, 2.0, 5e-6, 3, 60.0, None, None, -1.5, -4.25, 75.0, 50.0],
        ["sweep/b", "DPO", 0.05, None, 1e-5, 3, 75.0, 25.0, 0.75, -1.5, -4.25, 25.0, 100.0],
    ]


@pytest.mark.parametrize(
    ("column", "order"), [("accuracy", "ba"), ("safety", "ab"), ("method", "ab"), ("lr", "ba"), ("margin-gap", "ba")]
)
def test_sorted(runs: Path, column: str, order: str) -> None:
    assert "".join(str(line["run"])[-1] for line in list_runs(runs, column).lines) == order


def test_what_is_missing_comes_last(runs: Path) -> None:
    write_run(runs / "0", accuracy=0.1, lr=1e-5)
    assert [line["run"] for line in list_runs(runs, "safety").lines] == ["a", "sweep/b", "0"]


DAMAGES = {
    "torn": ("run.json", '{"format": 1, "met', "run.json is not JSON"),
    "another's": ("run.json", '{"name": "x"}', "run.json holds no 'format'"),
    "a list": ("run.json", "[1]", "holds a list"),
    "no metrics": ("metrics.json", None, "metrics.json cannot be read (No such file"),
    "no recipe": ("recipe.yaml", None, "cannot be read ("),
    "no sections": ("recipe.yaml", "a: 1", "cannot be read ('loss')"),
    "no number": ("recipe.yaml", "{loss: {name: dpo}, balance: {enabled: true, temperature: hot}, train: {}}", "hot"),
    "no loss": ("recipe.yaml", "{loss: {name: dqo}, balance: {enabled: false}, train: {}}", "Unknown loss 'dqo'"),
    "no text": ("recipe.yaml", "\x00", "cannot be read ("),
    "seed without end": (
        "recipe.yaml",
        "{loss: {name: dpo}, balance: {enabled: false}, train: {seed: .inf}}",
        "cannot be read (cannot convert float infinity",
    ),
    "unfolds without end": (
        "recipe.yaml",
        "a: &a [x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        + "".join(f"c{n}: &c{n} [{', '.join([f'*c{n - 1}' if n else '*b'] * 10)}]\n" for n in range(5)),
        "its aliases unfold to more than",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_listed(runs: Path, bdpo_: Bdpo, damage: str) -> None:
    file, content, said = DAMAGES[damage]
    (runs / "a" / file).unlink()
    if content is not None:
        (runs / "a" / file).write_text(content)
    code, out, err = bdpo_("runs", str(runs))
    (line,) = err.splitlines()
    assert code == 0 and line.startswith("Left out: ") and said in line
    assert "sweep/b" in out


def test_a_damaged_evaluation_is_named(runs: Path) -> None:
    (runs / "all" / "dpo" / "strongreject.jsonl").write_text('{"id": 1}\n')
    (runs / "sweep" / "b" / "evaluation" / "dpo" / "run.json").write_text('{"tasks": {}, "key": {}, "order": "x"}')
    found = list_runs(runs)
    assert len(found.lines) == 2 and len(found.faults) == 1 and "run.json cannot be read" in found.faults[0]
    assert found.lines[0]["safety"] is None and found.lines[0]["over-refusal"] == 50.0  # a task that is not whole


def test_csv_and_table(runs: Path, bdpo_: Bdpo) -> None:
    code, out, _ = bdpo_("runs", str(runs), "--csv", "-", "--sort", "accuracy")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [(row["run"], row["lr"], row["temperature"]) for row in rows] == [
        ("sweep/b", "1e-05", ""), ("a", "5e-06", "2.0"),
    ]  # fmt: skip
    assert bdpo_("runs", str(runs), "--csv", str(runs / "t.csv"), "--sort", "accuracy")[0] == 0
    assert (runs / "t.csv").read_text() == out
    table = bdpo_("runs", str(runs))[1]
    assert [line.split() for line in table.splitlines()[3:5]] == [
        ["a", "B-DPO", "0.1", "2", "5e-06", "3", "60.0", "-", "-", "-1.50", "-4.25", "75.0", "50.0"],
        ["sweep/b", "DPO", "0.05", "-", "1e-05", "3", "75.0", "+25.0", "+0.75", "-1.50", "-4.25", "25.0", "100.0"],
    ]


def test_the_table_fits_80_columns_and_leaves_out_what_no_run_has(
    runs: Path, bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = bdpo_("runs", str(runs))[1].splitlines()
    assert all(len(line) <= 80 for line in lines[:-1])
    assert [line.split()[-5:] for line in lines if "0.05" in line] == [["+0.75", "-1.50", "-4.25", "25.0", "100.0"]]
    write_run(runs / "alone" / "c", accuracy=0.5, lr=1e-3)
    alone = bdpo_("runs", str(runs / "alone"))[1].splitlines()
    assert alone[3].split() == ["c", "B-DPO", "0.1", "2", "0.001", "3", "50.0", "-1.50", "-4.25"], (
        "no gap, no evaluation"
    )


def test_what_cannot_be_listed_is_one_sentence(runs: Path) -> None:
    with pytest.raises(BdpoError, match=r"Unknown column 'safty': .* did you mean 'safety'"):
        list_runs(runs, "safty")
    with pytest.raises(BdpoError, match="is no folder"):
        list_runs(runs / "none")
    with pytest.raises(BdpoError, match="holds no run"):
        list_runs(runs / "all")
