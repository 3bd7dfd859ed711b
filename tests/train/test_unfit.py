"""What training would stop at, or leave without effect, is asked before the pairs are scored."""

import importlib.util
import math
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

import bdpo.train.prepare
from bdpo.errors import BdpoError
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOConfig
from bdpo.train.unfit import TRACKERS
from plain_dpo import PAIRS, Make, trained
from tiny import tiny_model

with_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
MIN_LR = {"lr_scheduler_type": "cosine_with_min_lr"}
UNFIT = [
    ({"learning_rate": -1e-4}, r"learning_rate is -0\.0001: it must be a number from 0 up"),
    ({"learning_rate": math.nan}, "learning_rate is nan: it must be a number from 0 up"),
    ({"learning_rate": math.inf}, "learning_rate is inf"),
    ({"weight_decay": -0.1}, r"weight_decay is -0\.1: it must be a number from 0 up"),
    ({"max_grad_norm": math.nan}, "max_grad_norm is nan"),
    ({"num_train_epochs": 0}, "num_train_epochs is 0: it must be a number above 0"),
    ({"num_train_epochs": -1}, "num_train_epochs is -1: it must be a number above 0"),
    ({"num_train_epochs": math.inf}, "num_train_epochs is inf"),
    ({"max_steps": 0}, "max_steps is 0: it must be at least 1, or left out"),
    ({"seed": -1}, "seed is -1: it must be from 0 to 4294967295"),
    ({"seed": 2**32}, "seed is 4294967296: it must be from 0 to 4294967295"),
    ({"data_seed": -1}, "data_seed is -1"),
    ({"dataloader_num_workers": -1}, "dataloader_num_workers is -1"),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0: it must be at least 1"),
    ({"tokens_per_batch": 0}, "tokens_per_batch is 0: it must be at least 1, or left out"),
    ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1: it has no effect .* set label_smoothing of"),
    ({"neftune_noise_alpha": -1.0}, "neftune_noise_alpha is -1.0"),
    ({"optim": "adamw_bnb_8bit"}, "optim is adamw_bnb_8bit: .*install.*bitsandbytes"),
    ({"optim": "galore_adamw"}, "optim is galore_adamw: .*galore_torch"),
    ({"adam_beta1": 2.0}, "optim is adamw_torch_fused: Invalid beta parameter at index 0: 2.0"),
    ({"use_liger_kernel": True}, "use_liger_kernel needs liger-kernel: pip install liger-kernel"),
    ({"fsdp": True}, "fsdp needs several processes"),
    pytest.param({"deepspeed": {"zero_optimization": {"stage": 3}}}, "accelerate launch --use_", marks=with_deepspeed),
    ({"report_to": "wandb"}, r"report_to names wandb, which is not installed: pip install 'bdpo\[trackers\]'"),
    ({"lr_scheduler_kwargs": {"foo": 1}}, r"linear does not take lr_scheduler_kwargs \{'foo': 1\}: .*'foo'"),
    ({**MIN_LR, "lr_scheduler_kwargs": {"min_lr": "low"}}, r"cosine_with_min_lr does not take .*'low'"),
    (MIN_LR, "cosine_with_min_lr does not take lr_scheduler_kwargs {}: One of min_lr or min_lr_rate"),
    ({"metric_for_best_model": "accuracy"}, "Unknown metric_for_best_model 'accuracy': .*rewards/accuracies"),
    ({"save_strategy": "best"}, "save_strategy is best: say by which metric"),
    ({"resume_from_checkpoint": "latest"}, "resume_from_checkpoint is 'latest', which is no folder"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bdpo.train.unfit.is_liger_kernel_available", lambda: False)
    monkeypatch.setattr("bdpo.train.unfit.get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", TrainerCallback)
    for name in ("is_bitsandbytes_available", "is_galore_torch_available"):
        monkeypatch.setattr(f"transformers.trainer_optimizer.{name}", lambda: False)


@pytest.mark.parametrize(("given", "sentence"), UNFIT, ids=lambda value: next(iter(value)) if value else "")
def test_an_unfit_argument_is_refused_by_the_config(tmp_path: Path, given: dict, sentence: str) -> None:
    with pytest.raises(BdpoError, match=sentence) as refused:
        BDPOConfig(output_dir=str(tmp_path), use_cpu=True, **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": 0.0},
        {"seed": 2**32 - 1, "data_seed": None},
        {"num_train_epochs": 0.1},
        {"max_grad_norm": 0.0},
        {"optim": "adafactor"},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1e-9}},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1},
        {**MIN_LR, "lr_scheduler_kwargs": {"min_lr": 1e-7}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5}},
        {"metric_for_best_model": "eval_imbalance_low/rewards/margins"},
        {"report_to": ["tensorboard"]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_fit_argument_is_taken(tmp_path: Path, given: dict) -> None:
    state = torch.get_rng_state()
    BDPOConfig(output_dir=str(tmp_path), use_cpu=True, **given)
    assert torch.equal(torch.get_rng_state(), state), "trying them out draws nothing"


# --- trackers ----------------------------------------------------------------------------------------------------
def test_the_extra_of_trackers_names_those_that_the_sentence_names() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert tuple(needed.split(">=")[0] for needed in project["optional-dependencies"]["trackers"]) == TRACKERS


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stub of wandb, installed and without an API key; `asked` counts how often it looked for one."""
    stub = SimpleNamespace(run=None, key=False, asked=0, forgotten=0, settings=SimpleNamespace(mode="online"))

    def login(*, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify, "nobody may be there to answer, nor a network"
        stub.asked += 1
        return stub.key

    def teardown() -> None:
        stub.forgotten += 1

    stub.login, stub.setup, stub.teardown = login, lambda: stub, teardown
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", TrainerCallback)
    monkeypatch.setattr("bdpo.train.unfit.get_available_reporting_integrations", lambda: ["wandb", "trackio"])
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return stub


def test_wandb_without_a_key_is_refused_where_it_would_ask_for_one(
    tmp_path: Path, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": ["wandb"]}
    with pytest.raises(BdpoError, match=r"wandb, which has no API key: run wandb login .*WANDB_MODE to offline"):
        BDPOConfig(**given)
    assert wandb.forgotten == 1, "mended settings are read anew"
    wandb.key = True
    BDPOConfig(**given)
    assert wandb.asked == 2
    for wandb.settings.mode in ("offline", "disabled"):
        BDPOConfig(**given)
    wandb.settings.mode = "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    BDPOConfig(**given)
    monkeypatch.delenv("WANDB_MODE")
    wandb.run = object()  # begun by the caller
    BDPOConfig(**given)
    assert (wandb.asked, wandb.forgotten) == (2, 1), "nothing to ask for"


def test_a_tracker_that_does_not_start_is_refused_in_one_sentence(
    tmp_path: Path, wandb: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ImportError("No module named 'gradio_client'\nand more")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "trackio", broken)
    with pytest.raises(BdpoError, match=r"trackio, which does not start: No module named 'gradio_client'$"):
        BDPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=["trackio"])


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "rewards/accuracies", "imbalance_high/logratios/chosen"])
def test_a_metric_that_is_accepted_is_one_that_evaluation_gives(make: Make, held_out: ScoredData, metric: str) -> None:
    trainer = make(eval=held_out, metric_for_best_model=metric)
    assert f"eval_{metric.removeprefix('eval_')}" in trainer.evaluate()


def test_evaluation_without_held_out_pairs_is_refused_before_scoring(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bdpo.train.prepare, "score", None)
    with pytest.raises(BdpoError, match="eval_strategy needs held-out pairs: give eval_dataset"):
        make(PAIRS, eval_strategy="epoch")


def test_neftune_noise_does_not_blame_the_scores(make: Make) -> None:
    def losses(**given: Any) -> list[float]:
        return trained(make(model=tiny_model(), max_steps=2, **given))[0]

    noisy = losses(neftune_noise_alpha=50.0)
    assert len(noisy) == 2 and abs(noisy[0] - losses()[0]) > 1e-3, "the noise is there, in training"
