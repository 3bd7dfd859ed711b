"""bdpo's commands in forked processes, which need no imports of their own, stopped at a moment or short of something.

The server must not have computed anything with gradients before it forks: their threads do not survive it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import bdpo.evaluate.evaluation
import bdpo.models.loading
import bdpo.models.merging
import bdpo.recipe.run
import bdpo.score.scoring
from bdpo.cli import main

TIMEOUT = 120  # seconds; the longest command takes about 2
_WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

torch.set_num_threads(1)
gc.freeze()  # Trainer collects garbage at each start, which takes longer than the steps here
bdpo.score.scoring.PART_SIZE = 4  # several parts of the few pairs, and several appended lines
bdpo.evaluate.evaluation.JUDGED_AT_A_TIME = 2


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
        lines = [line for line in self.said.splitlines() if line.startswith("bdpo: ")]
        return lines[-1].removeprefix("bdpo: ") if lines else ""


@dataclass
class Running:
    """A command under way in a forked process."""

    pid: int
    pipe: int
    said: Path
    begun: float = field(default_factory=time.monotonic)
    events: list[str] = field(default_factory=list)
    _half: str = ""

    def listen(self, seconds: float) -> bool:
        """Take in what it does for some time, or until it does something; false when it has ended."""
        if not select.select([self.pipe], [], [], max(seconds, 0))[0]:
            return True
        data = os.read(self.pipe, 1 << 16)
        *lines, self._half = (self._half + data.decode()).split("\n")
        self.events += lines
        return bool(data)

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
        if self.until(lambda events: False):  # never true: it ended, or hangs
            raise AssertionError
        if time.monotonic() - self.begun > TIMEOUT:
            self.send(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pipe)
        said = self.said.read_text(errors="replace")
        return Ended(os.waitstatus_to_exitcode(status), said, self.events, time.monotonic() - self.begun)


def start(
    home: Path, *arguments: str, cache: str = "cache", largest: int | None = None, nobody: bool = False
) -> Running:
    """Fork a process that runs `bdpo arguments` in the folder `home`.

    Args:
        cache: bdpo's cache, in `home`.
        largest: bytes beyond which no file can grow, as on a full disk.
        nobody: run as a user who may write only where everybody may.
    """
    reading, writing = os.pipe()
    said = home / "said.txt"
    said = next(path for n in range(10_000) if not (path := said.with_name(f"said-{n}.txt")).exists())
    said.touch(mode=0o666)
    pid = os.fork()
    if pid:
        os.close(writing)
        return Running(pid, reading, said)
    os.close(reading)
    code = 70
    try:
        code = _child(home, list(arguments), cache, writing, said, largest, nobody)
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(home: Path, *arguments: str, **how: Any) -> Ended:
    """Run `bdpo arguments` in a forked process to its end; see `start`."""
    return start(home, *arguments, **how).end()


def _child(
    home: Path, arguments: list[str], cache: str, pipe: int, said: Path, largest: int | None, nobody: bool
) -> int:
    os.chdir(home)
    os.environ |= {"BDPO_CACHE": str(home / cache), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    sys.argv = ["bdpo", *arguments]
    sys.stdout, sys.stderr = Path(os.devnull).open("w"), said.open("w", buffering=1)  # noqa: SIM115  # to the end
    os.dup2(sys.stderr.fileno(), 2)
    place = str(home)

    def hook(event: str, details: tuple[Any, ...]) -> None:
        written = event in _WRITES or (event == "open" and isinstance(details[1], str) and details[1][0] in "wax+")
        if written and isinstance(details[0], (str, os.PathLike)):
            path = os.path.join(place, os.fspath(details[1 if event == "os.rename" else 0]))
            if path.startswith(place) and not path.endswith(said.name):
                os.write(pipe, f"{event} {path}\n".encode())

    sys.addaudithook(hook)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if nobody and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0
