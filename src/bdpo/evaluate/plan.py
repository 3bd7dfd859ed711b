"""What is asked of every model: benchmarks, sampled, under their transforms, and preference pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError, refuse_twice
from bdpo.evaluate.ask.benchmarks import BENCHMARKS, LoadedSuite, load_suite, stratified_sample
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.ask.transforms import begins_reply, transform_items
from bdpo.evaluate.grading.scorers import SCORERS, Scorer
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.results.outcomes import TaskRecord
from bdpo.pairs import load_pairs
from bdpo.pairs.kinds import pair_kind

PREFERENCES = "preferences"


@dataclass(frozen=True)
class Plan:
    """What is asked of every model."""

    suite: str = "starter"  # comma list of suites and benchmarks; "": the pairs alone
    data_dir: str | Path | None = None
    limit: int | None = None  # prompts of each benchmark
    seed: int = 0  # of the draw, and of the transforms
    transforms: tuple[str, ...] = ()  # each benchmark is asked under each of them; none: as it is
    pairs: str | None = None  # preference data whose chosen replies should be the likelier ones
    pairs_split: str | None = None
    pairs_kind: str | None = None  # column of the pairs that says unsafe or harmless; None: labels and openings tell
    prefer: str | None = None  # of PKU-SafeRLHF, which reply is the chosen one
    sampling: Sampling = field(default_factory=Sampling)
    filtered_is_safe: bool = False  # what a provider's filter takes counts as refused; else it is not counted


@dataclass(frozen=True)
class Task:
    """One benchmark, perhaps under a transform: its prompts, and what is to be written down of it."""

    name: str
    scorer: Scorer
    items: list[Item]
    sampling: Sampling
    record: TaskRecord
    filtered_is_safe: bool = False


def plan_tasks(plan: Plan, judge: Judge, *, logps: bool = True) -> tuple[list[Task], dict[str, str]]:
    """The tasks of a plan, and the benchmarks of its suites that are left out, with why.

    Args:
        logps: whether the models give log-probabilities, which an endpoint does not.

    Raises:
        BdpoError: unknown names, the data of a benchmark that was named is not to be had, or an option that would
            change nothing.
    """
    _refuse_idle(plan)
    loaded = LoadedSuite({}, {})
    if plan.suite or plan.pairs is None:
        loaded = load_suite(plan.suite, plan.data_dir, plan.limit, plan.seed)
    tasks = []
    for name, items in loaded.items.items():
        benchmark = BENCHMARKS[name]
        scorer = SCORERS[benchmark.scoring]
        if objection := scorer.objection(judge, logps=logps):
            loaded.missing[name] = f"{name}: {objection}"
            continue
        for transform in plan.transforms or ("",):
            asked = items
            kind, _, file = transform.partition("=")
            task_name = name + (f"+{kind}" if kind else "") + (f"-{Path(file).stem}" if file else "")
            if transform and begins_reply(transform) and scorer.needs_logps:
                loaded.missing[task_name] = f"{name}: no reply is generated that {kind} could begin."
                continue
            if transform:
                asked = transform_items(items, transform, data_dir=plan.data_dir, seed=plan.seed)
            tasks.append(_task(task_name, scorer, benchmark.suite, asked, plan, judge))
    refuse_twice(  # the outcomes of both would lie in one file
        [task.name for task in tasks],
        "--transform: two of them would be {}; leave one out, or give its file another name.",
    )
    if not tasks and plan.pairs is None:
        raise BdpoError(" ".join(loaded.missing.values()))
    if plan.pairs is not None and not logps:
        raise BdpoError("--pairs needs log-probabilities, which an endpoint does not give: leave out one of the two.")
    if plan.pairs is not None:
        items = preference_items(plan)
        tasks.append(_task(PREFERENCES, SCORERS[PREFERENCES], PREFERENCES, items, plan, judge))
    return tasks, loaded.missing


def _refuse_idle(plan: Plan) -> None:
    """Refuse what would change nothing: who gave it takes the results for something else than they are."""
    about_pairs = {"--pairs-split": plan.pairs_split, "--pairs-kind": plan.pairs_kind, "--prefer": plan.prefer}
    given = [option for option, value in about_pairs.items() if value is not None]
    if given and plan.pairs is None:
        raise BdpoError(f"{given[0]} is about the data of --pairs: name them, or leave it out.")
    if plan.transforms and plan.pairs is not None and not plan.suite:
        raise BdpoError("--transform words the prompts of benchmarks, not --pairs: name benchmarks with --suite.")


def of_items(task: Task, items: list[Item]) -> Task:
    """The same task on some of its items."""
    samples = task.record.expected // len(task.items)
    settings = task.record.settings | {"prompts": _prompts(items)}
    return replace(task, items=items, record=replace(task.record, expected=samples * len(items), settings=settings))


def _task(name: str, scorer: Scorer, suite: str, items: list[Item], plan: Plan, judge: Judge) -> Task:
    settings: dict[str, Any] = {"prompts": _prompts(items), "judge": scorer.judged_by(judge)}
    samples = 1 if scorer.needs_logps else plan.sampling.samples
    if not scorer.needs_logps:
        settings |= plan.sampling.key | {"samples": samples}
        settings |= {"filtered": "refused"} if plan.filtered_is_safe else {}
    record = TaskRecord(suite, scorer.measure(judge), len(items) * samples, settings)
    return Task(name, scorer, items, plan.sampling, record, plan.filtered_is_safe)


def _prompts(items: Sequence[Item]) -> str:
    """How many there are, and a hash of what is asked and of the right answers."""
    asked = [
        (i.id, i.messages, i.request, i.answer, i.options, i.correct, *([i.kind] if i.kind else [])) for i in items
    ]
    return f"{len(items)} ({hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]})"


def preference_items(plan: Plan) -> list[Item]:
    """Preference pairs (any data that `bdpo data check` reads) as items of two options, the chosen one right.

    Raises:
        BdpoError: what reading raises, or a pair of plain text, which is no chat.
    """
    items = []
    columns = {} if plan.pairs_kind is None else {"prompt_kind": plan.pairs_kind}
    for pair in load_pairs(str(plan.pairs), split=plan.pairs_split, prefer=plan.prefer, columns=columns).pairs:
        if isinstance(pair.prompt, str):
            raise BdpoError(f"--pairs {plan.pairs}: pair {pair.id} is plain text; its prompts must be chats.")
        request, options = pair.prompt[-1]["content"], (pair.chosen, pair.rejected)
        prompt = hashlib.sha256(json.dumps(pair.prompt).encode()).hexdigest()[:12]
        items.append(
            Item(
                pair.id, pair.prompt, request, ", ".join(pair.category), options=options, correct=0,
                kind=pair_kind(pair), prompt=prompt,
            )
        )  # fmt: skip
    return items if plan.limit is None else stratified_sample(items, plan.limit, plan.seed)
