"""Stage 3: models x benchmarks -> a folder of outcomes (see `results.outcomes` for the folder).

evaluate  for each model: its folder claimed, each task answered, judged and written down
answer    one task by one model, from where it was
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.grading.lm_eval import Harness
from bdpo.evaluate.grading.scorers import outcomes_by_logps, outcomes_of_replies
from bdpo.evaluate.judges import Judge
from bdpo.evaluate.plan import Task
from bdpo.evaluate.replies.collect import Generator, OnBatch, Reply, collect
from bdpo.evaluate.replies.endpoint import WORKERS, ChatEndpoint, EndpointGenerator
from bdpo.evaluate.replies.estimate import NO_CALLS, Calls, Estimate
from bdpo.evaluate.results.outcomes import Outcome, Run, claim_run, open_runs, refuse_other_settings
from bdpo.evaluate.results.tables import evaluation_grids, summary
from bdpo.files import folder_held, write_json, write_whole
from bdpo.pairs.rendering import set_template_kwargs
from bdpo.terminal import visible

if TYPE_CHECKING:
    from bdpo.models import DeviceMap

JUDGED_AT_A_TIME = 64  # prompts whose verdicts or log-probabilities a killed evaluation may lose


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated."""

    name: str  # of the method
    model_name: str  # as typed
    label: str
    generator: Generator
    model: Any = None  # None behind an endpoint, which gives no log-probabilities
    tokenizer: Any = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)  # that the chat template was given

    @property
    def key(self) -> dict[str, Any]:
        """What its outcomes depend on."""
        given = {"chat_template_kwargs": dict(self.template_variables)} if self.template_variables else {}
        return self.generator.key | given


def local_models(
    named: Sequence[tuple[str, str | Path]],
    *,
    dtype: str = "float32",
    batch_size: int | None = None,
    chat_template: str | None = None,
    template_variables: Mapping[str, Any] | None = None,
    device_map: DeviceMap = None,
) -> Iterator[Subject]:
    """The models of `named.named_models`, loaded in turn, each base once; one is good only until the next is asked for.

    Args:
        chat_template: replaces those of the tokenizers.
        template_variables: what the chat template is given beside the conversation, such as enable_thinking.
    """
    from bdpo.evaluate.replies.generate import LocalGenerator
    from bdpo.evaluate.replies.pool import models_sharing_base

    names: dict[str, list[str]] = {}
    for name, model in named:
        names.setdefault(str(model), []).append(name)
    variables = dict(template_variables or {})
    for model, loaded in models_sharing_base(
        list(names), dtype=dtype, on_device=True, chat_template=chat_template, device_map=device_map
    ):
        set_template_kwargs(loaded.tokenizer, variables, "--chat-template-kwargs")
        for name in names[model]:
            generator = LocalGenerator(loaded.model, loaded.tokenizer, batch_size)
            yield Subject(name, model, loaded.label, generator, loaded.model, loaded.tokenizer, variables)


def endpoint_models(
    named: Sequence[tuple[str, str]], url: str, *, workers: int = WORKERS,
    template_variables: Mapping[str, Any] | None = None,
) -> list[Subject]:  # fmt: skip
    """The models of `named.named_models` as the server at an OpenAI-compatible endpoint knows them.

    Args:
        workers: requests at once.
        template_variables: sent as `chat_template_kwargs`, which vLLM and SGLang hand to the template.

    Raises:
        BdpoError: the URL is none.
    """
    variables = dict(template_variables or {})
    endpoints = {model: ChatEndpoint(url, model, template_variables=variables) for _, model in named}
    return [
        Subject(name, model, model, EndpointGenerator(endpoints[model], workers), template_variables=variables)
        for name, model in named
    ]


def evaluate(
    subjects: Iterable[Subject], tasks: Sequence[Task], out: str | Path, judge: Judge, harness: Harness | None = None
) -> list[dict[str, Any]]:
    """Ask every model everything that it was not asked before, and write results.json and results.md.

    Args:
        harness: tasks of lm-evaluation-harness, to be done as well.

    Returns:
        The summary of all models in the folder (see `tables.summary`).

    Raises:
        BdpoError: the folder holds results of other weights or of other settings, be it of another model (the field is
            named), another process evaluates into it, it cannot be written, or what generating and judging raise.
    """
    with folder_held(Path(out)):
        return _evaluate(subjects, tasks, Path(out), judge, harness)


