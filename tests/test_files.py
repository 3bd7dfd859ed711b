"""What is written can be read by whom the umask says, and what dead processes left of it goes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.files import refuse_taken, write_whole
from plain_dpo import Make
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """The mode of a new file under a umask that is set while the test runs."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="no modes")
@pytest.mark.parametrize("lora", [True, False])
def test_a_run_and_its_checkpoints_follow_the_umask(make: Make, tmp_path: Path, mode: int, lora: bool) -> None:
    trainer = make(lora=lora, save_strategy="steps", save_steps=1, max_steps=1)
    trainer.train()
    trainer.save_model()
    found = modes(tmp_path / "run")
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    assert {weights, f"checkpoint-1/{weights}", "checkpoint-1/optimizer.pt"} <= set(found)
    assert set(found.values()) == {mode}


@pytest.mark.skipif(os.name == "nt", reason="no modes")
def test_merged_weights_follow_the_umask(tmp_path: Path, mode: int) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = models.load(tmp_path / "base").model
    get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2)).save_pretrained(tmp_path / "adapter")
    found = modes(models.merge(tmp_path / "adapter", tmp_path / "merged"))
    assert "model.safetensors" in found and set(found.values()) == {mode}


def test_a_folder_is_looked_through_once_and_a_dead_processes_leftovers_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, living, other = tmp_path / ".a.json.999999999", tmp_path / f".a.json.{os.getppid()}", tmp_path / ".a.json.txt"
    for left in (dead, living, other):
        left.write_text("half")
    looked, list_folder = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: looked.append(folder) or list_folder(folder))
    for name in ("b.json", "a.json", "c.json"):
        write_whole(tmp_path / name, "whole")
    assert {*list_folder(tmp_path)} == {"a.json", "b.json", "c.json", living.name, other.name}
    assert len(looked) == 1


def test_only_a_file_of_ones_own_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    refuse_taken(out, "--out", "<title>bdpo")  # nothing there
    out.touch()
    refuse_taken(out, "--out", "<title>bdpo")
    out.write_text("<html>\n<title>bdpo report</title>")
    refuse_taken(out, "--out", "<title>bdpo")
    for mark, content in (("<title>bdpo", "<html>mine"), ("<title>bdpo", 1000 * " " + "<title>bdpo"), (None, "{}")):
        out.write_text(content)
        with pytest.raises(BdpoError, match=r"^--out .*page\.html was not written by this command: choose another"):
            refuse_taken(out, "--out", mark)
    refuse_taken(tmp_path, "--out", "x")  # a folder: writing says so
