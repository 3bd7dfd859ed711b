"""docs/architecture.md: the numbers of its walk are those that its own blocks compute."""

import doctest
import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs/architecture.md"


def run_blocks(text: str) -> tuple[int, int]:
    """Run the `>>>` of a page in one namespace: (examples that failed, examples)."""
    unfenced = re.sub(r"^```.*$", "", text, flags=re.MULTILINE)  # else a fence ends what an example should print
    test = doctest.DocTestParser().get_doctest(unfenced, {}, PAGE.name, str(PAGE), 0)
    return doctest.DocTestRunner().run(test)


def test_the_row_on_the_page_is_the_first_of_the_starter_data() -> None:
    before_the_model = PAGE.read_text(encoding="utf-8").partition("### PreferencePair -> ids")[0]
    assert run_blocks(before_the_model) == (0, 6)


@pytest.mark.slow
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the numbers of the page are those of a CPU")
def test_every_number_of_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the page writes into runs/
    failed, tried = run_blocks(PAGE.read_text(encoding="utf-8"))
    assert tried > 50 and failed == 0