def _evaluate(
    subjects: Iterable[Subject], tasks: Sequence[Task], out: Path, judge: Judge, harness: Harness | None
) -> list[dict[str, Any]]:
    settings = {task.name: task.record.settings for task in tasks}
    refuse_other_settings(out, settings | (harness.settings if harness else {}))
    for subject in subjects:
        run = claim_run(out, subject.name, subject.model_name, subject.label, subject.key)
        run = run.with_tasks({task.name: task.record for task in tasks})
        todo = {task.name: _todo(run, task) for task in tasks}
        replies = sum(len(todo[task.name]) * task.sampling.samples for task in tasks if not task.scorer.needs_logps)
        estimate = Estimate(subject.name, replies)
        _announce(subject, [replace(task, items=todo[task.name]) for task in tasks], judge)
        for task in tasks:
            if todo[task.name]:
                run = answer(run, task, todo[task.name], subject, judge, estimate)
        if harness:
            harness.answer(run, subject.model, subject.tokenizer)
    records = summary(open_runs(out))
    write_json(out / "results.json", records)
    text = "\n".join(grid.markdown() for grid in evaluation_grids(records))
    write_whole(out / "results.md", f"# Evaluation\n\n{text}".encode())
    return records


# --- how it is answered -------------------------------------------------------------------------------------------


def _announce(subject: Subject, tasks: Sequence[Task], judge: Judge) -> None:
    """Say what will be asked of servers, of the model's and of the judge's, before it is."""
    replied = [task for task in tasks if not task.scorer.needs_logps and task.items]
    server, said = subject.generator, dict[str, Calls]()
    for task in replied:
        asked = {item.id: item.messages for item in task.items}
        if isinstance(server, EndpointGenerator):
            said[server.endpoint.url] = server.calls(asked, task.sampling) + said.get(server.endpoint.url, NO_CALLS)
        texts = [item.request for item in task.items for _ in range(task.sampling.samples)]
        judging = judge.calls(texts, task.sampling.max_new_tokens) if task.scorer.asks(judge) else None
        if judging is not None:
            said[f"judge {judge.name}"] = judging + said.get(f"judge {judge.name}", NO_CALLS)
    for name, calls in said.items():
        tqdm.write(visible(f"{subject.name}: {calls} ({name})"), file=sys.stderr)


def _todo(run: Run, task: Task) -> list[Item]:
    """What a model was not asked yet."""
    done = Counter(outcome.id for outcome in run.outcomes(task.name))
    return [item for item in task.items if done[item.id] < task.record.expected // len(task.items)]


def answer(run: Run, task: Task, todo: list[Item], subject: Subject, judge: Judge, on_batch: OnBatch) -> Run:
    """Let a model answer these items of a task; outcomes are written down as they come, and how fast replies were."""
    told = f"{subject.name}: {task.name}, {len(todo)} prompts"
    if not task.scorer.needs_logps:
        told += f", at most {task.sampling.max_new_tokens} tokens each"
    tqdm.write(visible(told), file=sys.stderr)
    if task.scorer.needs_logps:
        for items in _batches(todo):
            run.append(task.name, outcomes_by_logps(task.scorer, items, subject.model, subject.tokenizer))
        return run
    path = None if subject.generator.may_cache else run.folder / f"{task.name}.replies.jsonl"
    made: list[Reply] = []

    def keep(batch: list[Reply]) -> None:
        made.extend(batch)
        on_batch(batch)

    begun = time.perf_counter()
    replies = collect(subject.generator, {item.id: item.messages for item in todo}, task.sampling, path, keep)
    if made:
        run = run.with_generated(task.name, sum(reply.tokens for reply in made), time.perf_counter() - begun)
    for items in _batches(todo):
        run.append(task.name, _graded(task, items, replies, judge))
    return run


def answers(task: Task, subject: Subject, judge: Judge) -> list[Outcome]:
    """All outcomes of a task, with nothing kept: neither a folder nor a cache."""
    if task.scorer.needs_logps:
        return outcomes_by_logps(task.scorer, task.items, subject.model, subject.tokenizer)
    prompts = {item.id: item.messages for item in task.items}
    return _graded(task, task.items, subject.generator.replies(prompts, task.sampling), judge)


def _batches(items: list[Item]) -> Iterable[list[Item]]:
    return (items[start : start + JUDGED_AT_A_TIME] for start in range(0, len(items), JUDGED_AT_A_TIME))


def _graded(task: Task, items: Sequence[Item], replies: Mapping[str, Sequence[Reply]], judge: Judge) -> list[Outcome]:
    """Outcomes of generated replies, all samples of each item."""
    pairs = [(item, reply) for item in items for reply in replies[item.id]]
    asked, said = [item for item, _ in pairs], [reply for _, reply in pairs]
    return outcomes_of_replies(task.scorer, asked, said, judge, filtered_is_safe=task.filtered_is_safe)
