"""Damages: files that are missing, flipped, cut or copied over, processes beside each other, full and closed disks.

Each function of `DAMAGES` does damage of one kind and looks at what bdpo makes of it.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import forked
from forked import Ended, Running
from home import COMPARE, EVALUATE, EXPORT, MADE, MERGE, REPORT, SCORE, SWEEP, TRAIN, TWO, Home
from stops import Trial

RESUME = ("--resume",)


# --- what is done to files ---------------------------------------------------------------------------------------


def flip(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)


def cut(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes()[: random.randrange(1, path.stat().st_size)])


def empty(path: Path, random: Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, random: Random) -> None:
    path.unlink()


Harm = Callable[[Path, Random], None]


# --- what is looked at --------------------------------------------------------------------------------------------


def refused(ended: Ended, *said: str) -> str:
    """Whether a command ended with one sentence that says so much."""
    sentences = ended.said.count("bdpo: ")
    if ended.code != 2 or "Traceback" in ended.said or sentences != 1:
        return f"exit code {ended.code}, {sentences} sentences: {ended.said[-300:]}"
    missing = [words for words in said if words not in ended.sentence]
    return f"'{missing[0]}' is not in: {ended.sentence}" if missing else ""


def gone_on(home: Home, command: str, out: Path, ended: Ended, *said: str) -> str:
    """Whether a command ended well, has said so much, and left the result of one that nothing stopped."""
    if ended.code:
        return f"exit code {ended.code}: {ended.said[-300:]}"
    missing = [words for words in said if words not in ended.said]
    if missing:
        return f"'{missing[0]}' was not said"
    return "" if home.whole(command, out) else "the result is another one"


# --- checkpoints, and what lies beside them -------------------------------------------------------------------------


def stopped_run(home: Home, recipe: str, completed: int) -> str:
    """A run that was killed when its checkpoint of some step was complete."""
    out = home.new("stopped")
    running = forked.start(home.folder, "train", "--config", recipe, "--out", str(out), cache="cache-train")
    complete = f"/checkpoint-{completed}/.manifest.json"  # removed after it was renamed
    running.until(lambda events: any(event.startswith("os.remove") and complete in event for event in events))
    running.send(signal.SIGKILL)
    running.end()
    return out.name


def resumed(home: Home, out: Path) -> Ended:
    return home.run(*TWO, "--out", str(out), *RESUME, cache="cache-train")


def checkpoints(home: Home, random: Random) -> Iterator[Trial]:
    stopped = stopped_run(home, "two.yaml", 6)  # it holds the checkpoints 4 and 6
    files = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
    harms: dict[str, Harm] = {"is missing": remove, "has one bit flipped": flip, "is cut": cut}
    for what, harm in harms.items():
        for file in (*files, "manifest.json"):
            out = home.copy(stopped)
            harm(out / "checkpoint-6" / file, random)
            named = (
                ("checkpoint-6 is passed over",) if (file, harm) != ("manifest.json", flip) else ()
            )  # a space may flip
            yield Trial(f"a file of a checkpoint {what}", gone_on(home, "train", out, resumed(home, out), *named))
    out = home.copy(stopped)
    (out / "checkpoint-99").mkdir()
    yield Trial(
        "a checkpoint is half-written", gone_on(home, "train", out, resumed(home, out), "checkpoint-99 is passed")
    )
    out = home.copy(stopped)
    shutil.rmtree(out / "checkpoint-6")
    shutil.copytree(out / "checkpoint-4", out / "checkpoint-6")
    said = "it is a copy of checkpoint-4"
    yield Trial("a checkpoint is copied over another", gone_on(home, "train", out, resumed(home, out), said))
    out = home.copy(stopped)
    for file in out.glob("checkpoint-*/optimizer.pt"):
        flip(file, random)
    lost = refused(resumed(home, out), "checkpoint-6: optimizer.pt is damaged", "leave --resume out")
    again = home.run(*TWO, "--out", str(out), cache="cache-train")
    yield Trial("all checkpoints are damaged", lost or gone_on(home, "train", out, again))


def records(home: Home, random: Random) -> Iterator[Trial]:
    stopped = stopped_run(home, "two.yaml", 4)
    for file in ("recipe.yaml", "scores.json", "step.json"):
        for harm in (cut, empty):
            out = home.copy(stopped)
            harm(out / file, random)
            lost = refused(resumed(home, out), str(out.name))
            shutil.copy(home.folder / stopped / file, out)
            yield Trial("a record of a run is torn or empty", lost or gone_on(home, "train", out, resumed(home, out)))


def model_alone(home: Home, random: Random) -> Iterator[Trial]:
    out = home.folder / stopped_run(home, "alone.yaml", 2)
    command = ("train", "--config", "alone.yaml", "--out", str(out))
    lost = refused(home.run(*command, *RESUME, cache="cache-train"), "save_only_model", "choose another --out")
    lost = lost or refused(home.run(*command, cache="cache-train"), "is not empty: choose another --out")
    yield Trial("checkpoints hold the model alone", lost)


# --- scores and evaluations ---------------------------------------------------------------------------------------


def scores(home: Home, random: Random) -> Iterator[Trial]:
    def copied_over(out: Path) -> None:
        for name in ("part-00001.parquet", ".part-00001.sha256"):
            shutil.copy(out / "data" / name, out / "data" / name.replace("1", "0", 1))

    def first(out: Path, pattern: str) -> Path:
        return sorted(out.glob(pattern))[0]

    harms: dict[str, Callable[[Path], None]] = {
        "the memory-mapped copy is cut": lambda out: cut(first(out, ".arrow/*.arrow"), random),
        "the memory-mapped copy has one bit flipped": lambda out: flip(first(out, ".arrow/*.arrow"), random),
        "the memory-mapped copy's checksum is gone": lambda out: remove(first(out, ".arrow/*.sha256"), random),
        "a part is missing": lambda out: remove(out / "data/part-00002.parquet", random),
        "a part is cut": lambda out: cut(out / "data/part-00002.parquet", random),
        "a part has one bit flipped": lambda out: flip(out / "data/part-00003.parquet", random),
        "a part and its checksum are copied over another": copied_over,
        "a part's checksum is empty": lambda out: empty(out / "data/.part-00001.sha256", random),
        "the manifest is cut": lambda out: cut(out / "manifest.json", random),
        "the manifest is empty": lambda out: empty(out / "manifest.json", random),
        "the manifest has one bit flipped": lambda out: flip(out / "manifest.json", random),
    }
    for what, harm in harms.items():
        out, run = home.copy("whole-score"), home.new("train")
        harm(out)
        ended = home.run(*TRAIN, "--set", f"score.dir={out}", "--out", str(run))
        lost = gone_on(home, "train", run, ended) or ("" if home.whole("score", out) else "the scores are not healed")
        yield Trial(f"scores: {what}", lost)


def evaluations(home: Home, random: Random) -> Iterator[Trial]:
    lines = "model/starter-safe.jsonl"
    for what, file, harm in (
        ("the last line is torn", lines, lambda path, random: path.write_bytes(path.read_bytes()[:-20])),
        ("a line has one bit flipped", lines, flip), ("the outcomes are gone", lines, remove),
        ("the results are cut", "results.json", cut),
    ):  # fmt: skip
        out = home.copy("whole-evaluate")
        harm(out / file, random)
        ended = home.run(*EVALUATE, "--out", str(out), cache=home.new("cache").name)
        yield Trial(f"evaluation: {what}", gone_on(home, "evaluate", out, ended))
    for harm in (cut, empty):
        out = home.copy("whole-evaluate")
        harm(out / "model/run.json", random)
        lost = refused(home.run(*EVALUATE, "--out", str(out)), "run.json cannot be read")
        yield Trial("evaluation: run.json is torn or empty", lost)


# --- processes beside each other ------------------------------------------------------------------------------------


def holding(home: Home, *command: str, cache: str) -> Running:
    """A command under way that holds a lock, halted."""
    running = forked.start(home.folder, *command, cache=cache)
    running.until(lambda events: any(".lock" in event for event in events[:-1]))
    running.send(signal.SIGSTOP)
    return running


def neighbours(home: Home, random: Random) -> Iterator[Trial]:
    stopped = stopped_run(home, "two.yaml", 4)
    cases = (("train beside train", "train", TWO, home.new("train")),
             ("train --resume beside train --resume", "train", (*TWO, *RESUME), home.copy(stopped)),
             ("evaluate beside evaluate", "evaluate", EVALUATE, home.new("evaluate")),
             ("merge beside merge", "merge", MERGE, home.new("merge")))  # fmt: skip
    for what, kind, command, out in cases:
        cache = "cache-train" if kind == "train" else home.new("cache").name
        first = holding(home, *command, "--out", str(out), cache=cache)
        second = home.run(*command, "--out", str(out), cache=cache)
        first.send(signal.SIGCONT)
        yield Trial(what, refused(second, f"process {first.pid}") or gone_on(home, kind, out, first.end()))
    out = home.copy("whole-train")
    first = holding(home, *TRAIN, "--out", str(out), *RESUME, cache="cache-train")
    for command in (("merge", str(out)), ("evaluate", str(out), *EVALUATE[2:])):
        second = home.run(*command, "--out", str(home.new("second")))
        yield Trial(f"{command[0]} of a run that still lives", refused(second, f"process {first.pid}"))
    first.send(signal.SIGKILL)
    first.end()
    again = home.run(*TRAIN, "--out", str(out), *RESUME, cache="cache-train")
    yield Trial("the holder of a lock is dead", gone_on(home, "train", out, again))
    out = home.new("train")
    both = [forked.start(home.folder, *TWO, "--out", str(out), cache="cache-train") for _ in range(2)]
    ended = sorted((running.end() for running in both), key=lambda ended: ended.code)
    lost = gone_on(home, "train", out, ended[0]) or refused(ended[1], "in use by process")
    yield Trial("two at the same moment", lost)


# --- disks -----------------------------------------------------------------------------------------------------------


def full_disk(home: Home, random: Random) -> Iterator[Trial]:
    """No file can grow beyond what one of the files of a whole run has, and then it can."""
    tries = {TRAIN: 8, SCORE: 4, EVALUATE: 3, MERGE: 3, EXPORT: 2, COMPARE: 2, REPORT: 1, SWEEP: 2}
    for command, tried in tries.items():
        whole = home.folder / f"whole-{command[0]}{MADE[command[0]][0]}"
        sizes = sorted({path.stat().st_size for path in (whole, *whole.rglob("*")) if path.is_file()} - {0})
        for size in random.sample(sizes, min(tried, len(sizes))):
            out = home.new(command[0])
            cache = "cache-train" if command == TRAIN else home.new("cache").name
            ended = home.run(*command, "--out", str(out), cache=cache, largest=size - 1)
            lost = refused(ended) if ended.code else ""
            resume = RESUME if "--resume" in ended.sentence else ()
            again = home.run(*command, "--out", str(out), *resume, cache=cache) if ended.code else ended
            left = [path.name for path in home.folder.glob(f".{out.name}*")]
            lost = lost or gone_on(home, command[0], out, again) or (f"{left} is left behind" if left else "")
            yield Trial(f"the disk is full: {command[0]}", lost and f"{lost} [{size} bytes]")


def read_only(home: Home, random: Random) -> Iterator[Trial]:
    """What is there may only be read, and then it may be written."""
    if not forked.can_close(home.folder):
        print("Not tried: read-only folders, which need a mount namespace.", file=sys.stderr)
        return
    stopped = stopped_run(home, "two.yaml", 4)
    lacking = {SCORE: "data/part-00001.parquet", EVALUATE: "model/starter-safe.jsonl"}
    for command, of in (((*TWO, *RESUME), stopped), (SCORE, "whole-score"), (EVALUATE, "whole-evaluate")):
        out, cache = home.copy(of), home.copy("cache-train").name
        if command in lacking:
            (out / lacking[command]).unlink()
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        lost = refused(home.run(*command, "--out", str(out), cache=cache, closed=out), "Cannot write", "Read-only")
        kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        lost = lost or ("" if kept else "something was changed")
        again = home.run(*command, "--out", str(out), cache=cache)
        yield Trial(f"the folder is read-only: {command[0]}", lost or gone_on(home, command[0], out, again))


def leftovers(home: Home, random: Random) -> Iterator[Trial]:
    out = home.new("merge")
    running = forked.start(home.folder, *MERGE, "--out", str(out))
    running.until(lambda events: any(f"/.{out.name}-" in event and "open" in event for event in events))
    running.send(signal.SIGKILL)
    running.end()
    lost = "" if not out.exists() else "a half folder is there"
    ended = home.run(*MERGE, "--out", str(out))
    left = [path.name for path in home.folder.glob(f".{out.name}*")]
    lost = lost or gone_on(home, "merge", out, ended) or (f"{left} is left behind" if left else "")
    yield Trial("merge is killed while it writes", lost)


DAMAGES: dict[str, Callable[[Home, Random], Iterator[Trial]]] = {
    look.__name__: look
    for look in (
        checkpoints, records, model_alone, scores, evaluations, neighbours, full_disk, read_only, leftovers,
    )
}  # fmt: skip
QUICK = ("model_alone", "neighbours", "read_only", "leftovers")  # the others have faster tests of their own
