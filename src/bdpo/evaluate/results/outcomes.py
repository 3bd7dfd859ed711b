"""What an evaluation leaves in its folder, and reading it again.

    DIR/results.json, results.md        every model's rates (see `tables`)
    DIR/MODEL/run.json                  which model and weights, and for each task what its outcomes depend on
    DIR/MODEL/TASK.jsonl                one outcome a line, with its checksum; appended as they come

A task is a benchmark, or a benchmark under a transform ("strongreject+base64"). MODEL is the name that the model was
given, made fit for a folder; several models of one name (seeds of one method) have -2, -3 ... behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.records import RecordFile
from bdpo.files import key_difference, read_bytes, write_json

FORMAT = 1
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Outcome:
    """One reply of a model, and what became of it. Judge and settings are those of its task."""

    id: str  # of the prompt
    sample: int  # of its samples, from 0
    category: str
    request: str
    reply: str  # the answer that was judged; for options: the one with the highest log-probability
    stop: str  # end, length or filtered; nothing where no reply was generated
    tokens: int  # of the reply
    score: float | None  # 1 is success, 0 is not; None: the judge's verdict could not be read, or it was filtered
    verdict: str = ""  # the judge's label, or why no judge was asked; nothing where the score needs no judge
    reason: str = ""  # what decided it
    margin: float | None = None  # preferences: log pi(chosen) - log pi(rejected) [nats]
    thought: str = ""  # what the model thought before it answered, which was not judged
    kind: str = ""  # preferences: unsafe or harmless
    prompt: str = ""  # preferences: the same for all pairs with the same prompt

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class TaskRecord:
    """What was asked, and what its outcomes depend on."""

    suite: str  # safety, over-refusal, capability or preferences
    measure: str  # what the mean score is a share of
    expected: int  # outcomes of a whole task
    settings: dict[str, Any]  # prompts, judge and generation; the same for every model that is compared

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Generated:
    """What it took to make a task's replies; those that the cache had are not counted."""

    tokens: int
    seconds: float  # of generation alone: no loading, no judging

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Run:
    """One model's folder."""

    folder: Path
    name: str  # of the method; seeds of one method share it
    model: str  # as typed
    label: str  # how results on it are to be labelled
    order: int  # place among the models of its folder
    key: dict[str, Any]  # of the weights, the template and the like
    tasks: dict[str, TaskRecord]
    generated: dict[str, Generated] = field(default_factory=dict)  # by task

    __pydantic_config__ = ConfigDict(extra="forbid")

    def outcomes(self, task: str) -> list[Outcome]:
        """The outcomes there are of a task, each once, in the order of the prompts' ids."""
        try:
            found = [_OUTCOME.validate_python(record) for record in RecordFile(self._lines(task)).read()]
        except ValidationError as error:
            raise _unreadable(self._lines(task), _complaint(error)) from None
        first: dict[tuple[str, int], Outcome] = {}
        for outcome in found:
            first.setdefault((outcome.id, outcome.sample), outcome)
        return [first[place] for place in sorted(first)]

    def whole(self, task: str) -> list[Outcome]:
        """The outcomes of a task, all of them.

        Raises:
            BdpoError: some are missing.
        """
        found = self.outcomes(task)
        if len(found) != self.tasks[task].expected:
            raise BdpoError(
                f"{self._lines(task)} holds {len(found)} of {self.tasks[task].expected} outcomes: "
                "run the same `bdpo evaluate` again, it goes on where it was."
            )
        return found

    def append(self, task: str, outcomes: Iterable[Outcome]) -> None:
        """Add outcomes to those of a task."""
        RecordFile(self._lines(task)).append(asdict(outcome) for outcome in outcomes)

    def refuse_other(self, settings: Mapping[str, dict[str, Any]]) -> None:
        """Raise BdpoError, naming the field, where a task has outcomes that were made under other settings."""
        for name in (name for name in settings if name in self.tasks and self.outcomes(name)):
            _refuse_other(f"{self.folder}: {name}", self.tasks[name].settings, settings[name])

    def with_generated(self, task: str, tokens: int, seconds: float) -> Run:
        """The run with further tokens of a task's replies, and what they took, written down."""
        before = self.generated.get(task, Generated(0, 0.0))
        made = Generated(before.tokens + tokens, round(before.seconds + seconds, 3))
        run = replace(self, generated=self.generated | {task: made})
        _write(run)
        return run

    def _lines(self, task: str) -> Path:
        return self.folder / f"{task}.jsonl"

    def with_tasks(self, tasks: dict[str, TaskRecord]) -> Run:
        """The run with further tasks written down.

        Raises:
            BdpoError: the folder holds one of them made under other settings; names the field.
        """
        self.refuse_other({name: task.settings for name, task in tasks.items()})
        run = replace(self, tasks=self.tasks | tasks)
        _write(run)
        return run


