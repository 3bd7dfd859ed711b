"""Merging: plain weights that, read again from disk, are the adapter on its base, or nothing at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

import bdpo.models.merging
from bdpo.errors import BdpoError
from bdpo.models import load, merge
from tiny import VOCABULARY, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 50, 60, 70, 2]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def adapter_on_tied(
    tmp_path: Path, *, vocabulary: int | None = None, architecture: str = "llama", **config: Any
) -> Path:
    """An adapter of a model whose head shares the embedding's weights; its B and its modules are not those of W."""
    base = tmp_path / "base"
    tiny_model(architecture, tie_word_embeddings=True).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    if vocabulary is not None:
        model.resize_token_embeddings(vocabulary)
    torch.manual_seed(0)
    lora = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    model = get_peft_model(model, LoraConfig(**(lora | config)))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "modules_to_save" in name or "trainable_tokens" in name:
                weights += torch.randn_like(weights) / 10
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False),
        ({"target_modules": ["embed_tokens", "lm_head"]}, False),
        ({"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}, True),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"modules_to_save": ["embed_tokens"]}, False),
        ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
        ({"trainable_token_indices": [50, 60]}, True),
        ({"vocabulary": VOCABULARY + 8}, True),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else str(value),
)
def test_a_tied_head_is_untied_where_the_adapter_makes_it_differ_and_stays_tied_elsewhere(
    config: dict, tied: bool, tmp_path: Path
) -> None:
    adapter = adapter_on_tied(tmp_path, **config)
    expected = logits(load(adapter).model)
    base = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    assert (expected[..., :VOCABULARY] - base).abs().max() > 0.1
    out = merge(adapter, tmp_path / "merged")
    merged: Any = AutoModelForCausalLM.from_pretrained(out)
    assert (logits(merged) - expected).abs().max() < 1e-4
    assert merged.config.tie_word_embeddings == tied == (merged.lm_head.weight is merged.model.embed_tokens.weight)


def test_an_adapter_on_the_head_of_gpt2_is_merged_as_well(tmp_path: Path) -> None:
    adapter = adapter_on_tied(tmp_path, architecture="gpt2", target_modules=["c_attn", "lm_head"], fan_in_fan_out=False)
    merged: Any = AutoModelForCausalLM.from_pretrained(merge(adapter, tmp_path / "merged"))
    assert (logits(merged) - logits(load(adapter).model)).abs().max() < 1e-4
    assert not merged.config.tie_word_embeddings


def wrong_embedding(model: Any) -> Any:
    """peft's own merging where the two are tied: the head's change lands in the embedding too."""
    return model.merge_and_unload()


def other_shape(model: Any) -> Any:
    merged = model.merge_and_unload()
    merged.resize_token_embeddings(VOCABULARY + 1)
    return merged


@pytest.mark.parametrize(
    ("merging", "says"),
    [
        (wrong_embedding, r"logits differ by \d+\.\d% of their spread \(largest difference \d"),
        (other_shape, rf"logits differ in shape, \(\d+, {VOCABULARY + 1}\) for \(\d+, {VOCABULARY}\)"),
    ],
)
def test_merged_weights_with_other_logits_fail_and_leave_nothing_behind(
    merging: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_on_tied(tmp_path, target_modules=["q_proj", "lm_head"])
    monkeypatch.setattr(bdpo.models.merging, "_merged", merging)
    with pytest.raises(BdpoError, match=f"adapter is on its base: their {says}.*Nothing was written"):
        merge(adapter, tmp_path / "out" / "merged")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_to_a_narrower_type_is_no_failure(dtype: str, tmp_path: Path) -> None:
    adapter = adapter_on_tied(tmp_path, target_modules="all-linear")
    out = merge(adapter, tmp_path / "merged", dtype=dtype)
    assert str(load(out, dtype="auto").model.dtype) == f"torch.{dtype}"


def test_a_kind_of_adapter_that_cannot_be_merged_is_one_sentence(tmp_path: Path) -> None:
    adapter_on_tied(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        tmp_path / "prompt"
    )
    with pytest.raises(BdpoError, match="of the kind PROMPT_TUNING, which cannot be merged"):
        merge(tmp_path / "prompt", tmp_path / "merged")
