"""What a model cannot take, ids beyond its embedding and positions that it does not have, is refused before scoring."""

from dataclasses import replace
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.forward import passes
from bdpo.pairs import PreferencePair, write_pairs
from bdpo.recipe.dryrun import dry_run
from bdpo.recipe.sections import parse_recipe
from bdpo.score import score, scoring, sources
from bdpo.tokens import tokenize_pair
from tiny import VOCABULARY, make_pairs, tiny_model, tiny_tokenizer

HI = ({"role": "user", "content": "Hi"},)
PAIRS = [*make_pairs(10), PreferencePair("last", HI, "Hello", "Go away")]


@pytest.fixture(autouse=True)
def no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forward pass may have begun, and no weight been hashed, when a pair is refused."""

    def begun(*args: object, **how: object) -> None:
        raise AssertionError("scoring has begun")

    for module, name in ((passes, "branch_logps"), (sources, "weights_hash"), (scoring, "claim")):
        monkeypatch.setattr(module, name, begun)


def larger_tokenizer():
    """Tokens up to id VOCABULARY, one more than the model has."""
    tokenizer = tiny_tokenizer()
    assert tokenizer.add_tokens([f"word{i}" for i in range(VOCABULARY + 1 - len(tokenizer))]) > 1
    assert tokenizer.convert_tokens_to_ids("word53") == VOCABULARY
    return tokenizer


@pytest.mark.parametrize("place", ["prompt", "chosen", "rejected"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_id_beyond_the_embedding_names_pair_and_token(place: str, architecture: str, tmp_path: Path) -> None:
    text = "say word53 to"
    unfit = replace(PAIRS[-1], **{place: ({"role": "user", "content": text},) if place == "prompt" else text})
    with pytest.raises(BdpoError, match=r"^Pair last: token 320 \('word53'\) is beyond the 320 rows of the model"):
        score(tiny_model(architecture), larger_tokenizer(), [*PAIRS[:-1], unfit], tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_the_last_row_of_the_embedding_is_taken(tmp_path: Path) -> None:
    fits = replace(PAIRS[-1], chosen="say word52 to")
    with pytest.raises(AssertionError, match="scoring has begun"):
        score(tiny_model(), larger_tokenizer(), [*PAIRS[:-1], fits], tmp_path / "scores")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_pair_longer_than_the_models_positions_is_named(architecture: str, tmp_path: Path) -> None:
    ids = tokenize_pair(tiny_tokenizer(), replace(PAIRS[-1], chosen="a" * 300))
    needed = len(ids.prompt_ids) + 302
    limit = {"n_positions" if architecture == "gpt2" else "max_position_embeddings": needed}
    long = [*PAIRS[:-1], replace(PAIRS[-1], chosen="a" * 300)]
    with pytest.raises(AssertionError, match="scoring has begun"):  # just fits
        score(tiny_model(architecture, **limit), tiny_tokenizer(), long, tmp_path / "scores", max_length=None)
    limit = {name: needed - 1 for name in limit}
    message = (
        rf"^Pair last: a prompt of {len(ids.prompt_ids)} tokens with a reply of 302 is longer than the {needed - 1} pos"
    )
    with pytest.raises(BdpoError, match=message):
        score(tiny_model(architecture, **limit), tiny_tokenizer(), long, tmp_path / "scores", max_length=None)
    with pytest.raises(AssertionError, match="scoring has begun"):  # the mend
        score(tiny_model(architecture, **limit), tiny_tokenizer(), long, tmp_path / "scores", max_length=needed - 1)


def test_a_reply_must_fit_behind_the_other_prompts_of_the_contrastive_estimator(tmp_path: Path) -> None:
    model = tiny_model(max_position_embeddings=400)
    prompts = [({"role": "user", "content": f"{i}{'b' * 300}"},) for i in range(9)]
    pairs = [replace(PAIRS[-1], id=f"p{i}", prompt=prompt) for i, prompt in enumerate(prompts)]
    pairs[4] = replace(pairs[4], prompt=HI, chosen="a" * 200)
    with pytest.raises(AssertionError, match="scoring has begun"):
        score(model, tiny_tokenizer(), pairs, tmp_path / "scores")
    with pytest.raises(BdpoError, match=r"^Pair p4: a prompt of 3\d\d tokens with a reply of 202 is longer than the"):
        score(model, tiny_tokenizer(), pairs, tmp_path / "scores", estimator="contrastive")


def test_positions_without_an_end_take_everything(tmp_path: Path) -> None:
    long = [replace(PAIRS[-1], chosen="a" * 5000)]
    with pytest.raises(AssertionError, match="scoring has begun"):
        score(tiny_model("mamba"), tiny_tokenizer(), long, tmp_path / "scores", max_length=None)


def test_a_dry_run_refuses_them_too(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    larger_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", [*PAIRS[:-1], replace(PAIRS[-1], chosen="say word53 to")])
    recipe = parse_recipe(
        {"model": {"name": str(tmp_path / "model")}, "data": {"train": str(tmp_path / "pairs.jsonl")}}
    )
    with pytest.raises(BdpoError, match="Pair last: token 320"):
        dry_run(recipe, tmp_path / "run")
