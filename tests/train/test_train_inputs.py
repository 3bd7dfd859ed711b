"""The trainer: the models, adapters and raw pairs it takes."""

import copy
import gc
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

import bdpo.train.prepare
from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair
from bdpo.pairs.check import TEXT_PROMPTS
from bdpo.pairs.mend import OUTVOTED, REPEATED, TIED
from bdpo.score.folder import ScoredData
from bdpo.train import BDPOTrainer
from plain_dpo import (
    PAIRS,
    Make,
    slow_logp,
    trained,
)
from tiny import tiny_model, tiny_tokenizer


# --- models and adapters --------------------------------------------------------------------------------------------
def with_adapter(trainable: bool = True) -> Any:
    """A tiny model with an adapter that changes its output (as after SFT)."""
    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(tiny_model(), config)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and trainable)
    return model


def test_an_adapter_handed_in_is_trained_further_against_itself(make: Make) -> None:
    model = with_adapter()
    before = copy.deepcopy(model.state_dict())
    trainer = make(PAIRS, model, max_steps=2)
    row = trainer.train_dataset[0]
    with torch.no_grad():
        on = slow_logp(model, row["prompt_ids"], row["chosen_ids"]).item()
        with model.disable_adapter():
            off = slow_logp(model, row["prompt_ids"], row["chosen_ids"]).item()
    assert row["ref_chosen_logps"] == pytest.approx(on, abs=1e-3) != pytest.approx(off, abs=0.5)
    losses, _ = trained(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}


def test_text_prompts_for_a_chat_model_are_warned_of(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(bdpo.train.prepare.logger, "warning", lambda text, *args: said.append(text))
    make([PreferencePair(f"t{i}", f"{i} is", " odd", " even") for i in range(3)], max_steps=1)
    assert f"train_dataset: {TEXT_PROMPTS}" in said
    said.clear()
    make(PAIRS, max_steps=1, scores_dir=str(tmp_path / "chat"))
    assert not any(TEXT_PROMPTS in text for text in said)


def test_a_second_adapter_is_refused(make: Make) -> None:
    with pytest.raises(BdpoError, match="already carries an adapter"):
        make(PAIRS, with_adapter(), lora=True)


def test_a_model_without_trainable_weights_is_refused(make: Make) -> None:
    with pytest.raises(BdpoError, match="No weight of the model is trainable"):
        make(PAIRS, with_adapter(trainable=False))


def test_a_model_may_be_a_name(make: Make, tmp_path: Path, scores: ScoredData) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    named = BDPOTrainer(
        str(tmp_path / "model"), args=make().args, train_dataset=scores, processing_class=None
    )  # fmt: skip
    assert trained(named)[0] == pytest.approx(trained(make())[0], abs=1e-6)


def test_no_reference_model_is_in_memory(make: Make) -> None:
    def models_alive() -> int:
        gc.collect()
        return sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())

    model = tiny_model()
    before, size = models_alive(), sum(p.numel() for p in model.parameters())
    trainer = make(PAIRS, model, max_steps=2)
    trainer.train()
    assert models_alive() == before
    assert sum(p.numel() for p in trainer.model.parameters()) == size
    held = [value for value in vars(trainer).values() if isinstance(value, torch.nn.Module)]
    assert all(module is model for module in held)


# --- raw pairs ---------------------------------------------------------------------------------------------------
def said(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def asked(pair: PreferencePair) -> list[dict]:
    return [dict(message) for message in pair.prompt]


CONVERSATIONS = {
    "pairs": lambda pairs: pairs,
    "dicts": lambda pairs: [
        {"prompt": asked(p), "chosen": said(p.chosen), "rejected": said(p.rejected)} for p in pairs
    ],
    "explicit": lambda pairs: Dataset.from_list(CONVERSATIONS["dicts"](pairs)),
    "implicit": lambda pairs: Dataset.from_list(
        [{side: asked(p) + said(getattr(p, side)) for side in ("chosen", "rejected")} for p in pairs]
    ),
}


@pytest.mark.parametrize("shape", CONVERSATIONS)
def test_raw_conversations_are_scored_first_in_every_shape(make: Make, scores: ScoredData, shape: str) -> None:
    rows = make(CONVERSATIONS[shape](PAIRS)).train_dataset.rows
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert list(rows[name]) == list(scores.rows[name])
    assert list(rows["chosen_mi"]) == pytest.approx(list(scores.rows["chosen_mi"]))


def test_raw_pairs_are_mended_with_a_warning_and_scored_ones_are_as_they_were(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(bdpo.train.prepare.logger, "warning", lambda text, *args: heard.append(text))

    def turned(pair: PreferencePair, name: str) -> PreferencePair:
        return replace(pair, id=name, chosen=pair.rejected, rejected=pair.chosen)

    first, second, third, fourth = PAIRS[:4]
    annotated = [
        *PAIRS[:4], replace(first, id="again"), turned(second, "tied"), turned(third, "outvoted"),
        replace(third, id="third"),
    ]  # fmt: skip
    wanted = list(make([first, third, fourth]).train_dataset.rows["chosen_ids"])
    for shape in ("pairs", "dicts"):
        heard.clear()
        trainer = make(CONVERSATIONS[shape](annotated), scores_dir=str(tmp_path / shape))
        assert list(trainer.train_dataset.rows["chosen_ids"]) == wanted
        assert {text for text in heard if " rows dropped" in text} == {
            f"train_dataset: 2 rows {REPEATED}", f"train_dataset: 2 rows {TIED}", f"train_dataset: 1 rows {OUTVOTED}",
        }  # fmt: skip
    with pytest.raises(BdpoError, match="train_dataset: no pair is left of 2"):
        make([second, turned(second, "tied")])


@pytest.mark.parametrize("explicit", [True, False])
def test_raw_plain_text_is_scored_first_with_and_without_a_prompt_column(make: Make, explicit: bool) -> None:
    texts = [("The sky is", " blue.", " green."), ("Bread needs", " time and salt.", " no.")]
    rows = [
        {"prompt": x, "chosen": c, "rejected": r} if explicit else {"chosen": x + c, "rejected": x + r}
        for x, c, r in texts
    ]
    trainer = make(Dataset.from_list(rows), per_device_train_batch_size=2, max_steps=2)
    tokenizer, row = tiny_tokenizer(), trainer.train_dataset[0]
    whole = tokenizer.decode(row["prompt_ids"] + row["chosen_ids"])
    assert whole == "The sky is blue." + tokenizer.eos_token
    assert trained(trainer)[0][0] == pytest.approx(math.log(2), abs=1e-6)
