"""QLoRA for real: 4-bit weights on the CPU, where bitsandbytes is installed."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig

from bdpo import models
from bdpo.models import weights_hash
from bdpo.score import score
from bdpo.train import BDPOConfig, BDPOTrainer
from plain_dpo import PAIRS, losses_of
from tiny import tiny_model, tiny_tokenizer

modules = pytest.importorskip("bitsandbytes.nn.modules")


@pytest.fixture(autouse=True)
def one_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs that have bfloat16 instructions bitsandbytes packs weights anew for inference; GPUs have one packing."""
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "model")  # blocks have 64 weights
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_weights_that_were_scored_are_those_that_are_trained(folder: Path, tmp_path: Path) -> None:
    loaded = models.load(folder, quantization="4bit", on_device=True)
    packed = loaded.model.model.layers[0].mlp.up_proj.weight
    assert packed.dtype == torch.uint8 and packed.numel() == 64 * 128 // 2
    scores = score(loaded.model, loaded.tokenizer, PAIRS, tmp_path / "scores")
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    dtypes = {weight.dtype for weight in before.values()}
    trainer = BDPOTrainer(
        model=loaded.model,
        args=BDPOConfig(
            output_dir=str(tmp_path / "run"), report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no",
            logging_steps=1, learning_rate=1e-2, max_steps=4, per_device_train_batch_size=8,
        ),
        train_dataset=scores,
        processing_class=loaded.tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    assert not trainer.model.is_gradient_checkpointing, "off, as it was asked for"
    trainer.train()
    losses = losses_of(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[-1] < 0.6
    after = trainer.model.base_model.model.state_dict()
    kept = {name.replace(".base_layer", ""): weight for name, weight in after.items() if "lora_" not in name}
    assert kept.keys() == before.keys() and {weight.dtype for weight in kept.values()} == dtypes
    assert all(torch.equal(weight, before[name]) for name, weight in kept.items())
    trainer.save_model()
    assert scores.manifest["key"]["weights"] == weights_hash(models.load(folder, quantization="4bit").model)
    again: Any = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run")
    lora = {name: weight for name, weight in trainer.model.state_dict().items() if "lora_" in name}
    assert lora and all(torch.equal(again.state_dict()[name], weight) for name, weight in lora.items())


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_what_was_asked_for_and_gives_the_same_losses(
    folder: Path, tmp_path: Path, reentrant: bool
) -> None:
    def losses(**how: Any) -> list[float]:
        args = BDPOConfig(
            output_dir=str(tmp_path / "run"), scores_dir=str(tmp_path / "scores"), report_to="none", disable_tqdm=True,
            use_cpu=True, save_strategy="no", logging_steps=1, learning_rate=2e-3, max_steps=3,
            per_device_train_batch_size=8, **how,
        )  # fmt: skip
        loaded = models.load(folder, quantization="4bit")
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = BDPOTrainer(loaded.model, args=args, train_dataset=PAIRS, processing_class=loaded.tokenizer,
                              peft_config=lora)  # fmt: skip
        trainer.train()
        return losses_of(trainer)

    plainly = losses()
    checkpointed = losses(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    assert checkpointed == pytest.approx(plainly, abs=1e-4) and plainly[1] < plainly[0] - 0.005
