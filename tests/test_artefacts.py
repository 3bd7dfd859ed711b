"""Artefacts: held by one living process, written whole, with nothing of a dead process left beside them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bdpo import files
from bdpo.errors import BdpoError
from bdpo.files import folder_held, folder_made_whole, not_writable, read_json, refuse_held, write_whole

HOLDER = """
import sys, time
from pathlib import Path
from bdpo.files import folder_held
with folder_held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_held_folder_is_refused_naming_the_process_and_taken_over_when_it_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for refuse in (refuse_held, lambda folder: folder_held(folder).__enter__()):
            with pytest.raises(BdpoError, match=rf"run is in use by process {holder.pid} on .*still running"):
                refuse(folder)
        holder.kill()
    assert (folder / ".lock").exists()
    refuse_held(folder)
    with folder_held(folder):
        assert (folder / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_held_twice_in_one_process_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with folder_held(tmp_path / "a" / "b"):
        with pytest.raises(BdpoError, match=f"process {os.getpid()}"), folder_held(tmp_path / "a" / "b"):
            pass
        assert (tmp_path / "a" / "b" / ".lock").exists(), "it is still held"
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]
    with folder_held(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists(), "nothing was written in it"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(BdpoError, match=r"Cannot write in .*file/run \(Not a directory\): "),
        folder_held(tmp_path / "file/run"),
    ):
        pass


def test_what_dead_processes_left_is_removed_and_what_others_do_is_not(tmp_path: Path, dead: int) -> None:
    for name in (f".made-{dead}", f".made-{os.getpid()}0", f".made-2-{dead}", ".made-x"):
        (tmp_path / name / "half").mkdir(parents=True)
    for name in (f".file.{dead}", f".file.{os.getppid()}", f".other.{dead}"):
        (tmp_path / name).touch()
    with folder_made_whole(tmp_path / "made") as work:
        assert not (tmp_path / "made").exists()
        (work / "whole").touch()
    write_whole(tmp_path / "file", "text")
    left = {f".made-2-{dead}", ".made-x", f".file.{os.getppid()}", f".other.{dead}"}
    assert {path.name for path in tmp_path.iterdir()} == left | {"made", "file"}
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["whole"]


def test_a_folder_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    with (
        folder_made_whole(tmp_path / "made"),
        pytest.raises(BdpoError, match=f"made is in use by process {os.getpid()}"),
        folder_made_whole(tmp_path / "made", wait=False),
    ):
        pass


def test_a_file_that_cannot_be_written_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", "before")

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BdpoError, match=r"Cannot write .*file \(No space left on device\)"):
        write_whole(tmp_path / "file", "afterwards")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's full disk")
def test_why_something_could_not_be_written_is_read_from_every_writers_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {}
    for name, write in {
        "python": lambda: Path("/dev/full").write_text("x"),
        "safetensors": lambda: save_file({"a": torch.zeros(2)}, tmp_path / "file" / "a"),
        "torch": lambda: torch.save(torch.zeros(1000), "/dev/full"),
    }.items():
        with pytest.raises(Exception) as error:  # each has a type of its own
            write()
        found[name] = not_writable(error.value)
    assert found["python"] == "No space left on device" and found["safetensors"] == "Not a directory"
    assert found["torch"] is not None
    assert not_writable(Exception("No space left on device (os error 28)")) == "No space left on device"  # tokenizers
    assert not_writable(RuntimeError("basic_ios::clear: iostream error")) == "no room is left"  # torch, at a file's end
    assert not_writable(RuntimeError("CUDA out of memory")) is None
    assert not_writable(FileNotFoundError(2, "No such file or directory")) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"is not JSON \(Expecting value.*\): mend it\.$"),
        ('{"n": 1', r"is not JSON"),
        ("[" * 100_000, r"is not JSON"),
        ("[1]", r"holds a list where an object is expected: mend it\.$"),
        ("{}", r"holds no 'n', or not as it was written: mend it\.$"),
        ('{"n": "1"}', r"holds no 'n'"),
    ],
)
def test_json_that_is_torn_or_another_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(BdpoError, match=says):
        read_json(tmp_path / "file.json", "mend it", n=int)
    (tmp_path / "file.json").write_text('{"n": 1}')
    assert read_json(tmp_path / "file.json", "mend it", n=int) == {"n": 1}


def test_a_file_system_without_locks_is_worked_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*args: object, **kwargs: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.FileLock, "acquire", no_locks)
    with folder_held(tmp_path / "run"):
        (tmp_path / "run" / "kept").touch()
    assert (tmp_path / "run" / "kept").exists()
