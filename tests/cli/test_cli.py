"""The command line: help, the whole way on a tiny model, and every mistake as one sentence with exit code 2."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from peft import AutoPeftModelForCausalLM
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

import bdpo.recipe.parts
import bdpo.recipe.run
from bdpo.cli import app
from bdpo.errors import BdpoError
from bdpo.processes import Stopped
from bdpo.recipe.checkpoints import write_manifest
from bdpo.score.folder import open_scores
from tiny import Bdpo, furnish, tiny_model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, pairs and a recipe; bdpo's cache lies in it, and it is the working folder."""
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=12, held=5)
    (home / "empty.jsonl").write_text("")
    (home / "incomplete.csv").write_text("prompt,chosen\nWhy?,Because.\n")
    (home / "bad.jsonl").write_text((home / "pairs.jsonl").read_text() + '{"prompt": "x", "chosen": 3}\n')
    (home / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.chdir(home)
        yield home


RECIPE = """
model: {name: model}
data: {train: pairs.jsonl, eval: held.jsonl}
train: {use_cpu: true, disable_tqdm: true, per_device_train_batch_size: 4, learning_rate: 1e-3, logging_steps: 1,
        save_steps: 1, lr_scheduler_type: constant}
peft: {r: 4, target_modules: [q_proj]}
"""


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    found, left = {}, [((), typer.main.get_command(app))]
    while left:
        words, command = left.pop()
        found[" ".join(words)] = command
        left += [((*words, name), child) for name, child in getattr(command, "commands", {}).items()]
    return found


# --- help ----------------------------------------------------------------------------------------------------------
def test_the_commands_are_those_of_the_readme() -> None:
    assert {"", "data check", "score", "train", "merge", "demo"} <= set(commands())


@pytest.mark.parametrize("words", commands())
def test_every_command_and_every_option_explains_itself(bdpo_: Bdpo, words: str) -> None:
    code, out, _ = bdpo_(*words.split(), "--help")
    assert code == 0 and "Usage" in out
    command = commands()[words]
    assert command.help and len(command.help.split()) >= 5
    shown = [p for p in command.params if p.name not in ("help", "install_completion", "show_completion")]
    assert [p.name for p in shown if not p.help] == []
    usage = next(line for line in out.splitlines() if "Usage" in line)
    assert "{" not in usage and all(p.metavar and p.metavar in usage for p in shown if p.param_type_name == "argument")


def test_the_installed_command_starts_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "bdpo", "data"], capture_output=True, text=True, timeout=60)
    assert "check" in done.stdout + done.stderr and "Traceback" not in done.stderr


# --- data check ---------------------------------------------------------------------------------------------------
def test_the_version_is_told(bdpo_: Bdpo) -> None:
    assert bdpo_("--version") == (0, f"bdpo {bdpo.__version__}\n", "")


def test_data_check_exits_with_0_without_errors(bdpo_: Bdpo) -> None:
    code, out, err = bdpo_("data", "check", "pairs.jsonl", "--model", "model")
    assert (code, err) == (0, "") and "12" in out


def test_data_check_exits_with_1_on_errors_and_names_the_line(bdpo_: Bdpo) -> None:
    code, out, _ = bdpo_("data", "check", "bad.jsonl", "--model", "model")
    assert code == 1 and "line 13" in out


