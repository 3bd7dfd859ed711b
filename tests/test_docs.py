"""What the documents name exists; the examples in docstrings and the worked one of CONTRIBUTING.md work."""

import doctest
import importlib
import math
import re
import runpy
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from bdpo.method import losses

ROOT = Path(__file__).parents[1]
ROOMS = ROOT / "src/bdpo"
DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

EXAMPLES = [path for path in sorted(ROOMS.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]

_PATH = re.compile(r"(?<![\w./-])(?:src|tests|docs|recipes|configs|benchmarks|\.ci)/[\w./-]*")
_IN_A_ROOM = re.compile(r"(?<![\w./-])([a-z_]+/(?:[\w-]+/)*\w+\.py)\b")  # forward/layout.py
_LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
_DOTTED = re.compile(r"(?<![\w./-])(?:bdpo|benchmarks)(?:\.[A-Za-z_]\w*)+")


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    if name.startswith("benchmarks."):
        return (ROOT / f"{name.replace('.', '/')}.py").exists()
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        return bool(module) and hasattr(importlib.import_module(module), attribute)
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    missing = [path for path in _PATH.findall(text) if not (ROOT / path.rstrip(".")).exists()]
    missing += [
        path
        for path in _IN_A_ROOM.findall(text)
        if not any((base / path).exists() for base in (ROOT, ROOMS, document.parent))
    ]
    missing += [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    missing += [name for name in _DOTTED.findall(text) if not exists(name)]
    assert not missing


def test_the_map_is_kept_in_one_place() -> None:
    rooms = [path.name for path in ROOMS.iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.partition("## What lies where")[2].partition("```\n")[2].partition("```")[0]
    assert tree.count("\n") <= 10
    assert not [room for room in rooms if f" {room}/ " in tree]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOMS)))
def test_the_examples_in_docstrings(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(ROOMS.parent).with_suffix("").parts))
    failed, tried = doctest.testmod(module)
    assert tried > 0 and failed == 0


def test_the_figure_of_the_method_shows_what_its_text_says(tmp_path: Path) -> None:
    means = runpy.run_path(str(ROOT / "docs/figures.py"))["main"](str(tmp_path))
    assert (tmp_path / "tilt.svg").stat().st_size < 100_000
    assert means == {"none": pytest.approx(0.67, abs=0.005), "mean": pytest.approx(1.0, abs=0.005)}


def test_the_worked_example_of_adding_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    there = dict(vars(losses))
    exec(dedent(code), there)
    [example] = doctest.DocTestFinder().find(there["apo_zero"], "apo_zero", module=False, globs=there)
    assert doctest.DocTestRunner().run(example) == (0, 1)
    monkeypatch.setitem(losses.LOSSES, "apo_zero", losses.Loss(there["apo_zero"]))
    weights = losses.PairWeights(torch.tensor([0.5]), torch.tensor([1.25]))  # log-ratios 1 and -1.25
    value = losses.pair_losses("apo_zero", losses.EXAMPLE, weights, beta=0.2).item()
    assert value == pytest.approx(1 - 1 / (1 + math.exp(-0.2)) + 1 / (1 + math.exp(0.25)), abs=1e-6)


def test_the_list_of_commands_on_the_site_cuts_no_sentence() -> None:
    page = runpy.run_path(str(ROOT / "docs/site.py"))["command_line"]()
    listed = dict(re.findall(r"^\* `([a-z-]+)`: (.+)$", page, re.M))
    assert listed["score"] == "Measure how well the model comprehends each reply (stage 1)."
    assert {"train", "compare", "push", "clean", "copy"} <= set(listed)  # those of groups too
    assert not [said for said in listed.values() if said.endswith("...")]
