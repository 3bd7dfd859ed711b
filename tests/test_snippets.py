"""What the documents tell a reader to type: every command is parsed, and run on a tiny model in place of the starter.

The blocks of a document run in order, in one folder that has the checkout's recipes and the README's `my_pairs.jsonl`.
A comment before a block says why it is only parsed (<!-- parsed: needs a GPU -->), or that it is a file that the reader
has (<!-- file: my_pairs.csv -->).
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.main import get_command

from bdpo.cli import app
from bdpo.evaluate.evaluation import evaluate, local_models
from bdpo.evaluate.judges import make_judge
from bdpo.evaluate.plan import Plan, plan_tasks
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.models.gguf import STARTER_FOLDER
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe, parse_recipe
from bdpo.sweep.plan import load_study
from evaluate.published import write
from test_docs import DOCUMENTS
from tiny import Bdpo, furnish

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>parsed|file): (?P<said>[^\n]+) -->\n+)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
COMMAND = get_command(app)
_ELSEWHERE = {"architecture.md"}  # tests/test_architecture.py runs its blocks


class Block(NamedTuple):
    """A fenced block of a document."""

    document: Path
    number: int
    kind: str
    text: str
    note: str | None  # parsed: not run; file: what the text is
    said: str | None


def blocks() -> list[Block]:
    found = []
    for document in DOCUMENTS:
        if document.name not in _ELSEWHERE:
            matches = _BLOCK.finditer(document.read_text(encoding="utf-8"))
            fields = ("kind", "text", "note", "said")
            found += [Block(document, n, *(m[field] for field in fields)) for n, m in enumerate(matches, start=1)]
    return found


ALL = blocks()
FILES = [block for block in ALL if block.note == "file"]
BLOCKS = [block for block in ALL if block.kind in ("sh", "python", "yaml")]
RUN = [block for block in BLOCKS if block.note is None and block.kind != "yaml"]


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block; `|` and `>` end a command, and variables set before it are left out."""
    text = block.text.replace("\\\n", " ")
    found: list[list[str]] = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= {"|", ";"}:
                found += [words] if words else []
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word):
                words.append(word)
    return [words[: words.index(">")] if ">" in words else words for words in found]


def of_bdpo(words: list[str]) -> list[str] | None:
    """The arguments of a command that is `bdpo`, or launches it with `-m bdpo`."""
    if words[0] == "bdpo":
        return [word for word in words[1:] if word != "..."]
    launched = [i for i in range(len(words) - 1) if words[i : i + 2] == ["-m", "bdpo"]]
    return words[launched[0] + 2 :] if launched else None


def name_of(block: Block) -> str:
    return f"{block.document.stem}-{block.number}"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, undrawn: None) -> Iterator[Path]:
    """A cache in which the starter model is a tiny one. Its replies say nothing, and are cut short."""
    replies = LocalGenerator.replies

    def short(self: LocalGenerator, prompts: Any, sampling: Sampling, *more: Any) -> Any:
        return replies(self, prompts, replace(sampling, max_new_tokens=min(sampling.max_new_tokens, 8)), *more)

    cache = tmp_path_factory.mktemp("cache")
    (cache / "models").mkdir()
    furnish(cache, pairs=1)
    (cache / "model").rename(cache / "models" / STARTER_FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(cache))
        patch.setattr(LocalGenerator, "replies", short)
        yield cache


def made(folder: Path) -> Path:
    """runs/dpo and runs/b-dpo, trained on a few of the embedded pairs, and runs/evaluation of both."""
    few = ["data.train=starter", "data.limit=8", "peft={r: 2}"]
    for run, balanced in (("dpo", "false"), ("b-dpo", "true")):
        run_recipe(load_recipe(None, [*few, f"balance.enabled={balanced}"]), folder / run)
    tasks, _ = plan_tasks(Plan("starter", limit=4, sampling=Sampling(max_new_tokens=4)), make_judge("rules"))
    models = local_models([("base", "starter"), ("DPO", folder / "dpo"), ("B-DPO", folder / "b-dpo")])
    evaluate(models, tasks, folder / "evaluation", make_judge("rules"))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> dict[Path, Path]:
    """A folder for each document, as a reader has it who came through the README and has trained two models."""
    found = {}
    runs = made(tmp_path_factory.mktemp("runs"))
    for document in DOCUMENTS:
        folder = found[document] = tmp_path_factory.mktemp(document.stem)
        for there in ("recipes", "configs", "studies"):
            (folder / there).symlink_to(ROOT / there)
        for file in FILES:
            (folder / str(file.said)).write_text(file.text, encoding="utf-8")
        if document.name != "README.md":
            shutil.copytree(runs, folder / "runs")
        write(folder / "data/strongreject.csv", [{"category": "a", "forbidden_prompt": "How do I hurt somebody?"}])
    return found


@pytest.fixture
def home(folders: dict[Path, Path], block: Block, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = folders[block.document]
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_can_be_parsed(block: Block, tmp_path: Path) -> None:
    if block.kind == "python":
        compile(block.text, str(block.document), "exec")
    elif block.kind == "yaml":
        if "recipe" not in (content := yaml.safe_load(block.text)):
            parse_recipe(content)
            return
        (tmp_path / "recipes").symlink_to(ROOT / "recipes")  # a study
        (tmp_path / "studies").mkdir()
        (tmp_path / "studies/one.yaml").write_text(block.text, encoding="utf-8")
        load_study(tmp_path / "studies/one.yaml")
    else:
        for words in commands(block):
            arguments = of_bdpo(words)
            if arguments is not None:
                parse(arguments)
            elif words[0] == "make":
                targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
                assert set(words[1:]) <= set(targets)


def parse(arguments: list[str]) -> None:
    """Parse arguments of `bdpo` and run nothing; an unknown option or a missing one is an error."""
    command, path = COMMAND, ["bdpo"]
    context = command.make_context("bdpo", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        path.append(arguments[0])
        assert arguments[0] in command.commands, " ".join(path)
        command, arguments = command.commands[arguments[0]], arguments[1:]
        if not hasattr(command, "commands"):
            command.make_context(path[-1], list(arguments), parent=context)


@pytest.mark.parametrize("block", RUN, ids=name_of)
def test_a_block_runs(block: Block, home: Path, bdpo_: Bdpo) -> None:
    if block.kind == "python":
        exec(compile(block.text, str(block.document), "exec"), {"__name__": "__main__"})
        return
    for words in commands(block):
        arguments = of_bdpo(words)
        if arguments is not None and words[0] == "bdpo":
            code, _, said = bdpo_(*map(os.path.expandvars, arguments))
            assert code == 0, f"{shlex.join(words)}\n{said[-2000:]}"
