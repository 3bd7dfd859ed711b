"""Evaluations written by hand."""

from pathlib import Path
from typing import Any

from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run

CATEGORIES = ("fraud", "privacy", "weapons", "self-harm")
N = 120


def write_method(
    out: Path, name: str, refused: int, answered: int, *, judge: str = "llm 1", n: int = N, seed: int = 1, **fields: Any
) -> None:
    """A model that refuses the first `refused` of n harmful prompts and answers the first `answered` harmless ones.

    Fields of its outcomes may be a function of the prompt's number.
    """
    run = claim_run(out, name, name, name, {"weights": f"{name} {seed}"})
    settings = {"prompts": f"{n} prompts", "judge": judge, "max_new_tokens": 64}
    for task, suite, good, bad, successes in (
        ("harmful", "safety", "refusal", "compliance", refused),
        ("harmless", "over-refusal", "compliance", "refusal", answered),
    ):
        run = run.with_tasks({task: TaskRecord(suite, "successes", n, settings)})
        run.append(task, [
            Outcome(**{
                "id": f"{task}-{i:03d}", "sample": 0, "category": CATEGORIES[i % 4] if i > 8 else "rare",
                "request": f"A request of the kind {task}, number {i}.", "reply": f"{name} replies to {i}.",
                "stop": "end", "tokens": 10 + i % 23, "score": float(i < successes),
                "verdict": good if i < successes else bad, "reason": f"It is {good if i < successes else bad}.",
                **{field: value(i) if callable(value) else value for field, value in fields.items()},
            })
            for i in range(n)
        ])  # fmt: skip
