"""With the balance off, ten steps of `dpo` follow TRL's DPOTrainer on the starter model, cut to its first layers."""

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

from bdpo import models
from bdpo.pairs import PreferencePair, load_pairs
from bdpo.tokens import tokenize_pairs
from bdpo.train import BDPOConfig, BDPOTrainer

STEPS, BATCH = 10, 2
LAYERS = 6  # of 30: its words, its norms and its head, and a third of the time
COMMON: dict[str, Any] = {
    "max_steps": STEPS, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "beta": 0.1, "train_sampling_strategy": "sequential", "gradient_checkpointing": False, "bf16": False,
    "use_cpu": True, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip


def shortest_pairs(tokenizer: Any) -> list[PreferencePair]:
    pairs = load_pairs("starter").pairs
    tokenized = tokenize_pairs(tokenizer, pairs).pairs
    size = [len(ids.prompt_ids) + len(ids.chosen_ids) + len(ids.rejected_ids) for ids in tokenized]
    order = sorted(range(len(pairs)), key=size.__getitem__)[: STEPS * BATCH]
    assert max(size[i] for i in order) <= 128
    return [pairs[i] for i in order]


def conversations(pairs: list[PreferencePair]) -> Dataset:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return Dataset.from_list(
        [{"prompt": list(p.prompt), "chosen": said(p.chosen), "rejected": said(p.rejected)} for p in pairs]
    )


def steps_of(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_a_script_switches_by_changing_an_import() -> None:
    trl = pytest.importorskip("trl")
    ours, theirs = (list(inspect.signature(trainer).parameters) for trainer in (BDPOTrainer, trl.DPOTrainer))
    assert set(ours) <= set(theirs) and ours[:3] == theirs[:3]
    shared = {"beta", "label_smoothing", "loss_type", "max_length", "disable_dropout", "learning_rate"}
    assert shared <= set(BDPOConfig.__dataclass_fields__) & set(trl.DPOConfig.__dataclass_fields__)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_steps_of_dpo_follow_trl(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    handed = models.load("starter")
    del handed.model.model.layers[LAYERS:]
    handed.model.config.num_hidden_layers = LAYERS
    for_trl = copy.deepcopy(handed.model)
    pairs = shortest_pairs(handed.tokenizer)
    ours = BDPOTrainer(
        handed.model,
        args=BDPOConfig(output_dir=str(tmp_path / "ours"), scores_dir=str(tmp_path), balance=False, **COMMON),
        train_dataset=pairs,
        processing_class=handed.tokenizer,
        peft_config=lora,
    )
    theirs = trl.DPOTrainer(
        for_trl,
        args=trl.DPOConfig(output_dir=str(tmp_path / "theirs"), max_length=None, **COMMON),
        train_dataset=conversations(pairs),
        processing_class=handed.tokenizer,
        peft_config=lora,
    )
    set_peft_model_state_dict(theirs.model, get_peft_model_state_dict(ours.model))
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert list(theirs.train_dataset[name]) == list(ours.train_dataset.rows[name])

    ours.train()
    theirs.train()
    ours_steps, their_steps = steps_of(ours), steps_of(theirs)
    assert len(ours_steps) == len(their_steps) == STEPS
    for name in ("loss", "rewards/margins", "rewards/chosen", "rewards/rejected"):
        worst = max(abs(a[name] - b[name]) for a, b in zip(ours_steps, their_steps, strict=True))
        print(f"worst difference in {name}: {worst:.2g}")
        assert worst < 1e-3
    assert ours_steps[-1]["loss"] < 0.6, "the steps must move the model, or a wrong gradient would pass"