def test_data_check_reads_other_data_alike(bdpo_: Bdpo, home: Path) -> None:
    shared, others = ([f"{n}. What is {word} for?" for n in range(12)] for word in ("a kettle", "an umbrella"))
    for name, label, texts in (("pku.jsonl", True, shared), ("pku-test.jsonl", False, [*others, *shared])):
        rows = [
            {"prompt": text, "response_0": "Yes.", "response_1": "No.", "is_response_0_safe": True,
             "is_response_1_safe": label, "better_response_id": 0, "safer_response_id": 0}
            for text in texts
        ]  # fmt: skip
        (home / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    check = ("data", "check", "pku.jsonl", "--model", "model", "--prefer", "safety-protocol", "--json",
             "--against", "pku-test.jsonl", "--format", "pku")  # fmt: skip

    def leaked(*options: str) -> int:
        code, out, _ = bdpo_(*check, *options)
        counts = [f["count"] for f in json.loads(out)["findings"] if f["name"] == "overlap"]
        assert code == (1 if counts else 0)
        return sum(counts)

    assert leaked() == 12
    drawn = [leaked("--sample", "6", "--seed", seed) for seed in ("0", "1", "2")]
    assert max(drawn) < 6, "six of the 24 others too, not all"
    code, _, err = bdpo_(*check, "--format", "trl")
    assert code == 2 and "pku" in err


@pytest.mark.parametrize(("name", "code"), [("pairs.jsonl", 0), ("bad.jsonl", 1)])
def test_data_check_speaks_json(bdpo_: Bdpo, name: str, code: int) -> None:
    found, out, _ = bdpo_("data", "check", name, "--model", "model", "--json")
    report = json.loads(out)
    assert found == code and isinstance(report, dict) and "12" in out


# --- the whole way ------------------------------------------------------------------------------------------------
def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 40, 41, 42, 2]])).logits


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "metrics.json").read_text())["history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_folder_with_ches_says_so_and_the_next_command_asks_for_it(bdpo_: Bdpo, home: Path) -> None:
    code, out, _ = bdpo_("score", "--model", "model", "--data", "pairs.jsonl", "--ches", "--out", "similar")
    assert code == 0 and "--set score.ches=true --set score.dir=similar" in out
    rows = open_scores(home / "similar").rows
    d = [c - r for c, r in zip(rows["chosen_mi"], rows["rejected_mi"], strict=True)]
    said = " ".join(out.split())
    for name, words in (("ches", "(Spearman, 95 %): "), ("ches_normalised", "length-normalised ")):
        assert f"{words}{spearmanr(list(rows[name]), d).statistic:+.2f} [" in said


def test_text_prompts_are_scored_as_chats(bdpo_: Bdpo, home: Path) -> None:
    texts = [("Hi there", "a b c", "d e"), ("Why so", "f g", "h i j")]
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts]
    chats = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    for name, said in (("texts.jsonl", rows), ("chats.jsonl", chats)):
        (home / name).write_text("".join(json.dumps(row) + "\n" for row in said))
    code, out, _ = bdpo_("score", "--model", "model", "--data", "texts.jsonl", "--as-chat", "--out", "texts")
    assert code == 0 and "--set data.as_chat=true --set score.dir=texts" in out and "Warning" not in out
    assert bdpo_("score", "--model", "model", "--data", "chats.jsonl", "--out", "chats")[0] == 0
    found, expected = (open_scores(home / name).rows for name in ("texts", "chats"))
    assert list(found["chosen_mi"]) == pytest.approx(list(expected["chosen_mi"]), abs=1e-6)
    assert list(found["prompt_ids"]) == list(expected["prompt_ids"])


def test_score_then_train_then_merge(bdpo_: Bdpo, home: Path) -> None:
    code, out, _ = bdpo_("score", "--model", "model", "--data", "pairs.jsonl", "--out", "scores")
    assert code == 0 and "Comprehension" in out and "--set score.dir=scores" in out
    manifest = open_scores(home / "scores").manifest
    assert manifest["pairs"] == 12

    use = ("--config", "recipe.yaml", "--set", "score.dir=scores", "--set", "train.num_train_epochs=2")
    code, out, _ = bdpo_("train", *use, "--out", "run")
    assert code == 0 and "bdpo merge run" in out
    assert json.loads(Path("run/scores.json").read_text()) == manifest, "scored once"
    assert len(losses(home / "run")) == 6 and losses(home / "run")[0] == pytest.approx(0.693147, abs=1e-5)

    code, out, _ = bdpo_("merge", "run", "--out", "merged")
    assert (code, out) == (0, "Merged weights and tokenizer: merged\n")
    adapted = logits(AutoPeftModelForCausalLM.from_pretrained(home / "run"))
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(home / "merged")), adapted, atol=1e-5)
    assert (adapted - logits(tiny_model())).abs().max() > 1e-3