_OUTCOME, _RUN = TypeAdapter(Outcome), TypeAdapter(Run)


def _refuse_other(where: str, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise BdpoError, naming the fields, where the two differ."""
    different = key_difference(there, now)
    if different:
        raise BdpoError(
            f"{where} holds results that depend on something else; it differs in {'; '.join(different)}. "
            "Choose another --out, or remove what is there."
        )


# --- the folder ---------------------------------------------------------------------------------------------------


def claim_run(out: Path, name: str, model: str, label: str, key: dict[str, Any]) -> Run:
    """The folder of a model: the one of this name and these weights, however their path is written, else a new one.

    Raises:
        BdpoError: it holds results of other weights, or cannot be written.
    """
    runs = list(_runs(out))
    for run in runs:
        if run.name == name and not key_difference(run.key, key):
            return run
    for run in runs:
        if (run.name, run.model) == (name, model):
            _refuse_other(str(run.folder), run.key, key)
    slug = re.sub(r"[^a-z0-9.]+|\.(?=[a-z])", "-", name.lower())[:100].strip("-.") or "model"  # no results.json
    free = (out / (slug if n == 1 else f"{slug}-{n}") for n in range(1, len(runs) + 2))
    taken = {run.folder for run in runs}
    order = 1 + max((run.order for run in runs), default=-1)
    run = Run(next(path for path in free if path not in taken), name, model, label, order, key, {})
    _write(run)
    return run


def refuse_other_settings(out: Path, settings: Mapping[str, dict[str, Any]]) -> None:
    """Raise BdpoError, naming model and field, where a model in the folder was asked one of these tasks otherwise."""
    for run in _runs(out):
        run.refuse_other(settings)


def open_runs(out: str | Path) -> list[Run]:
    """The models evaluated in a folder, in the order in which they were first evaluated.

    Raises:
        BdpoError: there are none, or one cannot be read.
    """
    out = Path(out)
    runs = sorted(_runs(out), key=lambda run: run.order)
    if not runs:
        raise BdpoError(f"{out} holds no evaluation (no */{RUN_FILE}): run `bdpo evaluate --out {out}` first.")
    return runs


def _runs(out: Path) -> Iterator[Run]:
    for path in sorted(out.glob(f"*/{RUN_FILE}")):
        try:
            content = json.loads(read_bytes(path))
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            run = _RUN.validate_python(content | {"folder": path.parent})
        except ValidationError as error:
            raise _unreadable(path, _complaint(error)) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _unreadable(path, str(error)) from error
        for task in run.tasks:
            if Path(task).name != task:  # its outcomes would lie elsewhere
                raise _unreadable(path, f"{task!r} is no name of a task")
        yield run


def _unreadable(path: Path, why: str) -> BdpoError:
    return BdpoError(f"{path} cannot be read ({why}): evaluate into another folder.")


def _complaint(error: ValidationError) -> str:
    """The first complaint of pydantic, and all that it is about."""
    complaints = error.errors()
    about = ("'" + ".".join(map(str, one["loc"])) + "'" for one in complaints if one["msg"] == complaints[0]["msg"])
    return f"{', '.join(about)}: {complaints[0]['msg']}"


def _write(run: Run) -> None:
    content = {"format": FORMAT, **asdict(run)}
    del content["folder"]
    write_json(run.folder / RUN_FILE, content)


def prompt_scores(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """The score of each prompt: the mean over its samples; None where one has no score."""
    samples: dict[str, list[float | None]] = {}
    for outcome in outcomes:
        samples.setdefault(outcome.id, []).append(outcome.score)
    return {id: None if None in scores else sum(scores) / len(scores) for id, scores in samples.items()}  # type: ignore[arg-type]
