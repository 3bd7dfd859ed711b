"""Stops: SIGKILL, SIGTERM and SIGINT at seeded moments; afterwards the user does what the command says."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import forked
from forked import Ended
from home import CLEAN, COMPARE, EVALUATE, EXPORT, REPORT, SCORE, SWEEP, TRAIN, UNSAVED, Home

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# of the 28 moments a signal: how many, of which command, and after which of the things that it does to files
AIMS: dict[str, tuple[int, tuple[str, ...], Callable[[str], bool]]] = {
    "score": (3, SCORE, lambda event: True),
    "evaluate": (3, EVALUATE, lambda event: True),
    "data clean": (2, CLEAN, lambda event: True),
    "train, at any time": (4, TRAIN, lambda event: True),
    "train, writing a checkpoint": (6, TRAIN, lambda event: "/checkpoint-" in event),
    "train, at the final save": (3, TRAIN, lambda event: "/.sav" in event or event.startswith("os.rename")),
    "train without checkpoints, at the final save": (1, UNSAVED, lambda event: "/.sav" in event),
    "sweep": (1, SWEEP, lambda event: True),
    "compare": (2, COMPARE, lambda event: True),
    "report": (2, REPORT, lambda event: True),
    "export": (1, EXPORT, lambda event: True),
}


@dataclass(frozen=True)
class Trial:
    """One fault, and what was lost by it; nothing where it says nothing."""

    fault: str
    lost: str


def stops(home: Home, aim: str, random: Random, quick: bool = False) -> Iterator[Trial]:
    """For each signal as many moments as `AIMS` says, or one moment for one of them."""
    share, command, aimed = AIMS[aim]
    moments = sum(map(aimed, home.events[command]))
    signals = [number for number in SIGNALS for _ in range(share)]
    for number in [random.choice(signals)] if quick else signals:
        # after which of the events, and how long after it: writing itself takes a millisecond here
        moment, later = random.randrange(moments), random.choice((0, random.uniform(0, 0.003)))
        yield Trial(f"{number.name}: {aim}", stop(home, command, aimed, moment, later, number))


def _cache(home: Home, command: tuple[str, ...]) -> str:
    """A cache with the scores for `train`, an empty one for the others, which are to do their work."""
    return "cache-train" if command[0] == "train" else home.new("cache").name


def stop(home: Home, command: tuple[str, ...], aimed: Callable[[str], bool], moment: int, later: float,
         number: signal.Signals) -> str:  # fmt: skip
    """Run a command, stop it, go on as it says until it is done; what was lost, or nothing."""
    out, cache = home.new(command[0]), _cache(home, command)
    running = forked.start(home.folder, *command, "--out", str(out), cache=cache)
    running.until(lambda events: sum(map(aimed, events)) > moment)
    running.listen(later)
    running.send(number)
    ended = running.end()
    lost = _badly_ended(ended, number) or _gone_on(home, command, out, cache, ended)
    if not lost:
        shutil.rmtree(out, ignore_errors=True)
    return lost and f"{lost} [event {moment}, {later * 1e3:.2f} ms later, {out.name}]"


def _badly_ended(ended: Ended, number: signal.Signals) -> str:
    if "Traceback" in ended.said:
        return f"traceback: {ended.said[-200:]}"
    if number == signal.SIGKILL:
        return "" if ended.code in (-9, 0) else f"exit code {ended.code} where it was killed"
    if ended.code == 128 + number:
        return "" if ended.sentence.startswith("Stopped") else "nothing was said on how to go on"
    return "" if ended.code == 0 else f"exit code {ended.code}: {ended.sentence}"


def _gone_on(home: Home, command: tuple[str, ...], out: Path, cache: str, ended: Ended) -> str:
    """Do what was said (after SIGKILL: run the command again, and do what that says); what was lost, or nothing."""
    steps = _completed(ended) if command[0] == "train" else 0
    if ended.code == 0 or ended.sentence.endswith(" is finished."):
        return "" if home.whole(command[0], out) or _is_finished(home, command, out) else "the result is another one"
    resume = ("--resume",) if "--resume" in ended.sentence else ()
    for _ in range(3):
        again = home.run(*command, "--out", str(out), *resume, cache=cache)
        if again.code == 0:
            if steps and f"checkpoint-{steps}" in again.said:
                return f"checkpoint-{steps} was complete and is passed over"
            if steps and not resume:
                return f"checkpoint-{steps} was complete and the run begins again"
            return "" if home.whole(command[0], out) else "the result is another one"
        if ended.code != -9 or "Traceback" in again.said:  # what was said was not true
            return f"going on as was said: exit code {again.code}: {again.sentence or again.said[-200:]}"
        if "--resume" in again.sentence and not resume:
            resume = ("--resume",)
        elif "finished run" in again.sentence or "is not empty" in again.sentence:  # a folder that appears whole
            return "" if home.whole(command[0], out) else "the result is another one"
        else:
            return f"cannot be gone on with: {again.sentence}"
    return "cannot be gone on with"


def _is_finished(home: Home, command: tuple[str, ...], out: Path) -> bool:
    """Whether the result comes with whatever command looks at the folder next."""
    home.run(*command, "--out", str(out), cache="cache-train")
    return home.whole(command[0], out)


def _completed(ended: Ended) -> int:
    """The step of the last checkpoint that was completed, before the command ended; 0 where there is none."""
    renamed = [event for event in ended.events if event.startswith("os.rename") and event.endswith("/manifest.json")]
    steps = [int(path.split("/checkpoint-")[1].split("/")[0]) for path in renamed if "/checkpoint-" in path]
    return max(steps[:-1], default=0) if ended.code == -9 else max(steps, default=0)  # the last may be on its way
