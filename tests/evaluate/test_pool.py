"""Models that share a base in memory are, to the bit, the models loaded by themselves."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from bdpo import models
from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import Sampling
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.evaluate.replies.pool import models_sharing_base
from bdpo.models import weights_hash
from tiny import CHATML, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 50, 60, 70, 2]])
PROMPTS = {"p": [{"role": "user", "content": "Name a river."}]}


def save_adapter(folder, base, seed, **config):
    model = tiny_model(attention_bias="bias" in config)
    model.name_or_path = str(base)
    torch.manual_seed(seed)
    how = {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**(how | config)))
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "modules_to_save" in name or name.endswith("bias"):
                weights += 0.1
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture
def names(tmp_path):
    """Two bases, the first with four adapters: two plain ones, one with DoRA, one that trains a whole module."""
    for number in range(2):
        tiny_model(seed=number).save_pretrained(tmp_path / f"base{number}")
        tiny_tokenizer().save_pretrained(tmp_path / f"base{number}")
    base = tmp_path / "base0"
    adapters = [
        save_adapter(tmp_path / "one", base, 1, lora_alpha=16),
        save_adapter(tmp_path / "two", base, 2, r=8, target_modules=["v_proj"]),
        save_adapter(tmp_path / "dora", base, 3, use_dora=True),
        save_adapter(tmp_path / "whole", base, 4, modules_to_save=["lm_head"]),
    ]
    tiny_tokenizer(CHATML.replace("assistant", "model")).save_pretrained(tmp_path / "two")
    return [str(name) for name in (adapters[0], base, tmp_path / "base1", *adapters[1:])]


@pytest.fixture
def loaded(monkeypatch):
    """The folders that whole models are loaded from."""
    folders = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda path, **how: folders.append(path.name) or load(path, **how),
    )
    return folders


@torch.no_grad()
def seen(model, tokenizer):
    generator = LocalGenerator(model, tokenizer)
    return model(input_ids=IDS).logits, generator.key, generator.replies(PROMPTS, Sampling(8))


def test_each_is_what_it_is_by_itself_and_the_base_is_loaded_once(names, loaded):
    shared = {name: seen(pooled.model, pooled.tokenizer) for name, pooled in models_sharing_base(names)}
    assert loaded == ["base0", "base0", "base1"]  # the adapter that trains a whole module has one to itself
    assert list(shared) == [names[i] for i in (0, 1, 3, 4, 5, 2)]  # base by base
    for name, (logits, key, replies) in shared.items():
        alone = models.load(name)
        expected, key_alone, replies_alone = seen(alone.model, alone.tokenizer)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
        assert key == key_alone and replies == replies_alone
    assert len({key["weights"] for _, key, _ in shared.values()}) == 6


def test_the_base_is_itself_again_after_its_adapters(names):
    base = names[1]
    turns = [weights_hash(pooled.model) for _, pooled in models_sharing_base([base, names[0], names[3], base])]
    assert turns[0] == turns[3] == weights_hash(models.load(base).model)


def test_a_whole_model_alone_and_labels_and_templates(names, loaded):
    pooled = dict(models_sharing_base(names[3:4], chat_template="{{ messages[0].content }}"))
    assert loaded == ["base0"]
    assert pooled[names[3]].label == names[3]
    assert pooled[names[3]].tokenizer.chat_template == "{{ messages[0].content }}"
    assert [pooled.label for _, pooled in models_sharing_base([names[1]])] == [names[1]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["base0"]),
        ({"init_lora_weights": "pissa"}, ["base0", "base0"]),
        ({"bias": "all"}, ["base0", "base0"]),
        ({"target_modules": ["embed_tokens"]}, ["base0", "base0"]),
    ],
)
def test_adapters_that_would_leave_a_trace_get_a_base_of_their_own(names, loaded, tmp_path, config, expected):
    if config.get("bias"):
        tiny_model(attention_bias=True).save_pretrained(names[1])
    start = {name: config.pop(name) for name in ("init_lora_weights",) if name in config}
    adapter = save_adapter(tmp_path / "adapter", names[1], 5, **config)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | start))
    assert [name for name, _ in models_sharing_base([names[1], adapter])] == [names[1], str(adapter)]
    assert loaded == expected


def test_two_spellings_of_one_base_are_one(names, loaded, monkeypatch):
    monkeypatch.chdir(Path(names[1]).parent)
    assert [name for name, _ in models_sharing_base(["base0", names[0], "./one"])] == ["base0", names[0], "./one"]
    assert loaded == ["base0"]


def test_a_damaged_adapter_is_one_sentence(names):
    weights = Path(names[0]) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(BdpoError, match=r"Cannot load the model in .*one: ") as refused:
        list(models_sharing_base(names[:2]))
    assert "\n" not in str(refused.value)
