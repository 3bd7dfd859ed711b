"""Loading is strict: a tensor that is missing, unexpected or of another shape is named, and nothing is made up."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.pool import models_sharing_base
from bdpo.models import load, whole_model
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 50, 60, 70, 2]])
UP = "model.layers.0.mlp.up_proj.weight"
Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def saved(folder: Path, **config: Any) -> Path:
    tiny_model(**config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def adapter_on(base: Path, folder: Path, *, vocabulary: int | None = None, **config: Any) -> Any:
    """Save an adapter of `base`, its vocabulary resized first; returns the model as it was trained."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(0)
    if vocabulary is not None:
        model.resize_token_embeddings(vocabulary)
    lora = LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False, **config})
    model = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "modules_to_save" in name or "trainable_tokens" in name:
                weights += 0.1
    model.save_pretrained(folder)
    return model


def edit(file: Path, *, without: tuple[str, ...] = (), **added: torch.Tensor) -> None:
    tensors = load_file(file)
    for name in without:
        del tensors[name]
    save_file(tensors | {name.replace("__", "."): tensor for name, tensor in added.items()}, file, {"format": "pt"})


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model.eval()(input_ids=ids).logits


# --- models --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"without": (UP,)}, rf"base lacks {UP}: copy its files again"),
        ({"without": ("lm_head.weight",)}, r"base lacks lm_head\.weight: copy"),
        ({"extra": torch.zeros(2)}, "base holds extra, which its config.json does not ask for"),
        ({"model__norm__weight": torch.zeros(2)}, r"norm\.weight with shape \(2,\) where .* asks for \(32,\)"),
    ],
    ids=["missing", "no head", "unexpected", "shape"],
)
def test_a_model_file_with_other_tensors_is_refused_by_name_and_nothing_else_is_said(
    change: dict, says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = saved(tmp_path / "base")
    edit(base / "model.safetensors", **change)
    with pytest.raises(BdpoError, match=says) as refused:
        load(base)
    assert "\n" not in str(refused.value) and not caplog.records


@pytest.mark.parametrize("kind", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_in_place_of_fractions_are_refused_by_name(tmp_path: Path, kind: torch.dtype) -> None:
    base = saved(tmp_path / "base")
    adapter_on(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    called = {torch.int8: "I8", torch.int64: "I64", torch.uint8: "U8", torch.bool: "BOOL"}[kind]
    for folder, file, name in (
        (tmp_path / "adapter", "adapter_model.safetensors", Q),
        (tmp_path / "adapter", "adapter_model.safetensors", "base_model.model.lm_head.weight"),
        (base, "model.safetensors", UP),
    ):
        before = (folder / file).read_bytes()
        edit(folder / file, **{name.replace(".", "__"): load_file(folder / file)[name].to(kind)})
        with pytest.raises(BdpoError) as refused:
            load(folder)
        assert (
            f"{folder} holds {name.removeprefix('base_model.model.')} as whole numbers ({called}) where the model has "
            "fractions: save the weights in float32"
        ) in str(refused.value)
        (folder / file).write_bytes(before)
    load(tmp_path / "adapter")


def test_of_many_missing_tensors_three_are_named(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    gone = tuple(name for name in load_file(base / "model.safetensors") if "layers.1" in name)
    edit(base / "model.safetensors", without=gone)
    with pytest.raises(BdpoError, match=rf"lacks model\.layers\.1\.[^ ]+, [^ ]+, [^ ]+ and {len(gone) - 3} more: copy"):
        load(base)


def test_a_tied_head_may_be_missing(tmp_path: Path) -> None:
    base = saved(tmp_path / "base", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(base / "model.safetensors")
    assert torch.equal(logits(load(base).model), logits(tiny_model(tie_word_embeddings=True)))


def test_a_judge_without_its_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match=r"lacks score\.weight: copy its files again"):
        whole_model(saved(tmp_path / "base", tie_word_embeddings=True), AutoModelForSequenceClassification)


def test_a_pickle_that_holds_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    base = saved(tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}))
    with pytest.raises(BdpoError, match=r"base: the pickle is damaged or holds more than tensors.* safetensors") as no:
        load(base)
    assert "weights_only" not in str(no.value)


# --- adapters ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"without": (Q,)}, r"adapter lacks model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight: copy its files again"),
        ({"extra": torch.zeros(2)}, "adapter holds extra, which its adapter_config.json does not ask for"),
    ],
    ids=["missing", "unexpected"],
)
def test_an_adapter_with_other_tensors_is_refused_by_name_alone_and_on_a_shared_base(
    change: dict, says: str, tmp_path: Path
) -> None:
    base = saved(tmp_path / "base")
    adapter_on(base, tmp_path / "adapter")
    edit(tmp_path / "adapter" / "adapter_model.safetensors", **change)
    for load_it in (
        lambda: load(tmp_path / "adapter"),
        lambda: list(models_sharing_base([base, tmp_path / "adapter"])),
    ):
        with pytest.raises(BdpoError, match=says) as refused:
            load_it()
        assert "\n" not in str(refused.value)


