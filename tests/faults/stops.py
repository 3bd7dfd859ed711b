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
from home import EVALUATE, SCORE, TRAIN, Home

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_AIMS: dict[str, tuple[tuple[str, ...], Callable[[str], bool]]] = {
    "score": (SCORE, lambda event: True),
    "evaluate": (EVALUATE, lambda event: True),
    "train, at any time": (TRAIN, lambda event: True),
    "train, writing a checkpoint": (TRAIN, lambda event: "/checkpoint-" in event),
    "train, at the final save": (TRAIN, lambda event: "/.sav" in event or event.startswith("os.rename")),
    "train without checkpoints, at the final save": (
        ("train", "--config", "unsaved.yaml"), lambda event: "/.sav" in event or "/.metrics" in event,
    ),
}  # fmt: skip
_SHARES = {"score": 3, "evaluate": 3, "train, at any time": 4, "train, writing a checkpoint": 6,
           "train, at the final save": 3, "train without checkpoints, at the final save": 1}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One fault, and what was lost by it; nothing where it says nothing."""

    fault: str
    lost: str


def stops(home: Home, seed: int, rounds: int = 1) -> Iterator[Trial]:
    """For each signal and aim, as many moments as `_SHARES` says (20 a signal in a round)."""
    random = Random(seed)
    for aim, (command, aimed) in _AIMS.items():
        events = home.run(*command, "--out", str(home.new("count")), cache=_cache(home, command)).events
        moments = sum(map(aimed, events))
        for number in SIGNALS:
            for _ in range(rounds * _SHARES[aim]):
                # after which of the events, and how long after it: writing itself takes a millisecond here
                moment, later = random.randrange(moments), random.choice((0, random.uniform(0, 0.003)))
                lost = stop(home, command, aimed, moment, later, number)
                yield Trial(f"{number.name}: {aim}", lost)


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
        return f"traceback: {ended.said.strip().splitlines()[-1]}"
    if number == signal.SIGKILL:
        return "" if ended.code in (-9, 0) else f"exit code {ended.code} where it was killed"
    if ended.code == 128 + number:
        return "" if ended.sentence.startswith("Stopped. ") else "nothing was said on how to go on"
    return "" if ended.code == 0 else f"exit code {ended.code}: {ended.sentence}"


def _gone_on(home: Home, command: tuple[str, ...], out: Path, cache: str, ended: Ended) -> str:
    """Do what was said (after SIGKILL: run the command again, and do what that says); what was lost, or nothing."""
    steps = _completed(ended)
    if ended.code == 0 or ended.sentence.endswith("the run is finished."):
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
            return f"going on as was said: exit code {again.code}: {again.said.strip().splitlines()[-1]}"
        if "finished run" in again.sentence:
            return "" if home.whole(command[0], out) else "the result is another one"
        if bool(resume) or "--resume" not in again.sentence:
            return f"cannot be gone on with: {again.sentence}"
        resume = ("--resume",)
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
