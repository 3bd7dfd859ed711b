"""A command writes over what it wrote before, and over no other file."""

from pathlib import Path

import pytest
from test_imports import furnish

from tiny import Bdpo

COMMANDS = {  # what each writes: a second time too
    "data show pairs.jsonl --top 2 --export": "mine.csv",
    "data clean pairs.jsonl --out": "mine.jsonl",
    "runs . --csv": "mine.csv",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [*COMMANDS, "report run --evaluation evaluation --out"])
def test_another_file_is_kept(bdpo_: Bdpo, home: Path, command: str) -> None:
    mine = home / COMMANDS.get(command, "mine.html")
    mine.write_text("precious")
    code, _, err = bdpo_(*command.split(), mine.name)
    assert code == 2 and mine.read_text() == "precious"
    option = command.split()[-1]
    assert err == f"bdpo: {option} {mine.name} was not written by this command: choose another name, or remove it.\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_its_own_is_made_anew(bdpo_: Bdpo, home: Path, command: str) -> None:
    mine = home / COMMANDS[command]
    assert bdpo_(*command.split(), mine.name)[0] == 0
    first = mine.read_bytes()
    mine.write_bytes(first[: first.index(b"\n") + 1])
    assert bdpo_(*command.split(), mine.name)[0] == 0 and mine.read_bytes() == first


def test_a_report_of_decisions_that_is_none_is_kept(bdpo_: Bdpo, home: Path) -> None:
    other = home / "mine.report.jsonl"
    other.write_text("precious")
    code, _, err = bdpo_("data", "clean", "pairs.jsonl", "--out", "mine.jsonl")
    assert code == 2 and "its report mine.report.jsonl was not written by this command" in err
    assert other.read_text() == "precious" and not (home / "mine.jsonl").exists()
