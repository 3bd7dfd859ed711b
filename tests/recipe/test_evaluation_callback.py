"""Evaluation while training: when it happens, what is logged, and when training stops."""

import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl

import bdpo.recipe.callback as module
from bdpo.errors import BdpoError
from bdpo.evaluate.evaluation import Subject
from bdpo.evaluate.judges import Judge, Verdict
from bdpo.evaluate.plan import Task
from bdpo.evaluate.results.outcomes import Outcome
from bdpo.pairs import write_pairs
from bdpo.recipe.callback import EvaluationCallback
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import EvaluateSection, parse_recipe
from tiny import make_pairs, tiny_model, tiny_tokenizer


class Says(Judge):
    """A judge whose every verdict is the same label."""

    name, version = "says", "1"

    def __init__(self, label: str = "compliance") -> None:
        self.label = label

    def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        return [Verdict(self.label, self.name, self.version, reply) for reply in replies]


class Log:
    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def log(self, logs: dict[str, float]) -> None:
        self.logged.append(logs)


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[float | None, str]]]:
    """Scores and verdicts that stand for the model's, by benchmark; to be filled in."""
    given: dict[str, list[tuple[float | None, str]]] = {}

    def answers(task: Task, subject: Subject, judge: Any) -> list[Outcome]:
        return [
            Outcome(str(i), 0, "", "", "", "end", 1, score, verdict)
            for i, (score, verdict) in enumerate(given[task.name])
        ]

    monkeypatch.setattr(module, "answers", answers)
    return given


def step(callback: EvaluationCallback, number: int, *, last: int = 10) -> TrainerControl:
    control, state = TrainerControl(), SimpleNamespace(global_step=number, max_steps=last)
    handed = {"model": tiny_model(), "processing_class": tiny_tokenizer()}
    callback.on_step_end(None, state, control, **handed)
    return control


SAFE = [(1.0, "refusal"), (0.0, "compliance"), (0.0, "degenerate"), (0.0, "partial")]
ANSWERED = [(1.0, "compliance"), (0.0, "refusal"), (None, "unparsed"), (1.0, "compliance")]


def test_scores_are_logged_when_due(scores: dict[str, Any]) -> None:
    scores |= {"starter-unsafe": SAFE, "starter-safe": ANSWERED}
    callback, log = EvaluationCallback(EvaluateSection(every=4), Says()), Log()
    callback.attach(log)
    for number in range(1, 9):
        assert not step(callback, number).should_training_stop
    expected = {"evaluate/starter-unsafe": 0.25, "evaluate/starter-safe": 2 / 3, "evaluate/degenerate": 1 / 8}
    assert log.logged == [expected, expected], "at steps 4 and 8"


def test_the_model_as_it_comes_is_evaluated_and_stops_nothing(scores: dict[str, Any]) -> None:
    scores |= {"starter-unsafe": SAFE, "starter-safe": ANSWERED}
    callback, log = EvaluationCallback(EvaluateSection(stop_over_refusal=0.1), Says()), Log()
    callback.attach(log)
    handed = {"model": tiny_model(), "processing_class": tiny_tokenizer()}
    for global_step in (0, 3):  # resumed at step 3: it was evaluated then
        control = TrainerControl()
        callback.on_train_begin(None, SimpleNamespace(global_step=global_step, max_steps=9), control, **handed)
        assert len(log.logged) == 1 and not control.should_training_stop


@pytest.mark.parametrize(("ceiling", "stops"), [(0.3, True), (0.34, False)])
def test_over_refusal_stops(
    scores: dict[str, Any], ceiling: float, stops: bool, caplog: pytest.LogCaptureFixture
) -> None:
    scores |= {"starter-unsafe": SAFE, "starter-safe": ANSWERED}  # a third of the harmless prompts goes unanswered
    callback = EvaluationCallback(EvaluateSection(every=1, stop_over_refusal=ceiling), Says())
    assert step(callback, 2).should_training_stop is stops
    said = "Training stops at step 2: 33% of the harmless prompts go unanswered (evaluate.stop_over_refusal: 0.3)."
    assert (said in caplog.text) is stops


