"""Tiny random models, a tokenizer and pairs, made in memory: what the tests of tokens, layout, score and train use."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from bdpo.pairs import PreferencePair, write_pairs

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 320
Bdpo = Callable[..., tuple[int, str, str]]  # what the fixture `bdpo_` is

_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
}
_NAMES = {  # of the architecture -> model type and what differs from `_DECODER`
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-windowed": ("mistral", {"sliding_window": 8}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": 512, "query_pre_attn_scalar": 8}),
    "gpt2": ("gpt2", {}),
    "mamba": ("mamba", {}),
}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
_GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 4}


def tiny_model(architecture: str = "llama", seed: int = 0, **config: Any) -> Any:
    """A random causal language model of two layers, float32, in eval mode, far from uniform.

    Args:
        architecture: a key of `_NAMES`, such as llama, qwen2, mistral, mistral-windowed, gemma, gpt2, mamba.
        config: more values of its config; `attn_implementation` and `dtype` are handed on too.
    """
    kind, differing = _NAMES[architecture]
    values = {"gpt2": _GPT2, "mamba": _MAMBA}.get(kind, _DECODER) | differing
    values |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    how = {name: config.pop(name) for name in ("attn_implementation", "dtype") if name in config}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(values | config)), **how)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:  # the usual 0.02 would make all predictions alike and hide mistakes
                    parameter.normal_(0.0, 0.2 if "embed" in name or "wte" in name else 0.15)
    return model.eval()


@lru_cache(maxsize=1)
def _tokenizer_json() -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("e", "r"), ("o", "u")]
    pieces = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, *(left + right for left, right in merges)]
    bpe = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:3]])
    return bpe.to_str()


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 267 tokens with ChatML; EOS is <|im_end|>, padding too, and there is no BOS.

    Two line breaks merge into one token, so a reply that begins with one straddles the template's.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json()), eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tokenizer.chat_template = chat_template
    return tokenizer


_ASKED = (
    "How do I bake bread?", "Name a river in France.", "Why is the sky blue?", "Tell me a short story about a fox.",
    "What is seven times eight?", "Help me write to my landlord about the heating.", "Is tea better than coffee?",
)  # fmt: skip
_SAID = (
    "Gladly.", "Mix the flour and the water, then wait.", "The Loire.", "Light is scattered by the air.", "No.",
    "It is fifty-six.", "Dear Ms. Hall, the heating is cold again.", "That depends on the hour of the day.",
    "Once there was a fox who could not find the sea.", "I would ask a friend.",
)  # fmt: skip
_CATEGORIES = ("cooking", "places", "science", "letters")


def make_pairs(n: int, seed: int = 0) -> list[PreferencePair]:
    """`n` harmless pairs of chat; one or three turns, replies of one to four sentences, the two never alike."""
    draw = random.Random(seed)
    pairs = []
    for i in range(n):
        turns = [{"role": "user", "content": f"{draw.choice(_ASKED)} ({i})"}]
        if draw.random() < 0.3:
            turns += [{"role": "assistant", "content": draw.choice(_SAID)}, {"role": "user", "content": "Go on."}]
        chosen, rejected = (" ".join(draw.sample(_SAID, draw.randint(1, 4))) for _ in range(2))
        if chosen == rejected:
            rejected += " Perhaps."
        pairs.append(
            PreferencePair(
                f"pair-{i}",
                tuple(turns),
                chosen,
                rejected,
                chosen_safe=True,
                rejected_safe=(both_safe := draw.random() < 0.5),
                category=(draw.choice(_CATEGORIES),),
                source="tiny",
                prompt_kind="harmless" if both_safe else "unsafe",
            )
        )
    return pairs


def furnish(home: Path, *, pairs: int, held: int = 0) -> None:
    """Write a tiny model with its tokenizer into `home`, and as many pairs and held-out pairs (none: no file)."""
    tiny_model().save_pretrained(home / "model")
    tiny_tokenizer().save_pretrained(home / "model")
    write_pairs(home / "pairs.jsonl", make_pairs(pairs))
    if held:
        write_pairs(home / "held.jsonl", make_pairs(held, seed=1))
