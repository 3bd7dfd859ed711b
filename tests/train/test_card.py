"""The card that BDPOTrainer writes beside the weights: what it says and what it warns of."""

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from bdpo.method.balance import balance
from bdpo.score.folder import ScoredData
from bdpo.train.card import NO_BASE, Told, cautioned, model_card
from bdpo.train.options import MethodOptions
from plain_dpo import Make
from tiny import tiny_model


def card_in(folder: Path) -> tuple[dict[str, Any], str]:
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_save_model_writes_the_card_of_what_was_trained(make: Make, held_out: ScoredData, tmp_path: Path) -> None:
    trainer = make(lora=True, eval=held_out, weighting="ratio", balance_scale=False, max_steps=2)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(tmp_path / "saved"))
    head, text = card_in(tmp_path / "saved")
    assert head["library_name"] == "peft" and head["tags"] == ["bdpo", "dpo", "safety"]
    assert "aligned with DPO + balancing weights alone" in text and "21 pairs from `" in text
    assert f"held-out loss | {loss:.4g} |" in text and "More Information Needed" not in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["peft"]["r"] == 4 and settings["train"]["max_steps"] == 2
    assert settings["balance"]["weighting"] == "ratio" and settings["loss"]["name"] == "dpo"
    assert "It was not evaluated" in text and "## Loading" in text


def test_a_card_and_a_checkpoint_have_no_path_of_this_machine(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "base"
    here.mkdir()
    model = tiny_model()
    model.name_or_path = model.config._name_or_path = str(here)
    trainer = make(model=model, lora=True, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    assert not (tmp_path / "run/checkpoint-1/README.md").exists()
    monkeypatch.setattr(logging.getLogger("bdpo"), "propagate", True)
    trainer.save_model(_internal_call=True)  # as push_to_hub begins
    trainer.create_model_card()
    head, text = card_in(tmp_path / "run")
    assert "base_model" not in head and NO_BASE in text and "# base, aligned" in text and str(tmp_path) not in text
    assert "names its base by a folder of this machine" in caplog.text


@pytest.mark.parametrize(
    ("base", "name"), [("starter", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("org/base", "org/base"), ("/x/y", None)]
)
def test_the_base_of_a_card_is_what_the_hub_calls_it(base: str, name: str | None, held_out: ScoredData) -> None:
    told = Told(
        label="/x/y", base=base, options=MethodOptions(), data="/home/me/pairs.jsonl", manifest=held_out.manifest,
        balance=balance([0.0, 1.0], [1.0, 0.5]), metrics={}, adapter=True,
        settings={"train": {"deepspeed": "/home/me/zero3.json", "seed": 1, "report_to": ["none"]}},
    )  # fmt: skip
    card = model_card(told)
    assert yaml.safe_load(card.split("---\n", 2)[1]).get("base_model") == name and (NO_BASE in card) == (name is None)
    assert "/home/me" not in card and "deepspeed: zero3.json" in card and "seed: 1" in card and "# y, aligned" in card


def test_what_was_not_trained_says_so_and_whole_weights_are_of_transformers(
    make: Make, held_out: ScoredData, tmp_path: Path
) -> None:
    trainer = make(eval=held_out)
    trainer.evaluate()  # every log-ratio is 0
    trainer.create_model_card("en", license="apache-2.0")  # as push_to_hub calls it
    head, text = card_in(tmp_path / "run")
    assert head["license"] == "apache-2.0" and head["library_name"] == "transformers"
    assert "Training hardly moved it" in text and "## Loading" not in text


def test_cautions_are_of_what_is_known_now() -> None:
    card = "---\ntags: [x]\n---\n\n# Title\n\nText.\n"
    first = cautioned(card, {"eval_logratios/chosen": 0.009, "eval_logratios/rejected": -0.009}, asked=False)
    assert first.count("**Caution.**") == 2 and first.index("# Title") < first.index("It was not evaluated")
    assert cautioned(first, {"eval_logratios/chosen": 0.011}, asked=True) == card
