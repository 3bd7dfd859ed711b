"""Cells as processes, one a device at a time. Devices are names here, and most processes programs that note theirs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.files import Held
from bdpo.recipe.sections import Recipe
from bdpo.sweep import queue
from bdpo.sweep.plan import Cell
from tiny import Bdpo

NOTE = """
import os, sys, time
from pathlib import Path

here, name = Path(sys.argv[1]), sys.argv[2]
device = os.environ["CUDA_VISIBLE_DEVICES"]
lock = here / f"held-{device}"
lock.mkdir()  # fails where another process has the device
time.sleep(0.3)
lock.rmdir()
(here / f"{name}.done").write_text(device)
if name == "c2":
    print("bdpo: No such thing.", file=sys.stderr)
    sys.exit(2)
"""


def cells(out: Path, n: int) -> list[Cell]:
    return [Cell(f"c{k}", f"c{k}", {}, 1, Recipe(), f"c{k}/seed-1", out / f"c{k}" / "seed-1") for k in range(n)]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "noting.py").write_text(NOTE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_every_device_has_one_process_at_a_time_and_failures_are_told(programs: Path) -> None:
    told, done = list[str](), list[str]()
    found = cells(programs, 5)
    failed = queue.run_on(
        ["gpu-a", "gpu-b"], found, lambda cell: ["noting", str(programs), cell.label], told.append,
        lambda cell: done.append(cell.label),
    )  # fmt: skip
    assert sorted(done) == ["c0", "c1", "c3", "c4"]
    assert list(failed) == ["c2/seed-1"] and failed["c2/seed-1"].startswith("No such thing. (")
    used = [(programs / f"{cell.label}.done").read_text() for cell in found]
    assert set(used) == {"gpu-a", "gpu-b"} and used[:2] == ["gpu-a", "gpu-b"]
    assert [line.partition("]")[0] for line in told if line.startswith("[")] == [f"[{n}/5" for n in range(1, 6)]


def test_a_cell_that_fails_as_nobody_foresaw_leaves_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ran, told = list[str](), list[str]()

    def run(cell: Cell) -> None:
        if cell.label == "c0":
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB.")
        ran.append(cell.label)

    assert queue.run_here(cells(tmp_path, 3), run, told.append) == {"c0/seed-1": "RuntimeError: CUDA out of memory."}
    assert ran == ["c1", "c2"] and "c0/seed-1 failed: RuntimeError: CUDA out of memory." in told
    assert "Traceback" in capfd.readouterr().err


def test_a_stop_reaches_the_processes(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "waiting.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(open(sys.argv[1], 'w').write('stopped') and 143))\n"
        "open(sys.argv[1] + '.ready', 'w').close()\ntime.sleep(60)\n"
    )
    marks, told = [programs / "c0", programs / "c1"], list[object]()

    def look(seconds: float) -> None:
        if all(Path(f"{mark}.mark.ready").exists() for mark in marks):
            raise KeyboardInterrupt
        time.sleep(0.01)

    monkeypatch.setattr(queue, "time", type("Clock", (), {"sleep": staticmethod(look)}))
    with pytest.raises(KeyboardInterrupt):
        queue.run_on(
            ["a", "b"], cells(programs, 2), lambda cell: ["waiting", f"{programs / cell.label}.mark"], told.append,
            told.append,
        )  # fmt: skip
    assert not [line for line in told if not str(line).startswith("[")], "none is done, none has failed"
    assert [Path(f"{mark}.mark").read_text() for mark in marks] == ["stopped", "stopped"]


def test_in_one_process_a_failure_or_a_held_cell_stops_no_other(tmp_path: Path) -> None:
    ran = []

    def run(cell: Cell) -> None:
        ran.append(cell.label)
        if cell.label == "c0":
            raise BdpoError("No.")
        if cell.label == "c1":
            raise Held("It is in use.")

    assert queue.run_here(cells(tmp_path, 3), run, lambda line: None) == {"c0/seed-1": "No."}
    assert ran == ["c0", "c1", "c2"]


def test_devices_are_those_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab,")
    assert queue.devices() == ["2", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert queue.devices() == []


@pytest.mark.slow
def test_two_devices_train_two_cells_and_a_killed_sweep_goes_on(
    bdpo_: Bdpo, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: the sweep is killed when its first cell has a checkpoint, and the same command ends it."""
    words = ["sweep", "--config", "recipe.yaml", "--set", "train.max_steps=30", "--set", "train.save_steps=10",
             "--seeds", "1", "--grid", "loss.beta=0.1,0.2", "--pairs", "held.jsonl", "--out", "two"]  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "a,b")
    cells = home / "two" / "cells"
    sweep = subprocess.Popen(
        [sys.executable, "-m", "bdpo", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(cells.glob("*/seed-1/checkpoint-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    sweep.send_signal(signal.SIGTERM)
    said = sweep.communicate()[0].decode()
    assert sweep.returncode == 128 + signal.SIGTERM and "run the same command again" in said, said
    code, said, err = bdpo_(*words)  # its cells are processes again
    assert code == 0, said + err
    names = [f"B-DPO_loss.beta-{beta}/seed-1" for beta in ("0.1", "0.2")]
    assert sorted(path.parent.relative_to(cells).as_posix() for path in cells.glob("*/seed-1/README.md")) == names
    assert all(f"{name}: held-out accuracy " in said for name in names), "a line for each that is finished"
    assert (home / "two" / "compare.json").exists()


def test_a_cell_of_another_recipe_is_refused_before_anything_runs(bdpo_: Bdpo, home: Path) -> None:
    words = ("sweep", "--config", "recipe.yaml", "--pairs", "held.jsonl", "--out", "changed")
    assert bdpo_(*words)[0] == 0
    code, _, err = bdpo_(*words, "--set", "train.learning_rate=0.5")
    assert code == 2 and "begun with another recipe; it differs in train.learning_rate (0.01 there, 0.5 now)" in err
    code, _, err = bdpo_(*words, "--limit", "2")
    assert code == 2 and "it differs in prompts" in err