@pytest.mark.parametrize(
    ("logs", "stops"),
    [
        ({"loss": 0.5, "logratios/chosen": -20.5}, True),
        ({"eval_logratios/chosen": -20.5}, True),
        ({"logratios/chosen": -19.5, "logratios/rejected": -40.0}, False),
        ({"train_runtime": 3.0}, False),
    ],
)
def test_displacement_stops(logs: dict[str, float], stops: bool) -> None:
    callback = EvaluationCallback(EvaluateSection(stop_displacement=-20.0), Says())
    control = TrainerControl()
    callback.on_log(None, SimpleNamespace(global_step=3, max_steps=10), control, logs=logs)
    assert control.should_training_stop is stops


def test_a_benchmark_that_is_not_there_is_said_before_training() -> None:
    with pytest.raises(BdpoError, match=r"No benchmark 'startr': did you mean 'starter'\?"):
        EvaluationCallback(EvaluateSection(suite="startr"), Says())


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"evry": 5}, "unknown key 'evaluate.evry': did you mean 'every'?"),
        ({"every": 0}, "evaluate.every is 0, but it should be greater than or equal to 1."),
        ({"stop_over_refusal": 30}, "evaluate.stop_over_refusal is 30, but it should be less than or equal to 1."),
        ({"stop_displacement": 5}, "evaluate.stop_displacement is 5, but it should be less than 0."),
    ],
)
def test_the_section_refuses_what_it_does_not_know(section: dict[str, Any], said: str) -> None:
    with pytest.raises(BdpoError) as caught:
        parse_recipe({"evaluate": section})
    assert str(caught.value) == f"recipe: {said}"


# --- in a run -----------------------------------------------------------------------------------------------------
@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    gc.collect()
    gc.freeze()
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(12))
    yield tmp_path
    gc.unfreeze()


def run(home: Path, judge: Says, **section: Any) -> list[dict[str, Any]]:
    recipe = parse_recipe({
        "model": {"name": str(home / "model")},
        "data": {"train": str(home / "pairs.jsonl")},
        "train": {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 2, "save_strategy": "no",
                  "learning_rate": 1e-3, "logging_steps": 1, "num_train_epochs": 1},
        "peft": {"r": 2, "target_modules": ["q_proj"]},
        "evaluate": {"limit": 3, "max_new_tokens": 2, **section},
    })  # fmt: skip
    assert recipe.evaluate
    callback = EvaluationCallback(recipe.evaluate, judge, recipe.data.seed)
    run_recipe(recipe, home / "run", callbacks=[callback])
    return json.loads((home / "run" / "metrics.json").read_text())["history"]


def test_a_run_logs_evaluations_before_it_every_so_many_steps_and_at_the_end(home: Path) -> None:
    history = run(home, Says(), every=4)
    keys = ("step", "evaluate/starter-unsafe", "evaluate/starter-safe", "evaluate/degenerate")
    logged = [tuple(entry[key] for key in keys) for entry in history if keys[1] in entry]
    assert logged == [(0, 0.0, 1.0, 0.0), (4, 0.0, 1.0, 0.0), (6, 0.0, 1.0, 0.0)]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 6 and losses[0] == pytest.approx(0.693147, abs=1e-5)


def test_evaluating_changes_nothing_in_training(home: Path) -> None:
    with_it = [entry["loss"] for entry in run(home, Says(), every=1) if "loss" in entry]
    (home / "run").rename(home / "other")
    without = [entry["loss"] for entry in run(home, Says()) if "loss" in entry]
    assert with_it == without


def test_a_run_that_refuses_everything_stops_early(home: Path) -> None:
    history = run(home, Says("refusal"), every=2, stop_over_refusal=0.5)
    assert max(entry["step"] for entry in history) == 2
