"""The card that BDPOTrainer writes beside the weights: what it says and what it warns of."""

from pathlib import Path
from typing import Any

import yaml

from bdpo.score.folder import ScoredData
from bdpo.train.card import cautioned
from plain_dpo import Make


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
