"""What a command loads: nothing that takes seconds (torch, transformers, scipy.stats) where it has no need of it.

All commands run one after the other in one fresh process, which tells after each what is loaded. Modules are counted,
since seconds say more of the machine than of the command.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run

_PROBE = """
import contextlib, io, json, sys

def run(words):
    from bdpo.cli import main
    sys.argv, said, out, code = ["bdpo", *words], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except ImportError as error:
            code = str(error)
    return [code, said.getvalue() or out.getvalue(), [name for name in watched if name in sys.modules]]

watched, light, heavy = json.load(sys.stdin)
found = [run(words) for words in light]
sys.modules["torch"] = sys.modules["transformers"] = None  # to load them is an error from now on
found += [run(words) for words in heavy]
print(json.dumps(found))
"""

SLOW = ("torch", "transformers", "scipy.stats", "matplotlib")
# what takes a tenth of a second or so, and which of the first commands below do without it
LESS_SLOW = {
    "numpy": ("--version", "evaluate ./nowhere --out x"),
    "jinja2": ("evaluate ./nowhere --out x", "compare nowhere", "compare evaluation"),
    "bdpo.pairs.check": ("compare evaluation",),
    "bdpo.evaluate.judges.rules": ("compare evaluation",),
    "bdpo.evaluate.ask.benchmarks": ("compare evaluation",),
}
NOWHERE = "nowhere.jsonl: no such file"
LIGHT = {  # command: exit code, what it says
    "--version": (0, "bdpo "),
    "evaluate ./nowhere --out x": (2, "No model folder at nowhere"),
    "compare nowhere": (2, "nowhere holds no evaluation"),
    "compare evaluation": (0, "Written: evaluation/compare.json"),
    "recipe list": (0, "starter"),
    "runs nowhere": (2, "nowhere is no folder"),
    "runs .": (0, "B-DPO"),
    "data check nowhere.jsonl": (2, NOWHERE),
    "data check pairs.jsonl": (0, "1000 pairs of 1000 rows"),
    "data show nowhere.jsonl": (2, NOWHERE),
    "data show pairs.jsonl --top 1": (0, "Asked 0"),
    "data clean nowhere.jsonl --out clean.jsonl": (2, NOWHERE),
    "data clean pairs.jsonl --out clean.jsonl": (0, "clean.jsonl"),
    "judge-agreement nowhere.csv": (2, "nowhere.csv: cannot be read"),
    "score --out x --data nowhere.jsonl": (2, NOWHERE),
    "score --out x --model ./nowhere": (2, "No model folder at nowhere"),
    "score --out x --set data.trian=a": (2, "did you mean 'train'?"),
    "train --config nowhere.yaml": (2, "No recipe at nowhere.yaml"),
    "train --config recipe.yaml --set data.eval=nowhere.jsonl": (2, NOWHERE),
    "train --config recipe.yaml --set balanc.center=mean": (2, "did you mean 'balance'?"),
    "train --config recipe.yaml --set balance.centre=mean": (2, "did you mean 'center'?"),
    "train --config recipe.yaml --set train.learning_rat=1": (2, "did you mean 'learning_rate'?"),
    "train --config recipe.yaml --set train.beta=1": (2, "did you mean 'loss.beta'?"),
    "train --config recipe.yaml --dry-run --set model.name=./nowhere": (2, "No model folder at nowhere"),
    "sweep --out x --config nowhere.yaml": (2, "No recipe at nowhere.yaml"),
    "sweep --out x --set lss.beta=1": (2, "did you mean 'loss'?"),
    "evaluate starter --suite stater --out x": (2, "No benchmark 'stater'"),
    "evaluate starter --pairs nowhere.jsonl --out x": (2, NOWHERE),
    "merge . --out x": (2, "it is not a model folder"),
    "export . --out x": (2, "it is not a model folder"),
    "push nowhere org/name": (2, "nowhere holds no finished run"),
    "report nowhere": (2, "nowhere holds no finished run"),
    "report run --evaluation evaluation": (0, "Written: report.html"),  # it draws
}
HEAVY = {  # command: what it says before it loads torch and transformers
    "score --out x --data pairs.jsonl": "Reading pairs.jsonl, loading torch and transformers ...\n",
    "train --config recipe.yaml": "Reading pairs.jsonl, loading torch and transformers ...\n",
    "evaluate starter --out x": "Reading starter, loading torch and transformers ...\n",
    "demo": "Reading the starter data, loading torch and transformers ...\n",
}


def furnish(home: Path) -> None:
    """What the commands are given: pairs, a recipe, a run, an evaluation."""
    pairs = ({"prompt": f"Asked {i}", "chosen": f"Yes, {i}", "rejected": f"No, {i}"} for i in range(1000))
    (home / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (home / "recipe.yaml").write_text("data: {train: pairs.jsonl}\ntrain: {learning_rate: 1e-4}\n")
    (home / "run").mkdir()
    record = {"format": 1, "method": "B-DPO", "beta": 0.1, "scores": {"train": {"path": "gone", "key": {}}}}
    (home / "run" / "run.json").write_text(json.dumps(record))
    recipe = {"model": {}, "loss": {"name": "dpo"}, "balance": {"enabled": True, "temperature": 1.0}, "train": {}}
    (home / "run" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (home / "run" / "metrics.json").write_text(json.dumps({"final": {}, "history": []}))
    for name, refused in (("base", 1), ("B-DPO", 3)):
        run = claim_run(home / "evaluation", name, name, name, {"weights": name})
        for task, suite in (("strongreject", "safety"), ("xstest-safe", "over-refusal")):
            run = run.with_tasks({task: TaskRecord(suite, "successes", 4, {})})
            said = [Outcome(f"p{i}", 0, "", "?", "!", "end", 1, float(i < refused), "refusal") for i in range(4)]
            run.append(task, said)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str, list[str]]]:
    """By command: exit code (or the module that was missing), what it said, what was loaded by then."""
    home = tmp_path_factory.mktemp("imports")
    furnish(home)
    words = [[command.split() for command in commands] for commands in (LIGHT, HEAVY)]
    asked = json.dumps([[*SLOW, *LESS_SLOW], *words])
    done = subprocess.run([sys.executable, "-c", _PROBE], input=asked, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip([*LIGHT, *HEAVY], json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", LIGHT)
def test_a_command_answers_before_torch_is_loaded(
    found: dict[str, tuple[object, str, list[str]]], command: str
) -> None:
    code, said, loaded = found[command]
    assert code == LIGHT[command][0] and LIGHT[command][1] in said, said
    assert [name for name in loaded if name in SLOW] == (["matplotlib"] if command.startswith("report run") else [])


@pytest.mark.parametrize("module", LESS_SLOW)
def test_a_command_loads_what_it_needs(found: dict[str, tuple[object, str, list[str]]], module: str) -> None:
    assert [command for command in LESS_SLOW[module] if module in found[command][2]] == []


@pytest.mark.parametrize("command", HEAVY)
def test_a_command_speaks_before_it_loads_torch(found: dict[str, tuple[object, str, list[str]]], command: str) -> None:
    missing, said, _ = found[command]
    assert said == HEAVY[command]
    assert "torch" in str(missing) or "transformers" in str(missing)
