"""Any other benchmark, through EleutherAI's lm-evaluation-harness (the extra `lm-eval`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from bdpo.errors import BdpoError
from bdpo.evaluate.results.outcomes import Outcome, Run, TaskRecord

_PREFIX = "lm-eval-"  # before a task's name in a run
_METRICS = ("exact_match", "acc", "mc2", "mc1")  # of a sample, in [0, 1]; the first one there is the score


@dataclass(frozen=True)
class Harness:
    """Tasks of the harness, done as it does them; one sample of it is one outcome.

    Raises:
        BdpoError: the harness is not installed, or no task is named.
    """

    tasks: tuple[str, ...]
    limit: int | None = None  # the first so many samples of each
    batch_size: int = 25

    def __post_init__(self) -> None:
        _imported()
        if not self.tasks:
            raise BdpoError("--lm-eval names no task: `lm-eval ls tasks` lists them.")

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What the outcomes of each task depend on, by its name in a run."""
        about = {"prompts": f"lm-eval {version('lm-eval')}, limit {self.limit}", "judge": "lm-eval"}
        return {f"{_PREFIX}{task}": about for task in self.tasks}

    def answer(self, run: Run, model: Any, tokenizer: Any) -> Run:
        """Let a loaded model do what is not done yet, and write the outcomes down with its other tasks."""
        if model is None:
            raise BdpoError("--lm-eval needs the model itself: leave out --endpoint, or give lm-eval the endpoint.")
        for task in self.tasks:
            name = f"{_PREFIX}{task}"
            if name in run.tasks:
                continue
            metric, outcomes = sample_outcomes(task, self._samples(task, model, tokenizer))
            run.append(name, outcomes)
            run = run.with_tasks(
                {name: TaskRecord("capability", f"lm-eval's {metric}", len(outcomes), self.settings[name])}
            )
        return run

    def _samples(self, task: str, model: Any, tokenizer: Any) -> list[dict[str, Any]]:
        from lm_eval.models.huggingface import HFLM

        subject = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=self.batch_size)
        try:
            found = _imported().simple_evaluate(subject, tasks=[task], limit=self.limit, log_samples=True)["samples"]
        except (KeyError, ValueError) as error:
            raise BdpoError(
                f"--lm-eval: lm-eval does not do '{task}' ({error}); `lm-eval ls tasks` lists them."
            ) from error
        if task not in found:
            raise BdpoError(f"--lm-eval: {task} is a group; name its tasks: {', '.join(sorted(found))}.")
        return list(found[task])


def sample_outcomes(task: str, samples: list[dict[str, Any]]) -> tuple[str, list[Outcome]]:
    """The metric that is taken for the score, and an outcome for each of the harness's samples.

    >>> metric, outcomes = sample_outcomes("arc_easy", [{"doc_id": 3, "acc": 1.0, "acc_norm": 0.0}])
    >>> metric, outcomes[0].id, outcomes[0].score
    ('acc', '000003', 1.0)
    """
    metric = next((name for name in _METRICS if samples and name in samples[0]), None)
    if metric is None:
        raise BdpoError(f"--lm-eval: {task} scores no sample by {', '.join(_METRICS)}: run it with lm-eval itself.")
    first = {sample["doc_id"]: sample for sample in reversed(samples)}  # a sample comes once for each of its filters
    return metric, [Outcome(f"{int(id):06d}", 0, "", "", "", "", 0, float(first[id][metric])) for id in sorted(first)]


def _imported() -> Any:
    try:
        import lm_eval
    except ImportError as error:
        raise BdpoError("--lm-eval needs lm-evaluation-harness: pip install 'bdpo[lm-eval]'.") from error
    return lm_eval
