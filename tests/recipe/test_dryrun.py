"""The dry run: what it says of steps, weights and refusals is what the run does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, TrainerCallback

from bdpo.errors import BdpoError
from bdpo.models import names
from bdpo.recipe.dryrun import dry_run
from bdpo.recipe.memory import training_memory
from bdpo.recipe.run import run_recipe
from bdpo.recipe.sections import Recipe, parse_recipe
from tiny import furnish, tiny_model, tiny_tokenizer

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    furnish(home, pairs=21)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        yield home


def recipe_in(home: Path, **sections: Any) -> Recipe:
    content: dict[str, Any] = {
        "model": {"name": str(home / "model")},
        "data": {"train": str(home / "pairs.jsonl")},
        "train": {"use_cpu": True, "disable_tqdm": True, "per_device_train_batch_size": 4, "save_strategy": "no",
                  "gradient_accumulation_steps": 2},
    }  # fmt: skip
    return parse_recipe({name: {**content.get(name, {}), **sections.get(name, {})} for name in {*content, *sections}})


class Plan(TrainerCallback):
    """Notes how many steps Trainer plans, and stops before the first."""

    steps = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps = state.max_steps
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"num_train_epochs": 1}, 3),
        ({"num_train_epochs": 1.5}, 5),  # Trainer rounds 4.5 up
        ({"num_train_epochs": 2, "dataloader_drop_last": True}, 4),
        ({"max_steps": 7}, 7),
    ],
)
def test_the_steps_are_those_that_trainer_plans(home: Path, tmp_path: Path, train: dict, expected: int) -> None:
    recipe = recipe_in(home, train=train)
    assert dry_run(recipe, tmp_path / "run").steps == expected
    plan = Plan()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, tmp_path / "run", callbacks=[plan])
    assert plan.steps == expected


def test_the_largest_micro_batch_is_one_that_will_be_met(home: Path, tmp_path: Path) -> None:
    from bdpo.recipe.data import read_data
    from bdpo.recipe.parts import token_lengths

    def tokens(**train: Any) -> int:
        return dry_run(recipe_in(home, train=train), tmp_path).shape.tokens

    recipe = recipe_in(home)
    lengths = token_lengths(recipe, tiny_tokenizer(), read_data(recipe).train)
    totals = sorted(map(sum, lengths))
    assert tokens(per_device_train_batch_size=1) == totals[-1]
    assert tokens(per_device_train_batch_size=21, gradient_accumulation_steps=1) == sum(totals)
    by_seed = {seed: tokens(data_seed=seed) for seed in (1, 2, 3, 4)}
    assert len(set(by_seed.values())) > 1 and by_seed[3] == tokens(seed=3)
    budget = totals[-1] + 10
    assert totals[-1] <= tokens(tokens_per_batch=budget) <= budget < tokens()
    with pytest.raises(BdpoError, match="No batch can be made"):
        tokens(per_device_train_batch_size=32, dataloader_drop_last=True)


@pytest.fixture(scope="module")
def adapter(home: Path) -> Path:
    return run_recipe(recipe_in(home, peft=LORA, train={"max_steps": 1}), home / "adapter").out


@pytest.mark.parametrize("kind", ["full", "lora", "adapter"])
def test_the_counts_of_weights_are_those_of_the_trainer(home: Path, adapter: Path, tmp_path: Path, kind: str) -> None:
    sections: dict[str, Any] = {"full": {}, "lora": {"peft": LORA}, "adapter": {"model": {"name": str(adapter)}}}[kind]
    recipe = recipe_in(home, train={"max_steps": 1}, **sections)
    dry = dry_run(recipe, tmp_path / "run")
    model = run_recipe(recipe, tmp_path / "run").trainer.model
    base = sum(p.numel() for p in tiny_model().parameters())
    assert dry.shape.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert dry.shape.parameters == base and (dry.shape.trainable < base / 10) == (kind != "full")
    assert dry.memory == training_memory(
        dry.shape, weights="float32", compute="float32", checkpointing=False, adapter=kind != "full", cpu=True
    )


def test_a_second_adapter_and_one_that_does_not_fit_are_refused_as_in_the_run(
    home: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(BdpoError, match="already carries an adapter"):
        dry_run(recipe_in(home, model={"name": str(adapter)}, peft=LORA), tmp_path)
    with pytest.raises(BdpoError, match="does not fit the model"):
        dry_run(recipe_in(home, peft={"target_modules": ["nowhere"]}), tmp_path)


@pytest.mark.parametrize(
    ("model", "train", "weights", "compute"),
    [
        ({}, {"bf16": True}, "float32", "bfloat16"),
        ({}, {"fp16": True}, "float32", "float16"),
        ({"dtype": "bfloat16"}, {}, "bfloat16", "bfloat16"),
        ({"dtype": "auto"}, {}, "float32", "float32"),  # as stored
    ],
)
def test_the_memory_is_that_of_the_dtypes_asked_for(
    home: Path, tmp_path: Path, model: dict, train: dict, weights: str, compute: str
) -> None:
    dry = dry_run(recipe_in(home, model=model, train=train), tmp_path)
    assert dry.memory == training_memory(
        dry.shape, weights=weights, compute=compute, checkpointing=False, adapter=False, cpu=True
    )


def test_the_revision_is_that_of_the_recipe(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def from_hub(name: str, revision: str | None, weights: bool = True) -> Path:
        asked.append((name, revision))
        return home / "model"

    monkeypatch.setattr(names, "_from_hub", from_hub)
    dry_run(recipe_in(home, model={"name": "some/model", "revision": "v2"}), tmp_path)
    assert set(asked) == {("some/model", "v2")}


def test_an_adapter_with_a_larger_vocabulary_is_counted_with_its_rows(home: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(home / "model")
    model.resize_token_embeddings(330)
    get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    dry = dry_run(recipe_in(home, model={"name": str(tmp_path / "adapter")}, train={"max_steps": 1}), tmp_path / "run")
    rows = 330 - tiny_model().config.vocab_size
    assert dry.shape.parameters == sum(p.numel() for p in tiny_model().parameters()) + rows * 2 * 32


def test_a_kernel_that_is_not_installed_is_said_by_the_dry_run_as_by_the_run(home: Path, tmp_path: Path) -> None:
    recipe = recipe_in(home, model={"attn_implementation": "flash_attention_2"})
    for ask in (dry_run, run_recipe):
        with pytest.raises(BdpoError, match=r"Cannot load the model in .*: FlashAttention2 .* installed"):
            ask(recipe, tmp_path / "run")
