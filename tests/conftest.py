"""Fixtures that several test files use."""

import gc
import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pytest
import typer.main
from peft import LoraConfig

from bdpo.cli import main
from bdpo.report import figures_training
from bdpo.score import score
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOConfig, BDPOTrainer
from plain_dpo import BETA, HELD_OUT, PAIRS, RATE, Make
from tiny import Bdpo, tiny_model, tiny_tokenizer
from undrawn import values

made_once = lru_cache(typer.main.get_command)  # Typer makes all commands for each call, and that takes longer than most


def pytest_configure() -> None:
    """A job in a script's background ignores Ctrl-C, and so would what is stopped here: take it as in front."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of several processes none is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Trainer collects garbage at each start, which takes longer than the steps here: exempt what is loaded, for good,
    since to look through it again for each file would take as long as many a file."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_templates() -> Iterator[None]:
    """peft compiles the template of its model card at each save, which takes longer than to save a tiny adapter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", lru_cache(jinja2.Environment.compile))
        yield


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """The curves of a run are written and not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_training, "at_a_glance", values)
        yield


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> ScoredData:
    return score(tiny_model(), tiny_tokenizer(), PAIRS, tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> ScoredData:
    return score(tiny_model(), tiny_tokenizer(), HELD_OUT, tmp_path_factory.mktemp("held"))


@pytest.fixture
def make(tmp_path: Path, scores: ScoredData) -> Make:
    """A trainer on the tiny model and its scores: 21 pairs in steps of 8, logged at each step."""

    def made(
        data: Any = scores, model: Any = None, *, lora: bool = False, eval: Any = None, **given: Any
    ) -> BDPOTrainer:
        values = {
            "output_dir": str(tmp_path / "run"), "scores_dir": str(tmp_path / "scores"), "report_to": "none",
            "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "beta": BETA,
            "learning_rate": RATE, "adam_epsilon": 1e-6, "lr_scheduler_type": "linear", "max_steps": 6,
            "per_device_train_batch_size": 8,
        }  # fmt: skip
        return BDPOTrainer(
            model=tiny_model() if model is None else model,
            args=BDPOConfig(**{**values, **given}),
            train_dataset=data,
            eval_dataset=eval,
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
        )

    return made


@pytest.fixture
def bdpo_(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bdpo:
    """Run the command in this process, in the test file's own `home`: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(typer.main, "get_command", made_once)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bdpo", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
