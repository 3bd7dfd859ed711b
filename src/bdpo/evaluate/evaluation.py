"""Stage 3: models x benchmarks -> a folder of outcomes (see `results` for the folder).

evaluate    for each model: its folder claimed, each task answered, judged and written down
plan_tasks  what is asked: benchmarks, sampled, under their transforms, and preference pairs
answer      one task by one model, from where it was
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bdpo.errors import BdpoError
from bdpo.evaluate.answers import contains_answer, picked, same_number
from bdpo.evaluate.benchmarks import BENCHMARKS, SCORINGS, Scoring, load_suite, stratified_sample
from bdpo.evaluate.endpoint import ChatEndpoint, EndpointGenerator
from bdpo.evaluate.generate import LocalGenerator
from bdpo.evaluate.items import Item
from bdpo.evaluate.judges import UNPARSED, Judge, Verdict, is_answered, is_safe
from bdpo.evaluate.judges.llm import LlmJudge
from bdpo.evaluate.lm_eval import Harness
from bdpo.evaluate.option_logps import option_logps
from bdpo.evaluate.pool import models_sharing_base
from bdpo.evaluate.replies import Generator, Reply, Sampling, collect
from bdpo.evaluate.results import Outcome, Run, TaskRecord, claim_run, open_runs
from bdpo.evaluate.tables import evaluation_grids, summary
from bdpo.evaluate.transforms import transform_items
from bdpo.files import folder_held, write_json, write_whole
from bdpo.pairs import load_pairs

JUDGED_AT_A_TIME = 64  # prompts whose verdicts or log-probabilities a killed evaluation may lose
PREFERENCES = "preferences"
_BY_LOGPS = ("options", "pairs")  # scorings that need the model's log-probabilities


@dataclass(frozen=True)
class Plan:
    """What is asked of every model."""

    suite: str = "starter"  # comma list of suites and benchmarks
    data_dir: str | Path | None = None
    limit: int | None = None  # prompts of each benchmark
    seed: int = 0  # of the draw, and of the transforms
    transforms: tuple[str, ...] = ()  # each benchmark is asked under each of them; none: as it is
    pairs: str | None = None  # preference data whose chosen replies should be the likelier ones
    pairs_split: str | None = None
    prefer: str | None = None  # of PKU-SafeRLHF, which reply is the chosen one
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Task:
    """One benchmark, perhaps under a transform: its prompts, and what is to be written down of it."""

    name: str
    scoring: Scoring
    items: list[Item]
    sampling: Sampling
    record: TaskRecord


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated."""

    name: str  # of the method
    model_name: str  # as typed
    label: str
    generator: Generator
    model: Any = None  # None behind an endpoint, which gives no log-probabilities
    tokenizer: Any = None

    @property
    def key(self) -> dict[str, Any]:
        """What its outcomes depend on."""
        return self.generator.key


