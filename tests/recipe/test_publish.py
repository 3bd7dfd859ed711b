"""What is sent to the hub, and what the card says; the hub itself is a stub."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, claim_run
from bdpo.models.gguf import STARTER_FOLDER
from bdpo.recipe.publish import card_for_hub, publication, publish
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe
from bdpo.train.card import NO_BASE
from tiny import Bdpo, furnish


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
    home = str(run.parent)
    assert home in (run / "adapter_config.json").read_text()
    for name, content in sent["files"].items():
        content = content if isinstance(content, bytes) else Path(content).read_bytes()
        assert home.encode() not in content and str(Path.home()).encode() not in content, name
    assert json.loads(sent["files"]["adapter_config.json"])["base_model_name_or_path"] == "./model"
    with pytest.raises(BdpoError, match="'mine' is no name on the hub: write ORG/NAME"):
        publish(made, "mine")


def test_a_card_says_what_is_not_known(run: Path) -> None:
    made = publication(run)
    card = made.card
    assert made.license == "mit", "as beside the base"
    assert "**Caution.** It was not evaluated" in card and "hardly moved" not in card and "model-index" not in card
    still = card_for_hub((run / "README.md").read_text(), {"eval_logratios/chosen": 1e-4}, None)
    assert "Training hardly moved it" in still


def test_the_base_is_named_as_on_the_hub_or_not_at_all(run: Path, tmp_path: Path, bdpo_: Bdpo) -> None:
    _, said, _ = bdpo_("push", str(run), "org/mine", "--dry-run")
    assert "Base model, for the card: not known, since it lay in a folder; --base ORG/NAME sets it." in said
    assert "sent as './model', and no loader finds it: name its repository with --base ORG/NAME, or hand on" in said
    made = publication(run)
    assert "base_model" not in head_of(made.card) and NO_BASE in made.card
    made = publication(run, base="org/base")
    assert made.base == "org/base" and NO_BASE not in made.card and made.lost is None
    assert (made.adapter["base_model_name_or_path"], made.adapter["revision"]) == ("org/base", None)
    with pytest.raises(BdpoError, match="'base' is no name on the hub"):
        publication(run, base="base")
    # as trained on a machine that called it so
    other = shutil.copytree(run, tmp_path / "run", ignore=lambda *_: ["checkpoint-1", "checkpoint-2"])
    config = json.loads((other / "adapter_config.json").read_text())
    starters = f"/home/me/.cache/bdpo/models/{STARTER_FOLDER}"
    for named, sent, base in (("org/base", "org/base", "org/base"), (starters, STARTER_FOLDER, None)):
        (other / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": named}))
        made = publication(other)
        assert (made.adapter["base_model_name_or_path"], made.base) == (sent, base)
    assert "bdpo alone finds it: for vLLM and PEFT hand on plain weights (bdpo merge" in str(made.lost)


def test_a_path_in_an_older_card_stays_here(run: Path) -> None:
    card = (run / "README.md").read_text().replace("library_name:", "base_model: /home/me/x\nlibrary_name:", 1)
    assert "/home/me" not in card_for_hub(card, {}, None)
    on_the_hub = card.replace("/home/me/x", "org/base").replace(NO_BASE, "")
    assert head_of(card_for_hub(on_the_hub, {}, None))["base_model"] == "org/base"


def test_another_evaluation_or_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match="did not ask"):
        publication(run, evaluation=asked(tmp_path / "evaluation", tmp_path))
    with pytest.raises(BdpoError, match="holds no finished run"):
        publication(tmp_path)
