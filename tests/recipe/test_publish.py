"""What is sent to the hub, and what the card says; the hub itself is a stub."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.recipe.publish import card_for_hub, publication, publish
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe
from tiny import furnish


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=8, held=4)
    (home / "model/README.md").write_text("---\nlicense: mit\n---\n\nThe base.\n")
    said = [f"model.name={home / 'model'}", f"data.train={home / 'pairs.jsonl'}", f"data.eval={home / 'held.jsonl'}",
            f"score.dir={home / 'scores'}", "peft={r: 2}", "train.max_steps=2", "train.learning_rate=1e-2",
            "train.save_steps=1", "train.use_cpu=true", "train.disable_tqdm=true"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        run_recipe(load_recipe(None, said), home / "run")
    return home / "run"


def head_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n", 2)[1])


def asked(folder: Path, model: Path) -> Path:
    """An evaluation of four prompts, three of them refused."""
    found = claim_run(folder, "mine", str(model), "mine", {"weights": "x"})
    found = found.with_tasks({"strongreject": TaskRecord("safety", "refused", 4, {"prompts": "4", "judge": "rules 2"})})
    found.append("strongreject", [Outcome(f"p{i}", 0, "", "?", "!", "end", 1, float(i > 0)) for i in range(4)])
    return folder


def test_weights_and_card_are_sent_and_nothing_of_the_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}

    class Hub:
        def create_repo(self, name: str, **how: Any) -> str:
            sent.update(name=name, **how)
            return f"https://example.org/{name}"

        def create_commit(self, name: str, operations: list[Any], commit_message: str) -> None:
            sent["files"] = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    made = publication(run, evaluation=asked(tmp_path / "evaluation", run), license="apache-2.0")
    assert publish(made, "org/mine", private=True) == "https://example.org/org/mine"
    assert sent["name"] == "org/mine" and sent["private"] is True
    assert set(sent["files"]) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert {"checkpoint-1", "training_args.bin", "heldout.parquet", "run.json", "metrics.json"} <= {
        path.name for path in run.iterdir()
    }
    head = head_of(made.card)
    [result] = head["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["value"], head["license"]) == (
        "strongreject",
        75.0,
        "apache-2.0",
    )
    assert (
        str(run.parent) not in made.card.split("## Data")[1].split("##")[0] and "pairs from `pairs.jsonl`" in made.card
    )
    with pytest.raises(BdpoError, match="'mine' is no name on the hub: write ORG/NAME"):
        publish(made, "mine")


def test_a_card_says_what_is_not_known(run: Path) -> None:
    made = publication(run)
    card = made.card
    assert made.license == "mit", "as beside the base"
    assert "**Caution.** It was not evaluated" in card and "hardly moved" not in card and "model-index" not in card
    still = card_for_hub((run / "README.md").read_text(), {"eval_logratios/chosen": 1e-4}, None)
    assert "Training hardly moved it" in still


def test_another_evaluation_or_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match="did not ask"):
        publication(run, evaluation=asked(tmp_path / "evaluation", tmp_path))
    with pytest.raises(BdpoError, match="holds no finished run"):
        publication(tmp_path)
