"""Secrets: known by name and by looks, refused in recipes, and never written, wherever they come from."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.endpoint import ChatEndpoint
from bdpo.pairs import write_pairs
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import Recipe, load_recipe, parse_recipe
from bdpo.secrets import is_secret, without_secrets
from bdpo.train import BDPOConfig
from plain_dpo import Make
from tiny import make_pairs, tiny_model, tiny_tokenizer

CANARY = "hf_CanaryCanaryCanaryCanary"
OTHER = "plain-words-of-mine"  # a secret by its name alone


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hub_token", OTHER), ("token", OTHER), ("HF_TOKEN", OTHER), ("wandb_api_key", OTHER), ("apiKey", CANARY),
        ("client_secret", OTHER), ("password", OTHER), ("name", CANARY), ("run_name", f"with {CANARY} in it"),
        ("db_passwd", OTHER), ("aws_secret_key", OTHER), ("credentials", OTHER), ("Authorization", OTHER),
        ("x", "Bearer abcdefgh12345678"), ("x", "-----BEGIN RSA PRIVATE KEY-----"), ("x", "xoxb-0123456789-abc"),
        ("x", "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl"), ("x", "pypi-AgEIcHlwaS5vcmcCJ"),
        ("x", "sk-proj-0123456789abcdef"), ("x", "ghp_0123456789abcdef0123"), ("x", "https://me:word@example.org/v1"),
    ],
)  # fmt: skip
def test_what_is_a_secret(name: str, value: object) -> None:
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 64), ("batch_tokens", "4096"), ("tokens_per_batch", 1), ("strip_control_tokens", True),
        ("eos_token", "<|im_end|>"), ("pad_token", "[PAD]"), ("hub_token", None), ("hub_token", ""),
        ("name", "hf_internal_testing/tiny_random_model"), ("x", "task-0123456789abcdefghij"),
        ("train", "hf://datasets/org/name@main"), ("include_num_input_tokens_seen", "all"),
    ],
)  # fmt: skip
def test_what_is_none(name: str, value: object) -> None:
    assert not is_secret(name, value)


def test_secrets_are_taken_out_at_any_depth() -> None:
    content = {"a": [{"api_key": OTHER, "n": 1}], "b": ("x", CANARY)}
    assert without_secrets(content) == {"a": [{"api_key": None, "n": 1}], "b": ("x", None)}


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"train": {"hub_token": OTHER}}, "train.hub_token"),
        ({"train": {"run_name": CANARY}}, "train.run_name"),
        ({"train": {"fsdp_config": {"deep": [CANARY]}}}, "train.fsdp_config.deep"),
        ({"model": {"name": f"https://me:{OTHER}@example.org/model"}}, "model.name"),
        ({"model": {"chat_template_kwargs": {"api_key": OTHER}}}, "model.chat_template_kwargs.api_key"),
        ({"password": OTHER}, "password"),
        ({"train": {CANARY: 1}}, "a key of train"),
    ],
)
def test_a_recipe_with_a_secret_is_refused_by_the_key_and_names_the_variable(
    tmp_path: Path, content: dict, key: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BdpoError, match=rf"recipe\.yaml: {re.escape(key)} is a secret.* HF_TOKEN") as refused:
        load_recipe(tmp_path / "recipe.yaml")
    assert OTHER not in str(refused.value) and CANARY not in str(refused.value)


@pytest.mark.parametrize("override", [f"train.hub_token={OTHER}", f"train={{hub_token: {OTHER}}}"])
def test_so_is_one_that_is_set(override: str) -> None:
    with pytest.raises(BdpoError, match=r"^--set: train\.hub_token is a secret.* HF_TOKEN") as refused:
        load_recipe(None, [override])
    assert OTHER not in str(refused.value)


def test_so_is_a_recipe_made_in_python(tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"train\.hub_token is a secret"):
        run_recipe(Recipe(train={"hub_token": OTHER}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def holding(folder: Path, *words: str) -> list[str]:
    """Files under a folder whose bytes hold one of the words."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [str(path) for path in files if any(word.encode() in path.read_bytes() for word in words)]


def test_a_token_given_in_python_is_used_and_not_written(make: Make, tmp_path: Path) -> None:
    trainer = make(hub_token=CANARY, save_strategy="steps", save_steps=1, max_steps=2, lora=True, run_name=OTHER)
    trainer.train()
    trainer.save_model()
    assert trainer.args.hub_token == CANARY
    assert (tmp_path / "run" / "training_args.bin").exists()
    assert holding(tmp_path, OTHER), "the search finds what is written"
    assert holding(tmp_path, CANARY) == []
    assert copy.copy(trainer.args).hub_token == CANARY and BDPOConfig(hub_token=OTHER).hub_token == OTHER


def test_a_secret_of_the_environment_is_in_nothing_that_a_run_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(6))
    content = {
        "model": {"name": str(tmp_path / "model")},
        "data": {"train": str(tmp_path / "pairs.jsonl")},
        "train": {"use_cpu": True, "disable_tqdm": True, "max_steps": 1, "save_steps": 1},
        "peft": {"r": 2},
    }
    run_recipe(parse_recipe(content), tmp_path / "run")
    assert holding(tmp_path, CANARY) == []


@pytest.mark.parametrize(
    "url", [f"https://me:{OTHER}@example.org/v1", f"http://{OTHER}@[::1]:8000/v1",
            f"https://example.org/v1?api_key={OTHER}", f"https://example.org/v1?x={CANARY}"]
)  # fmt: skip
def test_an_endpoint_with_a_secret_in_its_url_is_refused(url: str) -> None:
    with pytest.raises(BdpoError, match=r"password or key in it.* OPENAI_API_KEY") as refused:
        ChatEndpoint(url, "model")
    assert OTHER not in str(refused.value) and CANARY not in str(refused.value)
