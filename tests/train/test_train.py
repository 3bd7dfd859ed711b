"""The trainer: trajectories against a plain hand-written loop, and what changes no number."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import bdpo.train.trainer
from bdpo.errors import BdpoError
from bdpo.forward.lora import FusedLinear
from bdpo.method.losses import LOSSES, PairLogps, pair_losses
from bdpo.score import score
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOConfig, BDPOTrainer
from bdpo.train.batches import Filler
from bdpo.train.prepare import policy
from plain_dpo import (
    BETA,
    PAIRS,
    Make,
    assert_same_weights,
    plain_training,
    plain_weights,
    slow_logp,
    steps_of,
    trained,
)
from tiny import tiny_model, tiny_tokenizer


# --- the trajectory -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plain(scores: ScoredData, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """B-DPO by the plain loop: two epochs of 8, 8 and 5 pairs."""
    args = BDPOConfig(output_dir=str(tmp_path_factory.mktemp("order")), per_device_train_batch_size=8, use_cpu=True)
    trainer = BDPOTrainer(tiny_model(), args=args, train_dataset=scores, processing_class=tiny_tokenizer())
    steps = steps_of(trainer, 2)
    assert [len(step) for step in steps] == [8, 8, 5, 8, 8, 5]
    return plain_training(steps, scores, plain_weights(list(scores.rows)))


@pytest.mark.parametrize(("micro", "accumulation"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_every_split_of_a_step_follows_the_plain_loop(make: Make, plain: Any, micro: int, accumulation: int) -> None:
    losses, weights = trained(make(per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation))
    assert losses == pytest.approx(plain[0], abs=1e-5)
    assert_same_weights(weights, plain[1], 1e-5)
    assert losses[-1] < losses[0] - 0.05, "it learns"


@pytest.mark.parametrize(("budget", "accumulation"), [(10**6, 1), (400, 4), (1, 7)])
def test_a_budget_of_tokens_splits_the_step_and_follows_the_plain_loop(
    make: Make, plain: Any, budget: int, accumulation: int
) -> None:
    trainer = make(per_device_train_batch_size=8, tokens_per_batch=budget)
    assert trainer.args.gradient_accumulation_steps == accumulation
    loader = trainer.get_train_dataloader()
    assert len(loader) == 3 * accumulation
    lengths, ceiling = trainer.train_dataset.lengths, max(budget, *trainer.train_dataset.lengths)
    batches = [[i for i in batch if not isinstance(i, Filler)] for batch in loader.batch_sampler]
    assert max(sum(lengths[i] for i in batch) for batch in batches) <= ceiling
    losses, weights = trained(trainer)
    assert losses == pytest.approx(plain[0], abs=1e-5)
    assert_same_weights(weights, plain[1], 1e-5)


def test_the_two_layouts_follow_one_trajectory(make: Make, plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bdpo.train.trainer, "choose_layout", lambda model, longest: ("padded", "the test says so"))
    trainer = make()
    assert trainer.layout == "padded"
    losses, weights = trained(trainer)
    assert losses == pytest.approx(plain[0], abs=1e-5)
    assert_same_weights(weights, plain[1], 1e-5)


def test_balance_off_is_infinite_temperature_is_dpo(make: Make, scores: ScoredData) -> None:
    off, off_weights = trained(make(balance=False, max_steps=3))
    infinite, infinite_weights = trained(make(temperature=math.inf, max_steps=3))
    assert off == infinite
    assert_same_weights(off_weights, infinite_weights, 0)
    on, _ = trained(make(max_steps=3))
    assert on[0] == pytest.approx(off[0], abs=1e-6) == pytest.approx(math.log(2), abs=1e-6)
    assert abs(on[2] - off[2]) > 1e-4, "and the balance makes a difference"
    trainer = make(balance=False)
    plainly, _ = plain_training(steps_of(trainer, 1), scores, [(1.0, 1.0, 1.0)] * 21)
    assert off[:1] == pytest.approx(plainly[:1], abs=1e-6)


def test_the_first_gradient_of_b_dpo_is_the_formulas(make: Make, scores: ScoredData) -> None:
    # dL/dlogp(c) = -beta s w_c sigma(-m), dL/dlogp(r) = +beta s w_r sigma(-m), and m = 0 before any step
    trainer = make(optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0, max_steps=1)
    step, before = steps_of(trainer, 1)[0], tiny_model()
    _, after = trained(trainer)
    rows, weights = list(scores.rows), plain_weights(list(scores.rows))
    objective = torch.zeros((), dtype=torch.float64)
    for i in step:
        s, w_c, w_r = weights[i]
        for side, weight in (("chosen", -w_c), ("rejected", +w_r)):
            logp = slow_logp(before, rows[i]["prompt_ids"], rows[i][f"{side}_ids"])
            objective = objective + BETA * s * weight * 0.5 * logp / len(step)
    objective.backward()
    expected = {name: (p - p.grad).detach() for name, p in before.named_parameters()}
    assert_same_weights(after, expected, 2e-5)
    assert max(p.grad.abs().max() for p in before.parameters()) > 0.1


@pytest.mark.parametrize(("weights", "scale"), [(True, False), (False, True)])
def test_the_ablations_weigh_by_one_half_of_the_formula(
    make: Make, scores: ScoredData, weights: bool, scale: bool
) -> None:
    rows = make(balance_weights=weights, balance_scale=scale).train_dataset
    for i, (s, w_c, w_r) in enumerate(plain_weights(list(scores.rows))):
        expected = (w_c, w_r, 1.0) if weights else (1.0, 1.0, s)
        row = rows[i]
        assert (row["chosen_weight"], row["rejected_weight"], row["scale"]) == pytest.approx(expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_starts_at_the_references_value_and_the_balance_moves_the_second_step(
    make: Make, scores: ScoredData, loss: str
) -> None:
    two = {"loss_type": loss, "beta": None, "max_steps": 2, "learning_rate": 5e-3}
    trainer = make(**two)
    on, off = trained(trainer)[0], trained(make(**two, balance=False))[0]
    rows = [scores.rows[i] for i in steps_of(trainer, 1)[0]]
    ref = {side: torch.tensor([row[f"ref_{side}_logps"] for row in rows]) for side in ("chosen", "rejected")}
    lengths = {side: torch.tensor([len(row[f"{side}_ids"]) for row in rows]) for side in ("chosen", "rejected")}
    logps = PairLogps(
        ref["chosen"], ref["rejected"], ref["chosen"], ref["rejected"], lengths["chosen"], lengths["rejected"],
        torch.zeros(8), torch.tensor([float(not row["rejected_safe"]) for row in rows]),
    )  # fmt: skip
    start = pair_losses(loss, logps).mean().item()
    assert on[0] == pytest.approx(start, rel=1e-4) and off[0] == pytest.approx(start, rel=1e-4)
    assert on[1] != pytest.approx(off[1], abs=1e-6) and math.isfinite(on[1])


def test_safedpo_swaps_and_drops_raw_pairs_and_refuses_scores_that_were_not(make: Make, tmp_path: Path) -> None:
    labels = [(True, False), (False, True), (False, False)]
    pairs = [replace(PAIRS[i], chosen_safe=c, rejected_safe=r) for i, (c, r) in enumerate(labels)]
    rows = make(pairs, loss_type="safedpo").train_dataset.rows
    plain = score(tiny_model(), tiny_tokenizer(), pairs, tmp_path / "plain")
    assert list(rows["id"]) == ["pair-0", "pair-1"] and list(rows["chosen_safe"]) == [True, True]
    assert list(rows["chosen_ids"]) == [plain.rows[0]["chosen_ids"], plain.rows[1]["rejected_ids"]]
    with pytest.raises(BdpoError, match=r"plain holds pairs whose chosen reply is unsafe, which SafeDPO swaps"):
        make(plain, loss_type="safedpo")


def test_safedpo_needs_labels(make: Make) -> None:
    unlabelled = [*PAIRS[:2], replace(PAIRS[2], rejected_safe=None)]
    with pytest.raises(BdpoError, match="safedpo needs chosen_safe and rejected_safe on every pair"):
        make(unlabelled, loss_type="safedpo")


# --- numbers: dtypes, checkpointing, dropout ------------------------------------------------------------------------
def test_references_stay_float32_where_an_engine_casts_its_inputs(make: Make) -> None:
    trainer = make()
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.is_deepspeed_enabled = True
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    prepared = trainer._prepare_inputs({**inputs, "plain": torch.tensor([-200.3])})
    assert prepared["plain"].item() == -200.0, "the simulated engine casts to bfloat16"
    assert prepared["pairs"].ref_chosen.dtype == torch.float32
    assert torch.equal(prepared["pairs"].ref_chosen, inputs["pairs"].ref_chosen)


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bfloat16_learns_about_the_same(make: Make, how: str) -> None:
    if how == "autocast":
        trainer, reference = make(bf16=True, lora=True, learning_rate=2e-3), make(lora=True, learning_rate=2e-3)
    else:
        trainer, reference = (
            make(PAIRS, tiny_model(dtype=torch.bfloat16), lora=True, learning_rate=2e-3),
            make(lora=True, learning_rate=2e-3),
        )
    losses, full = trained(trainer)[0], trained(reference)[0]
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert losses[-1] == pytest.approx(full[-1], abs=0.1) and full[-1] < 0.6
    assert losses != full, "the precision was in fact another"


@pytest.mark.parametrize("lora", [False, True])
def test_gradient_checkpointing_gives_the_same_losses(make: Make, lora: bool) -> None:
    plainly, weights = trained(make(lora=lora, max_steps=3))
    checkpointed, same = trained(make(lora=lora, max_steps=3, gradient_checkpointing=True))
    assert checkpointed == pytest.approx(plainly, abs=1e-6)
    assert_same_weights(same, weights, 1e-6)


@pytest.mark.parametrize(("architecture", "dropout"), [("llama", "attention_dropout"), ("gpt2", "resid_pdrop")])
def test_dropout_is_off_and_where_it_is_wanted_the_first_batch_is_checked_without_it(
    make: Make, tmp_path: Path, architecture: str, dropout: str
) -> None:
    def dropping() -> Any:
        return tiny_model(architecture, **{dropout: 0.5})

    scored = score(dropping(), tiny_tokenizer(), PAIRS, tmp_path / "dropping")
    still = trained(make(scored, dropping(), max_steps=1))[0]
    assert still == pytest.approx([math.log(2)], abs=1e-6)
    shaken = trained(make(scored, dropping(), max_steps=1, disable_dropout=False))[0]
    assert abs(shaken[0] - math.log(2)) > 0.01


SMALL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("kind", "dropouts"),
    [
        ("opt", {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5, "ffn_dim": 48, "word_embed_proj_dim": 32}),
        ("falcon", {"hidden_dropout": 0.5, "attention_dropout": 0.5}),
        ("gpt2", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}),
        ("phi", {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attention_dropout": 0.5, "intermediate_size": 48}),
    ],
)
def test_dropout_is_off_whether_a_model_keeps_it_as_a_module_as_a_number_or_in_its_config(
    tmp_path: Path, kind: str, dropouts: dict[str, float]
) -> None:
    def trained_on() -> Tensor:
        torch.manual_seed(0)
        return model.train()(input_ids=ids, use_cache=False).logits

    ids = torch.arange(3, 40)[None]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL, **dropouts))
    still = model.eval()(input_ids=ids, use_cache=False).logits
    assert not torch.allclose(trained_on(), still, atol=1e-3)
    lora = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5, task_type="CAUSAL_LM")
    model = policy(model, lora, BDPOConfig(output_dir=str(tmp_path), use_cpu=True))
    assert torch.equal(trained_on(), still)


def test_the_adapter_is_drawn_with_the_seed(make: Make) -> None:
    torch.manual_seed(1)
    first = make(lora=True).model.state_dict()
    torch.manual_seed(2)
    second, other = make(lora=True).model.state_dict(), make(lora=True, seed=7).model.state_dict()
    drawn = [name for name in first if "lora_A" in name]
    assert {type(module) for module in make(lora=True).model.modules() if isinstance(module, Linear)} == {FusedLinear}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert drawn and not any(torch.equal(first[name], other[name]) for name in drawn)
