"""A sweep on a tiny model, in this process: its cells, what they share, what is skipped, gone on with and found."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bdpo.score.scoring
import bdpo.sweep.cells
import bdpo.sweep.results
import bdpo.sweep.run
from bdpo.errors import BdpoError
from bdpo.evaluate.results.outcomes import open_runs
from bdpo.files import one_at_a_time
from bdpo.recipe.run import run_recipe
from bdpo.report.page import write_report
from bdpo.report.runs import open_runs as report_of
from bdpo.sweep.plan import Study, cells, load_study
from tiny import Bdpo

METHODS = ("--method", "DPO=balance.enabled=false", "--method", "B-DPO=", "--method", "off=balance.temperature=.inf")
ASKED = ("--pairs", "held.jsonl")
SWEEP = ("sweep", "--config", "recipe.yaml", *METHODS, "--seeds", "2", *ASKED)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that are trained from now on."""
    made: list[str] = []

    def noted(recipe: Any, out: Path, **how: Any) -> Any:
        made.append(f"{out.parent.name}/{out.name}" + (" resumed" if how["resume"] else ""))
        return run_recipe(recipe, out, **how)

    monkeypatch.setattr(bdpo.sweep.cells, "run_recipe", noted)
    return made


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes of stage 1 from now on: which pairs."""
    made: list[str] = []
    make_parts = bdpo.score.scoring._make_parts

    def counted(*arguments: Any) -> None:
        made.append(arguments[-1])
        make_parts(*arguments)

    monkeypatch.setattr(bdpo.score.scoring, "_make_parts", counted)
    return made


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often settings are compared from now on, and how often it is asked whether a cell is evaluated."""
    times = Counter[str]()
    is_evaluated, compare = bdpo.sweep.cells.is_evaluated, bdpo.sweep.results.compare

    def asked(label: str, folder: Path, *more: Any) -> bool:
        times[str(folder.parent.relative_to(folder.parents[1 if label == "base" else 2]))] += 1
        return is_evaluated(label, folder, *more)

    def compared(*arguments: Any, **how: Any) -> Any:
        times["compare"] += 1
        return compare(*arguments, **how)

    monkeypatch.setattr(bdpo.sweep.cells, "is_evaluated", asked)
    monkeypatch.setattr(bdpo.sweep.results, "compare", compared)
    return times


