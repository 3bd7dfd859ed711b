"""A model spread over the CPU and the disk has the numbers of the model in one piece."""

from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.models import is_spread, load, weights_hash
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import load_recipe
from bdpo.score import score
from tiny import furnish, make_pairs

SPREAD = {"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu", "model.norm": "disk",
          "model.rotary_emb": "cpu", "lm_head": "disk"}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=2)
    return home


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BDPO_CACHE", str(home / "cache"))


def test_scores_and_replies_are_those_of_the_model_in_one_piece(home: Path, tmp_path: Path) -> None:
    whole, spread = load(home / "model"), load(home / "model", device_map=SPREAD)
    assert is_spread(spread.model) and not is_spread(whole.model)
    on_disk = [name for name, weight in spread.model.named_parameters() if weight.device.type == "meta"]
    assert any("layers.0" in name for name in on_disk) and "lm_head.weight" in on_disk
    assert weights_hash(spread.model) == weights_hash(whole.model)
    pairs = make_pairs(6)
    rows = [score(of.model, of.tokenizer, pairs, tmp_path / name).rows for name, of in (("a", whole), ("b", spread))]
    for column in ("ref_chosen_logps", "ref_rejected_logps", "chosen_mi", "rejected_mi"):
        assert rows[1][column] == pytest.approx(rows[0][column], abs=1e-5)
    prompts = {pair.id: list(pair.prompt) for pair in pairs[:3]}
    said = [LocalGenerator(of.model, of.tokenizer, 2).replies(prompts, Sampling(4)) for of in (whole, spread)]
    assert said[0] == said[1] and len(said[0]) == 3


def test_a_map_that_is_none_and_training_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"model.device_map is 'atuo': take auto, balanced"):
        load(home / "model", device_map="atuo")
    recipe = load_recipe(None, ["model.device_map=auto", f"model.name={home / 'model'}"])
    with pytest.raises(BdpoError, match="device_map is for bdpo score and bdpo evaluate"):
        run_recipe(recipe, tmp_path / "run")