def test_train_goes_on_with_resume(bdpo_: Bdpo, home: Path) -> None:
    half = ("train", "--config", "recipe.yaml", "--out", "halves")
    assert bdpo_(*half, "--set", "train.num_train_epochs=1")[0] == 0
    code, _, err = bdpo_(*half, "--set", "train.num_train_epochs=2")
    assert code == 2 and "resume it (--resume)" in err
    assert bdpo_(*half, "--set", "train.num_train_epochs=2", "--resume")[0] == 0
    assert bdpo_("train", "--config", "recipe.yaml", "--out", "one", "--set", "train.num_train_epochs=2")[0] == 0
    assert losses(home / "halves") == pytest.approx(losses(home / "one"), abs=1e-6)


def test_an_override_chooses_the_baseline(bdpo_: Bdpo, home: Path) -> None:
    short = ("--set", "train.max_steps=1", "--set", "data.eval=null", "--config", "recipe.yaml")
    assert bdpo_("train", *short, "--set", "balance.enabled=false", "--out", "dpo")[0] == 0
    assert "aligned with DPO\n" in Path("dpo/README.md").read_text()


# --- mistakes -------------------------------------------------------------------------------------------------------
SCORE = ("score", "--model", "model", "--out", "never")
TRAIN = ("train", "--config", "recipe.yaml", "--out", "never")
READING = "Reading pairs.jsonl, loading torch and transformers ...\n"
MISTAKES = {
    "no such data": ("data check nowhere.jsonl --model model", "nowhere.jsonl"),
    "no such data to score": ((*SCORE, "--data", "nowhere.jsonl"), "nowhere.jsonl"),
    "no such data to train on": ((*TRAIN, "--set", "data.train=nowhere.jsonl"), "nowhere.jsonl"),
    "no such recipe": ("train --config nowhere.yaml", "No recipe at nowhere.yaml"),
    "no such run": ("merge nowhere/at/all --out never", "No model folder at nowhere/at/all"),
    "nothing to merge": ("merge model --out never", "holds no adapter"),
    "missing column": ((*SCORE, "--data", "incomplete.csv"), "'prompt', 'chosen'"),
    "missing column in a check": ("data check incomplete.csv --model model", "'prompt', 'chosen'"),
    "a bad row": ((*SCORE, "--data", "bad.jsonl"), "bad.jsonl, line 13"),
    "empty file": ((*SCORE, "--data", "empty.jsonl"), "empty.jsonl"),
    "empty file in a check": ("data check empty.jsonl --model model", "empty.jsonl"),
    "no such model folder": ("score --model ./nowhere --data pairs.jsonl --out never", "No model folder at nowhere"),
    "no such model on the hub": ("score --model no/such --data pairs.jsonl --out never", "'no/such' is neither"),
    "not a model folder": ("score --model cache --data pairs.jsonl --out never", "not a model folder"),
    "unknown loss": ((*TRAIN, "--set", "loss.name=dppo"), "did you mean 'dpo'?"),
    "unknown key": ((*TRAIN, "--set", "balance.temprature=2"), "did you mean 'temperature'?"),
    "ill-typed value": ((*TRAIN, "--set", "train.learning_rate=fast"), "train.learning_rate is 'fast'"),
    "unknown estimator": (
        (*SCORE, "--data", "pairs.jsonl", "--estimator", "pmj"),
        "'pmi', 'entropy', 'contrastive' or 'none'",
    ),
    "out holds something else": ("score --model model --data pairs.jsonl --out model", "choose another --out"),
    "out is taken": ("train --config recipe.yaml --out model", "is not empty"),
    "out is a file": ("train --config recipe.yaml --out pairs.jsonl", "pairs.jsonl is a file"),
    "out below a file": ("train --config recipe.yaml --out pairs.jsonl/run", "Cannot write in pairs.jsonl/run"),
    "merge into a full folder": ("merge model --out model", "holds no adapter"),
    "nothing to resume": ((*TRAIN, "--resume"), "holds no checkpoint to resume from"),
    "an adapter that does not fit": ((*TRAIN, "--set", "peft.target_modules=[nowhere]"), "does not fit the model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    bdpo_: Bdpo, mistake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments, said = MISTAKES[mistake]
    code, _, err = bdpo_(*(arguments.split() if isinstance(arguments, str) else arguments))
    sentence = [line for line in err.splitlines() if line.startswith("bdpo: ")]
    assert code == 2 and len(sentence) == 1 and said in sentence[0]
    assert "Traceback" not in err
    assert not Path("never").exists() or not any(Path("never").iterdir()), "a refused run leaves nothing behind"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_sentence(bdpo_: Bdpo, home: Path) -> None:
    locked = home / "locked"
    locked.mkdir(mode=0o500)
    for arguments in (("score", "--model", "model", "--data", "pairs.jsonl"), ("train", "--config", "recipe.yaml")):
        code, _, err = bdpo_(*arguments, "--out", "locked/out")
        assert code == 2 and "Permission denied" in err and "Traceback" not in err


def test_a_system_error_is_one_sentence(bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr(bdpo.recipe.run, "run_recipe", full)
    code, _, err = bdpo_(*TRAIN)
    assert (code, err) == (2, f"{READING}bdpo: runs/x: No space left on device.\n")


def test_debug_gives_the_traceback_wherever_it_stands(bdpo_: Bdpo) -> None:
    for arguments in (("--debug", *TRAIN), (*TRAIN, "--debug")):
        with pytest.raises(BdpoError, match="did you mean 'dpo'"):
            bdpo_(*arguments, "--set", "loss.name=dppo")


def test_an_unknown_option_is_a_usage_error(bdpo_: Bdpo) -> None:
    code, _, err = bdpo_("train", "--confg", "recipe.yaml")
    assert code == 2 and "No such option" in err and "Traceback" not in err


@pytest.mark.parametrize("command", [SCORE, ("train", "--out", "absent")], ids=["score", "train"])
def test_missing_data_is_said_before_the_model_is_loaded(
    bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(bdpo.models, "load", None)
    code, _, err = bdpo_(*command, "--set", "data.train=absent.jsonl")
    assert code == 2 and err.startswith("bdpo: ") and "absent.jsonl" in err


def test_ctrl_c_says_how_to_go_on(bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bdpo.recipe.run, "run_recipe", stopped)
    code, _, err = bdpo_(*TRAIN)
    said = f"{READING}bdpo: Stopped. What was written is kept; run the same command again"
    assert (code, err) == (130, f"{said}.\n"), "no checkpoint to resume from"
    Path("stopped/checkpoint-3").mkdir(parents=True)
    code, _, err = bdpo_("train", "--config", "recipe.yaml", "--out", "stopped")
    assert (code, err) == (130, f"{said}.\n"), "nor from one that is not complete"
    write_manifest(Path("stopped/checkpoint-3"), resumable=True)
    code, _, err = bdpo_("train", "--config", "recipe.yaml", "--out", "stopped")
    assert (code, err) == (130, f"{said} with --resume.\n")
    monkeypatch.setattr(bdpo.recipe.parts, "load_model", stopped)
    code, _, err = bdpo_(*SCORE, "--data", "pairs.jsonl")
    assert (code, err) == (130, f"{said}.\n")


@pytest.mark.parametrize("words", ["data check pairs.jsonl", "data show pairs.jsonl"])
def test_a_command_that_writes_nothing_keeps_nothing_when_it_is_stopped(
    bdpo_: Bdpo, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr("bdpo.pairs.load_pairs", stopped)
    assert bdpo_(*words.split()) == (143, "", "bdpo: Stopped; run the same command again.\n")
