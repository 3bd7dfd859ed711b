"""bdpo's commands in forked processes, which need no imports of their own, stopped at a moment or short of something.

The server must not have computed anything with gradients before it forks: their threads do not survive it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import typer.main
from tqdm import tqdm

import bdpo.evaluate.evaluation
import bdpo.models.exporting
import bdpo.models.loading
import bdpo.models.merging
import bdpo.recipe.run
import bdpo.report.figures_training
import bdpo.report.page
import bdpo.score.scoring
import bdpo.sweep.run
from bdpo.cli import app, main
from bdpo.files import write_whole
from undrawn import values

TIMEOUT = 120  # seconds; the longest command takes about 2
_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

torch.set_num_threads(1)
tqdm.set_lock(threading.RLock())  # its own is shared by all that are forked: one that is killed would hold it for ever
tqdm.monitor_interval = 0
gc.freeze()  # Trainer collects garbage at each start, which takes longer than the steps here
bdpo.score.scoring.PART_SIZE = 4  # several parts of the few pairs, and several appended lines
bdpo.evaluate.evaluation.JUDGED_AT_A_TIME = 2
typer.main.get_command = lru_cache(typer.main.get_command)
typer.main.get_command(app)  # before anything is forked
bdpo.report.figures_training.at_a_glance = values  # to draw takes longer than the run
bdpo.sweep.run.write_report = lambda folders, path, **how: write_whole(path, "The trials of report look at pages.\n")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # -9 where it was killed
    said: str  # on standard error
    events: list[str]  # "EVENT PATH" of what it did to files
    seconds: float

    @property
    def sentence(self) -> str:
        """What the command says last to the user, without "bdpo: "."""
        found = re.findall("bdpo: (.*)", self.said)  # it may follow a progress bar
        return found[-1] if found else ""


@dataclass
class Running:
    """A command under way in a forked process."""

    pid: int
    doing: int  # pipe of "EVENT PATH" lines
    saying: int  # pipe of its standard error
    begun: float = field(default_factory=time.monotonic)
    _read: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read = {self.doing: b"", self.saying: b""}
        self._open = {self.doing, self.saying}

    @property
    def events(self) -> list[str]:
        """What it has done to files so far."""
        return self._read[self.doing].decode().split("\n")[:-1]

    def listen(self, seconds: float) -> bool:
        """Take in what it does and says for some time, or until it does something; false when it has ended."""
        for pipe in select.select(list(self._open), [], [], max(seconds, 0))[0] if self._open else ():
            data = os.read(pipe, 1 << 16)
            self._read[pipe] += data
            if not data:
                self._open.remove(pipe)
        return bool(self._open)

    def until(self, met: Callable[[list[str]], bool], seconds: float = TIMEOUT) -> bool:
        """Wait until what it has done meets a condition; false where it ended, or time ran out, before."""
        end = time.monotonic() + seconds
        while not met(self.events):
            if time.monotonic() > end or not self.listen(end - time.monotonic()):
                return False
        return True

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for its end; one that hangs is killed and has the code -9."""
        self.until(lambda events: False)
        if self._open:
            self.send(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        for pipe in (self.doing, self.saying):
            os.close(pipe)
        said = self._read[self.saying].decode(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), said, self.events, time.monotonic() - self.begun)


def start(
    home: Path, *arguments: str, cache: str = "cache", largest: int | None = None, closed: Path | None = None
) -> Running:
    """Fork a process that runs `bdpo arguments` in the folder `home`.

    Args:
        cache: bdpo's cache, in `home`.
        largest: bytes beyond which no file can grow, as on a full disk.
        closed: a folder in which nothing can be written.
    """
    (doing, does), (saying, says) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(does)
        os.close(says)
        return Running(pid, doing, saying)
    code = 70
    try:
        os.dup2(says, 2)
        os.close(says)
        sys.stdout, sys.stderr = Path(os.devnull).open("w"), os.fdopen(2, "w", buffering=1)  # noqa: SIM115  # to the end
        os.chdir(home)
        os.environ |= {"BDPO_CACHE": str(home / cache), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        sys.argv = ["bdpo", *arguments]
        for number in (signal.SIGINT, signal.SIGTERM):  # not ignored, as in the background: `stoppable` takes them
            signal.signal(number, lambda *_: None)  # what comes after the command's end is not the command's
        _report(str(home), does)
        _restrict(largest, closed)
        code = _code_of_main()
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(home: Path, *arguments: str, **how: Any) -> Ended:
    """Run `bdpo arguments` in a forked process to its end; see `start`."""
    return start(home, *arguments, **how).end()


def _report(place: str, pipe: int) -> None:
    """Write to a pipe what this process does to files in `place` from now on."""

    def hook(event: str, details: tuple[Any, ...]) -> None:
        written = event in _WRITES or (event == "open" and isinstance(details[1], str) and details[1][0] in "wax+")
        if written and isinstance(details[0], str | os.PathLike):
            path = os.path.join(place, os.fspath(details[1 if event == "os.rename" else 0]))
            if path.startswith(place):
                os.write(pipe, f"{event} {path}\n".encode())

    sys.addaudithook(hook)


def _restrict(largest: int | None, closed: Path | None) -> None:
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if closed is not None and not close(closed):
        raise OSError(f"{closed} cannot be made read-only")


def close(folder: Path) -> bool:
    """Make a folder read-only for this process, whoever runs it: mounted so in a namespace of its own (Linux)."""
    libc, path = ctypes.CDLL(None, use_errno=True), str(folder).encode()
    new_user, new_mounts, private, bind, read_only = 0x10000000, 0x20000, 0x44000, 0x1000, 0x1021
    kind = new_mounts if os.geteuid() == 0 else new_mounts | new_user
    return not (
        libc.unshare(kind)
        or libc.mount(b"none", b"/", None, private, None)
        or libc.mount(path, path, None, bind, None)
        or libc.mount(b"none", path, None, bind | read_only, None)
    )


def can_close(folder: Path) -> bool:
    """Whether `close` is possible here."""
    pid = os.fork()
    if not pid:
        os._exit(0 if close(folder) else 1)
    return os.waitpid(pid, 0)[1] == 0


def _code_of_main() -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