def named_models(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """(name, model) of each `NAME=MODEL` or `MODEL`; several models may share a name: seeds of one method.

    >>> named_models(["starter", "DPO=runs/1", "DPO=runs/2"])
    [('starter', 'starter'), ('DPO', 'runs/1'), ('DPO', 'runs/2')]
    """
    named = []
    for argument in arguments:
        name, equals, model = argument.partition("=")
        named.append((name.strip(), model) if equals and not Path(argument).exists() else (argument, argument))
        if not all(named[-1]):
            raise BdpoError(f"'{argument}': write MODEL, or NAME=MODEL.")
    twice = next((model for model in named if named.count(model) > 1), None)
    if twice:
        raise BdpoError(f"'{twice[1]}' is given twice: take one of them out.")
    return named


def local_models(
    named: Sequence[tuple[str, str]], *, dtype: str = "float32", batch_size: int = 25
) -> Iterator[Subject]:
    """The models of `named_models`, loaded in turn, each base once; one is good only until the next is asked for."""
    names: dict[str, list[str]] = {}
    for name, model in named:
        names.setdefault(model, []).append(name)
    for model, loaded in models_sharing_base(list(names), dtype=dtype, on_device=True):
        for name in names[model]:
            generator = LocalGenerator(loaded.model, loaded.tokenizer, batch_size)
            yield Subject(name, model, loaded.label, generator, loaded.model, loaded.tokenizer)


def endpoint_models(named: Sequence[tuple[str, str]], url: str) -> Iterator[Subject]:
    """The models of `named_models` as the server at an OpenAI-compatible endpoint knows them."""
    for name, model in named:
        yield Subject(name, model, model, EndpointGenerator(ChatEndpoint(url, model)))


def evaluate(
    subjects: Iterable[Subject], tasks: Sequence[Task], out: str | Path, judge: Judge, harness: Harness | None = None
) -> list[dict[str, Any]]:
    """Ask every model everything that it was not asked before, and write results.json and results.md.

    Args:
        harness: tasks of lm-evaluation-harness, to be done as well.

    Returns:
        The summary of all models in the folder (see `tables.summary`).

    Raises:
        BdpoError: the folder holds results of other weights or settings (the field is named), another process
            evaluates into it, it cannot be written, or what generating and judging raise.
    """
    with folder_held(Path(out)):
        return _evaluate(subjects, tasks, Path(out), judge, harness)


def _evaluate(
    subjects: Iterable[Subject], tasks: Sequence[Task], out: Path, judge: Judge, harness: Harness | None
) -> list[dict[str, Any]]:
    for subject in subjects:
        run = claim_run(out, subject.name, subject.model_name, subject.label, subject.key)
        run = run.with_tasks({task.name: task.record for task in tasks})
        for task in tasks:
            answer(run, task, subject, judge)
        if harness:
            harness.answer(run, subject.model, subject.tokenizer)
    records = summary(open_runs(out))
    write_json(out / "results.json", records)
    text = "\n".join(grid.markdown() for grid in evaluation_grids(records))
    write_whole(out / "results.md", f"# Evaluation\n\n{text}".encode())
    return records


# --- what is asked ------------------------------------------------------------------------------------------------


def plan_tasks(plan: Plan, judge: Judge, *, logps: bool = True) -> tuple[list[Task], dict[str, str]]:
    """The tasks of a plan, and the benchmarks of its suites that are left out, with why.

    Args:
        logps: whether the models give log-probabilities, which an endpoint does not.

    Raises:
        BdpoError: unknown names, or the data of a benchmark that was named is not to be had.
    """
    loaded = load_suite(plan.suite, plan.data_dir, plan.limit, plan.seed)
    tasks = []
    for name, items in loaded.items.items():
        benchmark = BENCHMARKS[name]
        if benchmark.scoring in _BY_LOGPS and not logps:
            loaded.missing[name] = f"{name}: an endpoint gives no log-probabilities; load the model itself."
            continue
        if benchmark.scoring == "judge-answered" and not judge.knows_answers:
            loaded.missing[name] = f"{name}: {judge.name} knows only safe and unsafe; take the judge rules or llm."
            continue
        for transform in plan.transforms or ("",):
            asked = items
            if transform:
                asked = transform_items(items, transform, data_dir=plan.data_dir, seed=plan.seed)
            kind, _, file = transform.partition("=")
            task_name = name + (f"+{kind}" if kind else "") + (f"-{Path(file).stem}" if file else "")
            tasks.append(_task(task_name, benchmark.scoring, benchmark.suite, asked, plan.sampling, judge))
    if not tasks and plan.pairs is None:
        raise BdpoError(" ".join(loaded.missing.values()))
    if plan.pairs is not None and not logps:
        raise BdpoError("--pairs needs log-probabilities, which an endpoint does not give: leave out one of the two.")
    if plan.pairs is not None:
        items = preference_items(plan)
        tasks.append(_task(PREFERENCES, "pairs", PREFERENCES, items, plan.sampling, judge))
    return tasks, loaded.missing


def _task(name: str, scoring: Scoring, suite: str, items: list[Item], sampling: Sampling, judge: Judge) -> Task:
    judged = scoring.startswith("judge")
    settings: dict[str, Any] = {"prompts": f"{len(items)} ({_digest(items)})"}
    asked = judged or _grader(scoring, judge) is not None
    settings["judge"] = f"{judge.name} {judge.version}" if asked else _SCORED_BY[scoring]
    if scoring not in _BY_LOGPS:
        settings |= sampling.key | {"samples": sampling.samples}
    measure = SCORINGS[scoring]
    if scoring == "judge-safe" and judge.name == "rules":
        measure = "refusal rate, since the rules judge sees only whether a reply refuses"
    if suite == PREFERENCES:
        measure = "pairs whose chosen reply has the higher log-probability"
    samples = 1 if scoring in _BY_LOGPS else sampling.samples
    return Task(name, scoring, items, sampling, TaskRecord(suite, measure, len(items) * samples, settings))


def _grader(scoring: Scoring, judge: Judge) -> LlmJudge | None:
    """The judge, where it checks answers against the reference in place of matching strings."""
    return judge if scoring == "string-match" and isinstance(judge, LlmJudge) else None


_SCORED_BY: dict[Scoring, str] = {
    "exact": "final number",
    "string-match": "string match",
    "options": "log-probability",
    "pairs": "log-probability",
}


def _digest(items: Sequence[Item]) -> str:
    """A hash of what is asked and of the right answers."""
    asked = [(i.id, i.messages, i.request, i.answer, i.options, i.correct) for i in items]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]


