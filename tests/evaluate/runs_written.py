"""Evaluations written by hand: methods and the scores of their prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdpo.evaluate.results.compare import ComparedRow, Comparison
from bdpo.evaluate.results.outcomes import Outcome, Run, TaskRecord, claim_run

SETTINGS = {"prompts": "4 prompts (aaaa)", "judge": "rules 1", "max_new_tokens": 64, "temperature": 0.0}
SUITE_OF = {"strongreject": "safety", "advbench": "safety", "xstest-safe": "over-refusal", "gsm8k": "capability"}


def outcome(id: str, score: float | None, **fields: Any) -> Outcome:
    values = {"category": "", "request": "?", "reply": "!", "stop": "end", "tokens": 3, "verdict": "", "sample": 0}
    return Outcome(id=id, score=score, **(values | fields))


def write_run(
    out: Path, name: str, scores: dict[str, Sequence[float | None]], *, model: str = "", **settings: Any
) -> Run:
    """A run whose prompts of a task are p0, p1, ... with these scores."""
    model = model or name
    run = claim_run(out, name, model, model, {"weights": model})
    for task, values in scores.items():
        record = TaskRecord(SUITE_OF.get(task, "preferences"), "successes", len(values), SETTINGS | settings)
        run = run.with_tasks({task: record})
        run.append(task, [outcome(f"p{i}", value) for i, value in enumerate(values)])
    return run


def row(comparison: Comparison, name: str) -> ComparedRow:
    return next(row for row in comparison.rows if row.name == name)
