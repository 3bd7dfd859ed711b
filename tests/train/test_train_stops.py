"""The trainer: resuming, what stops a run, and what is refused before it."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import TrainerCallback

from bdpo.errors import BdpoError
from bdpo.models import weights_hash
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOConfig, BDPOTrainer
from plain_dpo import (
    HELD_OUT,
    Make,
    assert_same_weights,
    changed,
    losses_of,
    steps_of,
    trained,
)
from tiny import tiny_model, tiny_tokenizer


# --- resuming and stopping ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(make: Make, lora: bool) -> None:
    whole = make(lora=lora, save_strategy="steps", save_steps=1)
    losses, weights = trained(whole)
    for step in (2, 3, 4):  # within the first epoch, at its end, within the second
        resumed = make(lora=lora)
        checkpoint = Path(whole.args.output_dir) / f"checkpoint-{step}"
        again, same = trained(resumed, resume_from_checkpoint=str(checkpoint))
        assert again == pytest.approx(losses, abs=1e-6)
        assert_same_weights(same, weights, 1e-6)


def test_a_loss_that_is_not_finite_stops_with_the_pair_and_leaves_the_checkpoint(
    make: Make, scores: ScoredData
) -> None:
    bad = steps_of(make(), 1)[2][1]  # met at the third step
    poisoned = make(changed(scores, "ref_chosen_logps", {bad: math.nan}), save_strategy="steps", save_steps=1)
    with pytest.raises(BdpoError, match=rf"not finite at step 3, for pairs pair-{bad}\b"):
        poisoned.train()
    assert all(p.isfinite().all() for p in poisoned.model.parameters())
    checkpoint = Path(poisoned.args.output_dir) / "checkpoint-2"
    assert not checkpoint.with_name("checkpoint-3").exists()
    mended = make()
    again, _ = trained(mended, resume_from_checkpoint=str(checkpoint))
    assert again == pytest.approx(trained(make())[0], abs=1e-6)


@pytest.mark.parametrize("clipped", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_stops_before_it_moves_a_weight(make: Make, clipped: float) -> None:
    trainer = make(save_strategy="steps", save_steps=1, max_grad_norm=clipped, per_device_train_batch_size=4,
                   gradient_accumulation_steps=2)  # fmt: skip
    poisoned = trainer.model.lm_head.weight
    poisoned.register_hook(lambda gradient: gradient * (math.inf if trainer.state.global_step == 2 else 1.0))
    kept = []

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            kept.append(poisoned.detach().clone())

    trainer.add_callback(Keep())
    met = steps_of(trainer, 1)[2]  # 5 of the 8 places
    with pytest.raises(BdpoError, match=r"gradient is not finite at step 3, for pairs .* Training") as stop:
        trainer.train()
    named = re.findall(r"pair-\d+", str(stop.value))
    assert sorted(named) == sorted(f"pair-{i}" for i in met) and len(named) == 5
    assert len(kept) == 2 and torch.equal(poisoned, kept[-1]), "the weights are those of step 2"
    assert [path.name for path in sorted(Path(trainer.args.output_dir).glob("check*"))] == [
        "checkpoint-1",
        "checkpoint-2",
    ]
    assert len(losses_of(trainer)) == 2


# --- what is refused -----------------------------------------------------------------------------------------------
def test_scores_of_another_model_are_refused_by_their_hash_naming_the_field(make: Make) -> None:
    with pytest.raises(BdpoError, match=r"belong to another model: weights \([0-9a-f]+\.{3} there, [0-9a-f]+\.{3} now"):
        make(model=tiny_model(seed=1))


def test_scores_of_another_model_with_a_forged_hash_stop_at_the_first_batch(make: Make, scores: ScoredData) -> None:
    other = tiny_model(seed=1)
    key = {**scores.manifest["key"], "weights": weights_hash(other)}
    trainer = make(replace(scores, manifest={**scores.manifest, "key": key}), other)
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(BdpoError, match=r"log-ratio of pair pair-\d+ is \d+\.\d+ nats/token away from 0"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_the_first_batch_is_held_to_0_05_nats_per_token(make: Make, scores: ScoredData) -> None:
    first = steps_of(make(), 1)[0][3]
    row = scores.rows[first]
    off = {nats: row["ref_rejected_logps"] + nats * len(row["rejected_ids"]) for nats in (0.04, 0.06)}
    assert len(trained(make(changed(scores, "ref_rejected_logps", {first: off[0.04]}), max_steps=1))[0]) == 1
    with pytest.raises(BdpoError, match=f"pair pair-{first} is 0.060 nats/token"):
        make(changed(scores, "ref_rejected_logps", {first: off[0.06]})).train()


def test_data_parallel_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BDPOConfig, "n_gpu", property(lambda self: 2))
    with pytest.raises(BdpoError, match=r"nn\.DataParallel is not supported: launch one process a GPU"):
        make()


def test_a_reference_model_is_refused(scores: ScoredData) -> None:
    with pytest.raises(BdpoError, match="ref_model must be None"):
        BDPOTrainer(tiny_model(), ref_model=tiny_model(), train_dataset=scores)


def test_a_missing_data_set_is_refused() -> None:
    with pytest.raises(BdpoError, match="train_dataset is missing"):
        BDPOTrainer(tiny_model())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"loss_type": "dppo"}, "did you mean 'dpo'"),
        ({"loss_type": "dpo", "loss_params": {"gamma": 1.0}}, "no hyperparameter 'gamma'"),
        ({"loss_type": ["sigmoid", "sft"]}, "loss_type takes one loss"),
        ({"weighting": "sigmoidal"}, "did you mean 'sigmoid'"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0: it must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_work(tmp_path: Path, given: dict, sentence: str) -> None:
    with pytest.raises(BdpoError, match=sentence):
        BDPOConfig(output_dir=str(tmp_path), **given)


@pytest.mark.parametrize("given", ["sigmoid", ["sigmoid"], ["dpo"]])
def test_trls_ways_of_naming_dpo_are_understood(tmp_path: Path, given: Any) -> None:
    assert BDPOConfig(output_dir=str(tmp_path), loss_type=given).loss_type == "dpo"


def test_the_best_checkpoint_may_be_chosen_by_a_held_out_metric(make: Make, held_out: ScoredData) -> None:
    trainer = make(
        eval=held_out, lora=True, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, max_steps=4,
        learning_rate=5e-3, load_best_model_at_end=True, metric_for_best_model="rewards/accuracies",
    )  # fmt: skip
    trainer.train()
    accuracies = [e["eval_rewards/accuracies"] for e in trainer.state.log_history if "eval_loss" in e]
    assert trainer.evaluate()["eval_rewards/accuracies"] == max(accuracies) > min(accuracies)


def test_an_adapter_that_does_not_fit_the_model_is_one_sentence(scores: ScoredData, tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"adapter does not fit the model: .*no_such_module"):
        BDPOTrainer(
            tiny_model(), args=BDPOConfig(output_dir=str(tmp_path)), train_dataset=scores,
            processing_class=tiny_tokenizer(), peft_config=LoraConfig(target_modules=["no_such_module"]),
        )  # fmt: skip


def test_evaluation_pairs_that_were_not_scored_with_the_trainer_are_refused(make: Make) -> None:
    with pytest.raises(BdpoError, match="Give evaluation pairs to BDPOTrainer as eval_dataset"):
        make().evaluate(HELD_OUT)