def test_an_adapter_without_a_module_that_it_replaces_or_without_weights_is_refused(tmp_path: Path) -> None:
    base, file = saved(tmp_path / "base"), tmp_path / "adapter" / "adapter_model.safetensors"
    adapter_on(base, file.parent, modules_to_save=["lm_head"])
    edit(file, without=("base_model.model.lm_head.weight",))
    with pytest.raises(BdpoError, match=r"adapter lacks lm_head\.weight: copy its files again"):
        load(file.parent)
    file.unlink()
    with pytest.raises(BdpoError, match=r"adapter has no weights \(adapter_model.safetensors\)"):
        load(file.parent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "MAGIC"}, "Unknown peft_type in .*MAGIC"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path is 3 and must be text"),
    ],
)
def test_an_unknown_kind_of_adapter_and_a_base_that_is_no_name_are_one_sentence(
    change: dict, says: str, tmp_path: Path
) -> None:
    adapter_on(saved(tmp_path / "base"), tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(BdpoError, match=says):
        load(tmp_path / "adapter")


# --- a vocabulary that was resized before training -----------------------------------------------------------------
LARGER = VOCABULARY + 10


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, False),
        ({}, True),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, False),
        ({"trainable_token_indices": [LARGER - 1]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, True),
    ],
    ids=["lora", "tied", "modules to save", "trainable tokens", "lora on the tied embedding"],
)
def test_an_adapter_trained_with_a_larger_vocabulary_resizes_its_base(
    config: dict, tied: bool, trainable: bool, tmp_path: Path
) -> None:
    base = saved(tmp_path / "base", tie_word_embeddings=tied)
    trained = adapter_on(base, tmp_path / "adapter", vocabulary=LARGER, **config)
    ids = torch.tensor([[1, LARGER - 1, 60, LARGER - 10, 2]])
    loaded = load(tmp_path / "adapter", trainable_adapter=trainable).model
    assert loaded.config.vocab_size == LARGER and logits(loaded, ids).shape[-1] == LARGER
    assert torch.equal(logits(loaded, ids), logits(trained, ids))
    assert trainable == any(p.requires_grad for name, p in loaded.named_parameters() if "lora_" in name)


@pytest.mark.parametrize(("target", "lacking"), [("embed_tokens", "head"), ("lm_head", "embedding")])
def test_an_adapter_with_half_of_a_larger_vocabulary_is_refused(target: str, lacking: str, tmp_path: Path) -> None:
    adapter_on(saved(tmp_path / "base"), tmp_path / "adapter", vocabulary=LARGER, target_modules=["q_proj", target])
    says = (
        rf"a vocabulary of {LARGER} tokens, its base has {VOCABULARY}, and it does not hold the larger {lacking}: train"
    )
    with pytest.raises(BdpoError, match=says):
        load(tmp_path / "adapter")


def test_an_adapter_of_another_base_says_which_tensor_does_not_fit(tmp_path: Path) -> None:
    adapter_on(saved(tmp_path / "base", hidden_size=16), tmp_path / "adapter")
    saved(tmp_path / "base")
    with pytest.raises(
        BdpoError, match=r"Cannot load the model in .*adapter: .* size mismatch for .*lora_A"
    ) as refused:
        load(tmp_path / "adapter")
    assert "\n" not in str(refused.value)
