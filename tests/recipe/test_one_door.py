"""One door to stage 1: the same data through a recipe, the command and Python gives the same scored folder."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from bdpo import models
from bdpo.pairs import load_pairs, write_pairs
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import parse_recipe
from bdpo.score import ESTIMATORS, ScoringOptions, score
from bdpo.train import BDPOConfig, BDPOTrainer
from tiny import make_pairs, tiny_model, tiny_tokenizer


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(12))
    write_pairs(tmp_path / "held.jsonl", make_pairs(10, seed=1))
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a scored folder but the memory-mapped copy, which may be removed."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".arrow" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_recipe_and_python_score_alike_byte_for_byte(home: Path, estimator: str, seed: int | None) -> None:
    seeded = {} if seed is None else {"seed": seed}
    data = {"train": str(home / "pairs.jsonl"), "eval": str(home / "held.jsonl"), "max_length": 90, **seeded}
    shared = {"use_cpu": True, "disable_tqdm": True, "max_steps": 1, "save_strategy": "no"}
    recipe = parse_recipe(
        {
            "model": {"name": str(home / "model")},
            "data": data,
            "score": {"estimator": estimator, "dir": str(home / "by-recipe")},
            "train": {**shared, "seed": 7},
        }
    )
    run_recipe(recipe, home / "run")
    BDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(home / "model"),
        args=BDPOConfig(
            output_dir=str(home / "python"), scores_dir=str(home / "by-python"), estimator=estimator, max_length=90,
            report_to="none", **{f"score_{key}": value for key, value in seeded.items()}, **shared,
        ),
        train_dataset=load_pairs(str(home / "pairs.jsonl")).pairs,
        eval_dataset=load_pairs(str(home / "held.jsonl")).pairs,
        processing_class=AutoTokenizer.from_pretrained(home / "model"),
    )  # fmt: skip
    loaded = models.load(home / "model")
    pairs = load_pairs(str(home / "pairs.jsonl")).pairs
    options = ScoringOptions(estimator, max_length=90, **seeded)
    score(loaded.model, loaded.tokenizer, pairs, home / "alone" / "directly", options)
    by_recipe = contents(home / "by-recipe")
    assert {"manifest.json", "data/part-00000.parquet"} <= set(by_recipe)
    assert by_recipe == contents(home / "by-python" / "train") == contents(home / "alone" / "directly")