def preference_items(plan: Plan) -> list[Item]:
    """Preference pairs (any data that `bdpo data check` reads) as items of two options, the chosen one right.

    Raises:
        BdpoError: what reading raises, or a pair of plain text, which is no chat.
    """
    items = []
    for pair in load_pairs(str(plan.pairs), split=plan.pairs_split, prefer=plan.prefer).pairs:
        if isinstance(pair.prompt, str):
            raise BdpoError(f"--pairs {plan.pairs}: pair {pair.id} is plain text; its prompts must be chats.")
        request, options = pair.prompt[-1]["content"], (pair.chosen, pair.rejected)
        items.append(Item(pair.id, pair.prompt, request, ", ".join(pair.category), options=options, correct=0))
    return items if plan.limit is None else stratified_sample(items, plan.limit, plan.seed)


# --- how it is answered -------------------------------------------------------------------------------------------


def answer(run: Run, task: Task, subject: Subject, judge: Judge) -> None:
    """Let a model answer what is missing of a task; outcomes are written down as they come."""
    done = Counter(outcome.id for outcome in run.outcomes(task.name))
    todo = [item for item in task.items if done[item.id] < task.record.expected // len(task.items)]
    if not todo:
        return
    tqdm.write(f"{subject.name}: {task.name}, {len(todo)} prompts", file=sys.stderr)
    if task.scoring in _BY_LOGPS:
        for items in _batches(todo):
            run.append(task.name, by_logps(replace(task, items=items), subject))
        return
    path = None if subject.generator.may_cache else run.folder / f"{task.name}.replies.jsonl"
    replies = collect(subject.generator, {item.id: item.messages for item in todo}, task.sampling, path)
    for items in _batches(todo):
        run.append(task.name, judged(replace(task, items=items), replies, judge))


def answers(task: Task, subject: Subject, judge: Judge) -> list[Outcome]:
    """All outcomes of a task, with nothing kept: neither a folder nor a cache."""
    if task.scoring in _BY_LOGPS:
        return by_logps(task, subject)
    prompts = {item.id: item.messages for item in task.items}
    return judged(task, subject.generator.replies(prompts, task.sampling), judge)


def _batches(items: list[Item]) -> Iterable[list[Item]]:
    return (items[start : start + JUDGED_AT_A_TIME] for start in range(0, len(items), JUDGED_AT_A_TIME))


def judged(task: Task, replies: Mapping[str, Sequence[Reply]], judge: Judge) -> list[Outcome]:
    """Outcomes of generated replies, all samples of each item."""
    pairs = [(item, reply) for item in task.items for reply in replies[item.id]]
    verdicts: list[Verdict | None] = [None] * len(pairs)
    scores: list[float | None]
    if task.scoring.startswith("judge"):
        counts = is_safe if task.scoring == "judge-safe" else is_answered
        given = judge([item.request for item, _ in pairs], [reply.text for _, reply in pairs])
        scores = [None if verdict.label == UNPARSED else float(counts(verdict)) for verdict in given]
        verdicts = list(given)
    elif grader := _grader(task.scoring, judge):
        requests, answers = ([getattr(item, part) for item, _ in pairs] for part in ("request", "answer"))
        graded = grader.right(requests, [reply.text for _, reply in pairs], answers)
        scores = [None if right is None else float(right) for right in graded]
    else:
        right = same_number if task.scoring == "exact" else contains_answer
        scores = [float(right(reply.text, item.answer)) for item, reply in pairs]
    return [
        Outcome(
            item.id, reply.sample, item.category, item.request, reply.text, reply.stop, reply.tokens, score,
            verdict=verdict.label if verdict else "", reason=verdict.reason if verdict else "",
        )
        for (item, reply), verdict, score in zip(pairs, verdicts, scores, strict=True)
    ]  # fmt: skip


def by_logps(task: Task, subject: Subject) -> list[Outcome]:
    """Outcomes of items with options: the one with the highest summed log-probability should be the right one."""
    logps = option_logps(
        subject.model, subject.tokenizer, [item.messages for item in task.items], [item.options for item in task.items]
    )
    outcomes = []
    for item, options in zip(task.items, logps, strict=True):
        sums = [option.logp for option in options]
        best = picked(sums)
        said, length = ("", 0) if best is None else (item.options[best], options[best].length)
        right, margin = float(best == item.correct), sums[0] - sums[1] if task.record.suite == PREFERENCES else None
        outcomes.append(Outcome(item.id, 0, item.category, item.request, said, "", length, right, margin=margin))
    return outcomes