def weights(home: Path, cell: str) -> dict[str, torch.Tensor]:
    return load_file(home / "out" / "cells" / cell / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {cell["name"]: cell for cell in json.loads((out / "sweep.json").read_text())["cells"]}


CELLS = ["DPO/seed-1", "DPO/seed-2", "B-DPO/seed-1", "B-DPO/seed-2", "off/seed-1", "off/seed-2"]


def test_methods_and_seeds_share_scores_and_are_paired(
    bdpo_: Bdpo, home: Path, trained: list[str], passes: list[str], looked: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(bdpo.sweep.run, "write_report", write_report)  # the page is drawn here, and nowhere else
    code, said, _ = bdpo_(*SWEEP, "--out", "out")
    assert code == 0 and trained == CELLS
    # of the evaluation of a cell: before it is made, and when it is there; of base at the beginning, too
    assert looked == {"compare": 1, "base": 3, **dict.fromkeys(CELLS, 2)}
    assert passes == ["scoring training pairs", "scoring held-out pairs"], "once for all cells"
    manifests = [(home / "out" / "cells" / cell / "scores.json").read_text() for cell in CELLS]
    assert len(set(manifests)) == 1, "seeds change training only"
    # an infinite temperature is the plain loss: the same adapter at the beginning, the same order of pairs
    for seed in ("seed-1", "seed-2"):
        assert same(weights(home, f"off/{seed}"), weights(home, f"DPO/{seed}"))
    assert not same(weights(home, "DPO/seed-1"), weights(home, "DPO/seed-2"))
    assert not same(weights(home, "B-DPO/seed-1"), weights(home, "DPO/seed-1"))
    assert "Settings" in said and "off" in said
    lines = [next(line for line in said.splitlines() if line.startswith(f"{cell}: ")) for cell in CELLS]
    assert all("held-out accuracy " in line and ", preferences " in line for line in lines), "as each is finished"
    page = (home / "out" / "report.html").read_text()
    assert "base (1 seed), DPO (2 seeds), B-DPO (2 seeds), off (2 seeds)" in page
    assert all(
        f'<th scope="col">{name}, seed {seed}</th>' in page for name in ("DPO", "B-DPO", "off") for seed in (1, 2)
    )


def test_what_is_found_is_that_of_the_cells(home: Path) -> None:
    out = home / "out"
    found = records(out)
    assert list(found) == ["base", *CELLS] and {cell["state"] for cell in found.values()} == {"finished"}
    compared = json.loads((out / "compare.json").read_text())
    assert compared["baseline"] == "DPO" and list(compared["methods"]) == ["base", "DPO", "B-DPO", "off"]
    row = next(row for row in compared["rows"] if row["name"] == "preferences")
    means = []
    for seed in ("seed-1", "seed-2"):
        [run] = open_runs(out / "cells" / "B-DPO" / seed / "evaluation")
        scores = [outcome.score for outcome in run.whole("preferences")]
        means.append(sum(scores) / 4)
        assert found[f"B-DPO/{seed}"]["scores"][0]["score"] == means[-1]
        metrics = json.loads((out / "cells" / "B-DPO" / seed / "metrics.json").read_text())["final"]
        assert found[f"B-DPO/{seed}"]["metrics"] == metrics
    assert row["cells"]["B-DPO"]["score"]["value"] == pytest.approx(sum(means) / 2)
    assert row["cells"]["off"]["difference"]["value"] == 0
    accuracies = [found[f"DPO/seed-{k}"]["metrics"]["eval_rewards/accuracies"] for k in (1, 2)]
    a, b = accuracies
    line = f"| DPO | 2 | {100 * (a + b) / 2:.1f} ± {100 * abs(a - b) / 2**0.5:.1f} |"
    assert line in (out / "results.md").read_text()


def test_what_is_finished_is_skipped_and_more_seeds_are_added(
    bdpo_: Bdpo, home: Path, trained: list[str], pages: list[tuple[Path, Path]]
) -> None:
    before = (home / "out" / "sweep.json").read_text()
    assert bdpo_(*SWEEP, "--out", "out")[0] == 0
    assert trained == [] and (home / "out" / "sweep.json").read_text() == before
    assert pages == [(Path("out"), Path("out/report.html"))], "of what is there, once"
    code, said, _ = bdpo_(*SWEEP, "--seeds", "3", "--out", "out")
    assert code == 0 and "10 cells, 7 of them finished." in said
    assert trained == ["DPO/seed-3", "B-DPO/seed-3", "off/seed-3"]


def test_a_cell_that_stopped_goes_on_and_ends_like_one_that_did_not(
    bdpo_: Bdpo, home: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    from bdpo.train import BDPOTrainer

    step, taken = BDPOTrainer.training_step, []

    def stops(self: Any, *arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 4:  # the second step of the second cell; each has two
            raise KeyboardInterrupt
        return step(self, *arguments)

    one = ("sweep", "--config", "recipe.yaml", "--method", "DPO=balance.enabled=false", "--seeds", "2", *ASKED)
    with monkeypatch.context() as patch:
        patch.setattr(BDPOTrainer, "training_step", stops)
        code, _, err = bdpo_(*one, "--out", "stopped")
    assert code == 130 and "run the same command again" in err
    found = records(home / "stopped")
    assert {name: cell["state"] for name, cell in found.items()} == {
        "base": "finished", "DPO/seed-1": "finished", "DPO/seed-2": "begun",
    }  # fmt: skip
    compared = json.loads((home / "stopped" / "compare.json").read_text())
    assert list(compared["methods"]) == ["base", "DPO"], "what is finished is compared when the sweep stops"
    assert bdpo_(*one, "--out", "stopped")[0] == 0
    assert trained == ["DPO/seed-1", "DPO/seed-2", "DPO/seed-2 resumed"]
    for seed in ("seed-1", "seed-2"):
        resumed = load_file(home / "stopped" / "cells" / "DPO" / seed / "adapter_model.safetensors")
        assert all(torch.allclose(resumed[name], tensor) for name, tensor in weights(home, f"DPO/{seed}").items())


def test_a_cell_that_another_process_is_at_is_left_to_it(bdpo_: Bdpo, home: Path, trained: list[str]) -> None:
    with one_at_a_time(home / "shared" / "cells" / "DPO" / "seed-1"):
        code, said, _ = bdpo_(*SWEEP[:5], "--seeds", "2", *ASKED, "--out", "shared")
    assert code == 0 and trained == ["DPO/seed-2"] and "DPO/seed-1 is left to the other process" in said
    assert records(home / "shared")["DPO/seed-1"]["state"] == "waiting"


def test_each_printed_command_runs_its_cell(bdpo_: Bdpo, home: Path, trained: list[str]) -> None:
    options = ("--config", "recipe.yaml", "--method", "my way=balance.scale=false", "--grid", "loss.beta=0.1,0.2")
    code, said, _ = bdpo_("sweep", *options, *ASKED, "--out", "array of cells", "--print-commands")
    lines = [shlex.split(line) for line in said.splitlines()]
    assert code == 0 and not (home / "array of cells").exists()
    names = ["base", "my_way_loss.beta-0.1/seed-1", "my_way_loss.beta-0.2/seed-1"]
    assert lines == [["bdpo", "sweep", *options, *ASKED, "--out", "array of cells", "--cell", name] for name in names]
    assert bdpo_(*lines[2][1:])[0] == 0 and trained == [names[2]]
    assert {name: cell["state"] for name, cell in records(home / "array of cells").items()} == dict(
        zip(names, ["waiting", "waiting", "finished"], strict=True)
    )
    assert not (home / "array of cells" / "compare.json").exists(), "not after each of many cells"


def test_a_cell_that_fails_is_named_and_the_others_run(
    bdpo_: Bdpo, home: Path, trained: list[str], pages: list[tuple[Path, Path]]
) -> None:
    code, _, err = bdpo_(*SWEEP[:3], "--grid", "data.train=nowhere.jsonl,pairs.jsonl", *ASKED, "--out", "failing")
    assert code == 2 and "1 of 3 cells failed, first B-DPO_data.train-nowhere.jsonl/seed-1: " in err
    assert "run the same command again" in err and trained == ["B-DPO_data.train-pairs.jsonl/seed-1"]
    assert pages == [(Path("failing"), Path("failing/report.html"))]
    shown, evaluations = report_of(home / "failing")
    assert [run.name for run in shown] == ["B-DPO data.train=pairs.jsonl"] and len(evaluations) == 2  # base is one


def test_a_study_holds_what_the_options_say(home: Path) -> None:
    (home / "studies").mkdir()
    (home / "studies" / "study.yaml").write_text(
        "recipe: ../recipe.yaml\nset: [data.limit=4]\nmethods: {DPO: balance.enabled=no, B-DPO: ''}\n"
        "grid: ['loss.beta=0.1,0.2']\nseeds: 2\nevaluate: {suite: starter, limit: 3}\n"
    )
    study = load_study(home / "studies" / "study.yaml")
    assert Path(study.recipe or "").resolve() == home / "recipe.yaml"
    assert study.methods == {"DPO": "balance.enabled=no", "B-DPO": ""} and study.seeds == 2
    assert (study.evaluate.plan().suite, study.evaluate.plan().limit) == ("starter", 3)
    assert load_study(home / "recipe.yaml").recipe == str(home / "recipe.yaml")


def test_the_study_that_ci_runs(bdpo_: Bdpo, home: Path) -> None:
    study = Path(__file__).parents[2] / "studies" / "smoke.yaml"
    tiny = ("model.name=model", "train.use_cpu=true", "data.max_length=64")
    code, _, _ = bdpo_("sweep", "--config", str(study), *(w for o in tiny for w in ("--set", o)), "--out", "smoke")
    assert code == 0
    assert {name: cell["state"] for name, cell in records(home / "smoke").items()} == {
        "base": "finished", "DPO/seed-1": "finished", "B-DPO/seed-1": "finished",
    }  # fmt: skip
    compared = json.loads((home / "smoke" / "compare.json").read_text())
    assert compared["settings"]["preferences"]["prompts"].startswith("6 (") and list(compared["methods"]) == [
        "base", "DPO", "B-DPO",
    ]  # fmt: skip


def test_a_grid_varies_what_a_method_leaves_open(home: Path) -> None:
    study = Study(
        recipe="recipe.yaml",
        methods={"DPO": "balance.enabled=false", "B-DPO": "", "B-DPO 2": "loss.beta=0.2"},
        grid=("balance.temperature=0.5,2", "loss.beta=0.1,0.3"),
    )
    base, *found = cells(study, Path("never"))
    assert [cell.label for cell in found] == [
        *(f"DPO loss.beta={beta}" for beta in ("0.1", "0.3")),
        *(f"B-DPO balance.temperature={t} loss.beta={beta}" for t in ("0.5", "2") for beta in ("0.1", "0.3")),
        *(f"B-DPO 2 balance.temperature={t}" for t in ("0.5", "2")),
    ]
    options = [cell.recipe.options() for cell in found]
    assert [(o.temperature, o.beta) for o in options[2:4]] == [(0.5, 0.1), (0.5, 0.3)]
    assert (options[-1].temperature, options[-1].beta) == (2, 0.2)
    assert len({cell.recipe.score.dir for cell in found}) == 1 and base.seed is None


@pytest.mark.parametrize(
    ("method", "grid", "settings"),
    [
        ("", ("balance.enabled=true,false", "balance.temperature=1,2"), 3),  # of the plain loss one
        ("", ("balance.weights=true,false", "balance.scale=true,false", "balance.temperature=1,2"), 7),
        ("", ("balance.temperature=1,.inf", "balance.center=none,mean"), 3),
        ("", ("balance.weighting=sigmoid,ratio,reversed,constant", "balance.temperature=1,2"), 7),
        ("", ("balance.weighting=sigmoid,permuted", "balance.seed=0,1"), 3),
        ("balance.weighting=ratio", ("balance.temperature=1,2", "balance.center=none,mean"), 2),
    ],
)
def test_what_changes_nothing_is_not_varied(home: Path, method: str, grid: tuple[str, ...], settings: int) -> None:
    found = cells(Study(recipe="recipe.yaml", methods={"m": method}, grid=grid), Path("never"))
    recipes = {cell.recipe.model_dump_json() for cell in found[1:]}
    assert len(found) - 1 == len(recipes) == settings


def test_two_spellings_of_one_value_are_refused(home: Path) -> None:
    for values, same in (("0.1,0.10", "0.10"), ("0.2,1e-1,0.1", "0.1")):
        first = values.split(",")[-2]
        with pytest.raises(BdpoError) as caught:
            cells(Study(recipe="recipe.yaml", methods={"DPO": ""}, grid=(f"loss.beta={values}",)), Path("never"))
        assert str(caught.value) == (
            f"--grid: 'DPO loss.beta={first}' and 'DPO loss.beta={same}' are one and the same; "
            "leave one of the values out."
        )


def test_cells_on_other_pairs_have_other_scores_and_models_no_common_base(home: Path) -> None:
    study = Study(recipe="recipe.yaml", grid=("data.limit=4,6", "balance.temperature=1,2"))
    found = [cell for cell in cells(study, Path("never")) if cell.seed is not None]
    dirs = [cell.recipe.score.dir for cell in found]
    assert dirs[0] == dirs[1] != dirs[2] == dirs[3]
    swapped = Study(recipe="recipe.yaml", methods={"DPO": "", "SafeDPO": "loss.name=safedpo"})
    assert len({cell.recipe.score.dir for cell in cells(swapped, Path("never"))[1:]}) == 2, "it swaps pairs"
    models = Study(recipe="recipe.yaml", grid=("model.name=model,other",))
    assert [cell.seed for cell in cells(models, Path("never"))] == [1, 1]


MISTAKES = {
    "a key that is not there": ("--grid balance.temprature=1,2", "--grid balance.temprature=1: ", "did you mean 'temp"),
    "a value that does not fit": ("--grid loss.beta=0.1,big", "--grid loss.beta=big: ", "loss"),
    "no values": ("--grid loss.beta=", "--grid loss.beta=: write section.key=value,value"),
    "an empty value": ("--grid loss.beta=0.1,,0.2", "write section.key=value,value"),
    "no key": ("--grid 0.1,0.2", "write section.key=value,value"),
    "a grid twice": ("--grid loss.beta=1 --grid loss.beta=2", "--grid loss.beta is given twice: put its values"),
    "a value twice": ("--grid loss.beta=1,1", "the value 1 is given twice"),
    "the seed as a grid": ("--grid train.seed=1,2", "train.seed is 1 to --seeds in every setting"),
    "the seed in a method": ("--method A=train.seed=3", "--method A: train.seed is 1 to --seeds"),
    "methods of one name": ("--method A= --method A=loss.beta=1", "--method A is given twice: give each"),
    "methods of one folder": ("--method a/b= --method a:b=", "would share the folder a_b/seed-1: name a method"),
    "a method without a name": ("--method =loss.beta=1", "write NAME=OVERRIDES"),
    "a method without =": ("--method DPO", "write NAME=OVERRIDES"),
    "a method called base": ("--method base=", "'base' is no name for a method"),
    "a method's key": ("--method A=loss.betta=1", "--method A loss.betta=1: ", "has no hyperparameter 'betta'"),
    "a method's quotes": ("--method A='x", "mend the quotes"),
    "no such baseline": ("--baseline DPO", "Unknown baseline 'DPO': use one of base, B-DPO; did you mean 'B-DPO'?"),
    "no such cell": ("--cell B-DPO/seed-2", "Unknown cell 'B-DPO/seed-2'", "did you mean 'B-DPO/seed-1'?"),
    "no rule": ("--choose best", "Unknown measure of --choose 'best'"),
    "no such suite": ("--suite sfety", "No benchmark 'sfety': did you mean 'safety'?"),
    "what the trainer refuses": ("--grid train.save_strategy=no,offf", "save_strategy", "offf"),
    "no recipe": ("--config nowhere.yaml", "No recipe at nowhere.yaml"),
    "a study's key": ("--config wrong.yaml", "wrong.yaml: unknown key 'sedes': did you mean 'seeds'?"),
    "a study's value": ("--config worse.yaml", "worse.yaml: seeds is 0, but it should be greater than"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_a_sentence_before_anything_runs(mistake: str, bdpo_: Bdpo, home: Path) -> None:
    (home / "wrong.yaml").write_text("recipe: recipe.yaml\nsedes: 2\n")
    (home / "worse.yaml").write_text("recipe: recipe.yaml\nseeds: 0\n")
    words, *said = MISTAKES[mistake]
    code, _, err = bdpo_("sweep", "--config", "recipe.yaml", *ASKED, "--out", "never", *words.split())
    assert code == 2 and err.startswith("bdpo: ") and err.count("\n") == 1 and not (home / "never").exists()
    assert all(part in err for part in said), err
