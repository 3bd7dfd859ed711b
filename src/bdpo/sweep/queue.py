"""The cells of a sweep: one after the other in this process, or one process a device."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bdpo.errors import BdpoError, first_line
from bdpo.files import Held
from bdpo.sweep.plan import Cell

Told = Callable[[str], None]
_LOOK = 0.2  # seconds between looks at the processes


def devices() -> list[str]:
    """The accelerators that a process of the sweep can be given, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def run_here(cells: Sequence[Cell], run: Callable[[Cell], None], tell: Told) -> dict[str, str]:
    """Run cells in turn; those that failed, with why: the others run all the same.

    What nobody foresaw (the memory of a device, say) is a failure of its cell too, and its traceback is printed.
    """
    failed = {}
    for number, cell in enumerate(cells, start=1):
        tell(f"[{number}/{len(cells)}] {cell.name}")
        try:
            run(cell)
        except Held as held:
            tell(f"{cell.name} is left to the other process: {held}")
        except BdpoError as error:
            failed[cell.name] = str(error)
            tell(f"{cell.name} failed: {error}")
        except Exception as error:
            traceback.print_exc()
            failed[cell.name] = f"{type(error).__name__}: {first_line(error)}"
            tell(f"{cell.name} failed: {failed[cell.name]}")
    return failed


def run_on(
    devices: Sequence[str],
    cells: Sequence[Cell],
    command: Callable[[Cell], Sequence[str]],
    tell: Told,
    done: Callable[[Cell], None],
) -> dict[str, str]:
    """Run each cell as a process of its own that sees one device, as many at a time as there are devices.

    What a process prints goes into `seed-K.log` beside the folder of its cell. A stop of this process stops them all,
    each with a checkpoint.

    Args:
        command: the words of the command that runs a cell.
        done: called with each cell whose process ended well.

    Returns:
        The cells that failed, with why.
    """
    waiting, running = deque(cells), dict[str, tuple[Cell, subprocess.Popen[bytes]]]()
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            for device in devices:
                if device not in running and waiting:
                    cell = waiting.popleft()
                    tell(f"[{len(cells) - len(waiting)}/{len(cells)}] {cell.name} on device {device}")
                    running[device] = cell, _started(command(cell), device, _log(cell))
            time.sleep(_LOOK)
            for device, (cell, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[device]
                if process.returncode:
                    failed[cell.name] = _last_words(_log(cell))
                    tell(f"{cell.name} failed: {failed[cell.name]}")
                else:
                    done(cell)
    except BaseException:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        raise
    return failed


def _started(words: Sequence[str], device: str, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    environment: Mapping[str, str] = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    with log.open("ab") as file:  # in a session of its own: Ctrl-C reaches it as the one signal that we send
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip


def _log(cell: Cell) -> Path:
    return cell.folder.with_name(f"{cell.folder.name}.log")


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (lines[-1].removeprefix("bdpo: ") if lines else "it said nothing") + f" ({log} has all it said)"
