"""Reasoning and the template's variables through a whole run: scoring, training, what is saved, evaluation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.pairs import write_pairs
from bdpo.recipe.data import read_data
from bdpo.recipe.dryrun import dry_run
from bdpo.recipe.parts import load_model, load_tokenizer
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import Recipe, parse_recipe
from bdpo.score import score
from families import QWEN3
from tiny import make_pairs, tiny_model, tiny_tokenizer

THOUGHT = "<think>\nLet me see.\n</think>\n\n"
CLOSED = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
ASKED = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model whose template is Qwen3's kind, and eight pairs, four of them with reasoning."""
    home = tmp_path_factory.mktemp("home")
    tiny_model().save_pretrained(home / "model")
    tiny_tokenizer(QWEN3).save_pretrained(home / "model")
    pairs = make_pairs(8)
    write_pairs(home / "pairs.jsonl", [*(replace(p, chosen=THOUGHT + p.chosen) for p in pairs[:4]), *pairs[4:]])
    return home


def recipe_in(home: Path, **sections: dict[str, Any]) -> Recipe:
    train = {"use_cpu": True, "disable_tqdm": True, "max_steps": 1, "learning_rate": 1e-3, "save_strategy": "no"}
    content: dict[str, Any] = {
        "model": {"name": str(home / "model")}, "data": {"train": str(home / "pairs.jsonl")}, "train": train,
    }  # fmt: skip
    return parse_recipe({name: {**values, **sections.get(name, {})} for name, values in content.items()})


NOT_THINKING: dict[str, Any] = {
    "model": {"chat_template_kwargs": {"enable_thinking": False}}, "data": {"reasoning": "drop"}
}  # fmt: skip


def test_keep_counts_reasoning_among_the_replys_tokens(home: Path, tmp_path: Path) -> None:
    recipe = recipe_in(home)
    data, loaded = read_data(recipe), load_model(recipe)
    assert data.counts == {}
    rows = score(loaded.model, loaded.tokenizer, data.train, tmp_path / "scores").rows
    said = [loaded.tokenizer.decode(ids) for ids in rows["chosen_ids"]]
    assert [text.startswith(THOUGHT) for text in said] == [True] * 4 + [False] * 4
    assert all(text.startswith("<think>\n\n</think>\n\n") for text in said[4:])


def test_what_is_said_of_the_template_holds_in_scoring_training_and_evaluation(home: Path, tmp_path: Path) -> None:
    recipe = recipe_in(home, **NOT_THINKING)
    result = run_recipe(recipe, tmp_path / "run")
    tokenizer = result.trainer.processing_class
    for prompt, chosen in zip(result.scores.rows["prompt_ids"], result.scores.rows["chosen_ids"], strict=True):
        assert tokenizer.decode(prompt).endswith(CLOSED) and "think" not in tokenizer.decode(chosen)
    assert tokenizer.decode(result.scores.manifest["key"]["null_prompt"]).endswith(CLOSED)
    assert "reasoning dropped" in (tmp_path / "run/README.md").read_text()

    saved = AutoTokenizer.from_pretrained(tmp_path / "run")  # a server of the run writes the same
    for kept in (saved, load_tokenizer(recipe), load_model(recipe).tokenizer):
        asked = kept.apply_chat_template(ASKED, add_generation_prompt=True)["input_ids"]
        assert kept.decode(asked).endswith(CLOSED)
        generator = LocalGenerator(tiny_model(), kept)
        assert generator.fingerprint(ASKED, "p") == LocalGenerator(tiny_model(), tokenizer).fingerprint(ASKED, "p")
    thinking = LocalGenerator(tiny_model(), tiny_tokenizer(QWEN3))
    assert thinking.fingerprint(ASKED, "p") != generator.fingerprint(ASKED, "p") and thinking.key != generator.key


def test_the_scores_key_changes_with_the_ids_alone(home: Path, tmp_path: Path) -> None:
    def key(name: str, **model: Any) -> dict[str, Any]:
        recipe = recipe_in(home, data={"reasoning": "drop"}, model=model)
        loaded = load_model(recipe)
        return score(loaded.model, loaded.tokenizer, read_data(recipe).train, tmp_path / name).manifest["key"]

    plain = key("plain")
    assert key("true", chat_template_kwargs={"enable_thinking": True}) == plain
    other = key("false", chat_template_kwargs={"enable_thinking": False})
    assert {name for name in plain if plain[name] != other[name]} == {"rows", "null_prompt"}


def test_a_dry_run_sees_the_same(home: Path, tmp_path: Path) -> None:
    assert dry_run(recipe_in(home), tmp_path).report.counts == {}
    dry = dry_run(recipe_in(home, **NOT_THINKING), tmp_path)
    assert dry.report.counts == {"changed: reasoning dropped": 4}
    with pytest.raises(BdpoError, match="has no variable 'enable_thinkin'"):
        dry_run(recipe_in(home, model={"chat_template_kwargs": {"enable_thinkin": False}}), tmp_path)
    with pytest.raises(BdpoError, match=r"data\.reasoning is 'maybe'"):
        recipe_in(home, data={"reasoning": "maybe"})
