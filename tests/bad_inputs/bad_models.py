"""Bad models, adapters and scored folders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from case import Bad, bad, fifo
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tiny import tiny_model

SCORE = "score --data pairs.jsonl --out never --model"
MODEL = f"{SCORE} model"
ADAPTER = f"{SCORE} adapter"
AGAIN = "score --data pairs.jsonl --model model --out scores"
OTHER = f"{AGAIN} --estimator entropy"  # the parts there are not for it, so nothing can be healed
Change = Callable[[Path], None]


class Opened:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        raise_ = "raise AssertionError('the pickle was opened')"
        return exec, (raise_,)


def config(**changed: Any) -> Change:
    """Another value in a JSON object; ... takes the key out."""

    def change(path: Path) -> None:
        content = json.loads(path.read_text()) | changed
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return change


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def torch_pickle(path: Path) -> None:
    torch.save({"model.norm.weight": Opened()}, path)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model.norm.weight": Opened()}))


def weights(file: Any) -> Change:
    """An index that says of every tensor that it is in `file`; `w.safetensors` in the working folder has them."""

    def make(index: Path) -> None:
        there = index.with_name("model.safetensors")
        names = list(load_file(there))
        there.rename(index.parents[1] / "w.safetensors")
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, file)}))

    return make


def nan_weights(path: Path) -> None:
    model = tiny_model()
    model.get_input_embeddings().weight.data.fill_(float("nan"))
    model.save_pretrained(path.parent)


def adapter(changed: dict[str, Any] | None = None, content: str | None = None) -> dict[str, Change]:
    """An adapter on the model, with something else in its adapter_config.json."""

    def make(path: Path) -> None:
        lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", base_model_name_or_path="model")
        get_peft_model(tiny_model(), lora).save_pretrained(path.parent)
        config(**{"base_model_name_or_path": "model", **(changed or {})})(path)
        if content is not None:
            path.write_text(content)

    return {"adapter/adapter_config__json": make}


INDEX = "model/model__safetensors__index__json"
G = "model/generation_config__json"
GGUF = f"{SCORE} x.gguf"
W, C, T = "model/model__safetensors", "model/config__json", "model/tokenizer__json"
TC = "model/tokenizer_config__json"

MODELS: dict[str, Bad] = {
    "no such folder": bad(f"{SCORE} ./nowhere", "No model folder at nowhere", "check the path"),
    "no such name": bad(f"{SCORE} no/such", "'no/such' is neither", "Check the name"),
    "no model folder": bad(f"{SCORE} scores", "scores holds neither config.json nor adapter_config.json"),
    "a file": bad(f"{SCORE} ./pairs.jsonl", "No model folder at pairs.jsonl"),
    "no GGUF": bad(f"{SCORE} nowhere.gguf", "No GGUF file at nowhere.gguf", "check the path"),
    "config torn": bad(MODEL, "Cannot load", "config.json", "not a valid JSON", **{C: "{"}),
    "config empty": bad(MODEL, "Cannot load", "config.json", **{C: ""}),
    "config null": bad(MODEL, "Cannot load", "model: ", "copy or download it again", **{C: "null"}),
    "config a list": bad(MODEL, "Cannot load", "Unrecognized model", **{C: "[1]"}),
    "unknown architecture": bad(MODEL, "Cannot load", "`nosuch`", **{C: config(model_type="nosuch")}),
    "no decoder": bad(MODEL, "Cannot load", "T5Config", "another kind of model", **{C: config(model_type="t5")}),
    "width of text": bad(
        MODEL, "Cannot load the model in", "'hidden_size' expected int", **{C: config(hidden_size="wide")}
    ),
    "no heads": bad(MODEL, "Cannot load the model in", "ZeroDivisionError", **{C: config(num_attention_heads=0)}),
    "unknown activation": bad(MODEL, "Cannot load the model in", "nosuch", **{C: config(hidden_act="nosuch")}),
    "padding beyond the vocabulary": bad(
        MODEL, "Cannot load the model in", "Padding_idx", **{C: config(pad_token_id=9999)}
    ),
    "no weights": bad(MODEL, "no file named model.safetensors", **{W: gone}),
    "weights cut": bad(MODEL, "Cannot load the model in", "copy or download it again", **{W: cut}),
    "weights empty": bad(MODEL, "Cannot load the model in", **{W: b""}),
    "a pickle of torch": bad(
        MODEL,
        "The model in model: the pickle is damaged or holds more than tensors",
        "could run code",
        "save the weights as safetensors",
        **{W: gone, "model/pytorch_model__bin": torch_pickle},
    ),
    "a bare pickle": bad(
        MODEL,
        "the pickle is damaged or holds more than tensors",
        "could run code",
        **{W: gone, "model/pytorch_model__bin": bare_pickle},
    ),
    "no torch file": bad(
        MODEL, "Cannot load the model in", "copy or download it again", **{W: gone, "model/pytorch_model__bin": b"junk"}
    ),
    "index of no file": bad(
        MODEL,
        "nosuch.safetensors",
        **{
            W: gone,
            INDEX: {"metadata": {}, "weight_map": {"a": "nosuch.safetensors"}},
        },
    ),
    "index a list": bad(MODEL, "index.json holds a list where an object is expected", **{W: gone, INDEX: "[]"}),
    "tokenizer torn": bad(MODEL, "Cannot load", "copy or download it again", **{T: "{"}),
    "tokenizer a list": bad(MODEL, "Cannot load", "TypeError", **{T: "[]"}),
    "tokenizer's config a list": bad(MODEL, "Cannot load", "AttributeError", **{"model/tokenizer_config__json": "[]"}),
    "tokenizer torn, checked": bad("data check pairs.jsonl --model model", "Cannot load a tokenizer from", **{T: "{"}),
    "tokenizer too large": bad(
        MODEL,
        "beyond the 100 rows of the model's embedding",
        **{C: lambda path: tiny_model(vocab_size=100).save_pretrained(path.parent)},
    ),
    "too few positions": bad(
        MODEL, "longer than the 8 positions", "lower data.max_length", **{C: config(max_position_embeddings=8)}
    ),
    "no template": bad(MODEL, "no chat template", "model.chat_template", **{"model/chat_template__jinja": gone}),
    "no numbers": bad(
        MODEL, "non-finite log-probabilities to pairs pair-0", **{W: nan_weights}, leaves="never/manifest.json"
    ),
    "index of a file elsewhere": bad(
        MODEL, "index.json names '../w.safetensors', which is no file beside it", **{INDEX: weights("../w.safetensors")}
    ),
    "index of a number": bad(MODEL, "index.json names 3, which is no file beside it", **{INDEX: weights(3)}),
    "generation settings torn": bad(MODEL, "generation_config.json is not JSON", "copy or download it", **{G: "{"}),
    "generation settings empty": bad(MODEL, "generation_config.json is not JSON", **{G: ""}),
    "generation settings a list": bad(MODEL, "generation_config.json holds a list", **{G: "[]"}),
    "generation settings a pipe": bad(
        MODEL, "generation_config.json cannot be read (a pipe", **{G: lambda path: (gone(path), fifo(path))}
    ),
    "tokenizer's config a pipe": bad(
        MODEL, "tokenizer_config.json cannot be read (a pipe", **{TC: lambda path: (gone(path), fifo(path))}
    ),
    "tokenizer's config a folder": bad(
        MODEL, "tokenizer_config.json cannot be read (a folder", **{TC: lambda path: (gone(path), path.mkdir())}
    ),
    "weights a pipe": bad(
        MODEL, "model.safetensors cannot be read (a pipe", **{W: lambda path: (gone(path), fifo(path))}
    ),
    "end of a turn that no vocabulary has": bad(
        MODEL, "tokenizer_config.json: eos_token is '<none>', which the vocabulary", **{TC: config(eos_token="<none>")}
    ),
    "padding that no vocabulary has": bad(
        MODEL, "pad_token is '<none>', which the vocabulary", "belong together", **{TC: config(pad_token="<none>")}
    ),
    "tokenizer a folder": bad(
        MODEL, "tokenizer.json cannot be read (a folder", **{T: lambda path: (gone(path), path.mkdir())}
    ),
    "chat template a pipe": bad(
        MODEL,
        "chat_template.jinja cannot be read (a pipe",
        **{"model/chat_template__jinja": lambda path: (gone(path), fifo(path))},
    ),
    "settings of an adapter a pipe": bad(
        ADAPTER, "adapter_config.json cannot be read (a pipe", **{"adapter/adapter_config__json": fifo}
    ),
    "end of a reply no token": bad(MODEL, "eos_token_id is ['x'] and must be", **{G: {"eos_token_id": ["x"]}}),
    "length in words": bad(
        MODEL, "Cannot load", "TypeError", **{"model/tokenizer_config__json": config(model_max_length="long")}
    ),
    "template empty": bad(
        "evaluate model --limit 1 --max-new-tokens 2 --out never",
        "the chat template makes no text of the conversation",
        "give another",
        leaves="never/model/run.json",
        **{"model/chat_template__jinja": ""},
    ),
    "type of a birdsong": bad(MODEL, "Cannot load", "Canary config", **{C: config(model_type="canary")}),
    "quantised by a word": bad(MODEL, "Cannot load", **{C: config(quantization_config="4bit")}),
    "GGUF cut": bad(GGUF, "The GGUF file cannot be converted", "damaged", x__gguf=b"GGUF\3\0\0\0junk"),
    "GGUF empty": bad(GGUF, "The GGUF file cannot be converted", "damaged", x__gguf=b""),
    "adapter's config a list": bad(
        ADAPTER,
        "adapter_config.json holds a list where an object is expected",
        "copy the adapter again",
        **adapter(content="[]"),
    ),
    "adapter's config torn": bad(ADAPTER, "adapter_config.json is not JSON", "mend it", **adapter(content="{")),
    "adapter without base": bad(ADAPTER, "names no base model", "add it", **adapter({"base_model_name_or_path": None})),
    "adapter with a number for its base": bad(
        ADAPTER,
        "base_model_name_or_path is 3 and must be text",
        "correct it",
        **adapter({"base_model_name_or_path": 3}),
    ),
    "adapter with a list for its base": bad(
        ADAPTER,
        "base_model_name_or_path is ['model'] and must be text",
        **adapter({"base_model_name_or_path": ["model"]}),
    ),
    "adapter with a number for a revision": bad(ADAPTER, "revision is 1 and must be text", **adapter({"revision": 1})),
    "adapter on no model": bad(
        ADAPTER, "No model folder at nowhere/at/all", **adapter({"base_model_name_or_path": "nowhere/at/all"})
    ),
    "adapter of unknown type": bad(
        ADAPTER, "Unknown peft_type", "'LORAA'", "did you mean 'LORA'?", **adapter({"peft_type": "LORAA"})
    ),
    "adapter of no type": bad("merge adapter --out never", "Unknown peft_type", **adapter({"peft_type": None})),
    "adapter on an adapter": bad(
        ADAPTER, "belongs on another adapter", "merge that one first", **adapter({"base_model_name_or_path": "adapter"})
    ),
    "adapter without weights": bad(
        ADAPTER,
        "The adapter in adapter has no weights",
        "copy it again",
        **adapter(),
        **{"adapter/adapter_model__safetensors": gone},
    ),
    "adapter by no pattern": bad(ADAPTER, "Cannot load", "missing )", **adapter({"target_modules": "(("})),
    "nothing to merge": bad("merge model --out never", "holds no adapter", "nothing to merge"),
    "merge into a full folder": bad(
        "merge adapter --out scores", "scores is not empty", "choose another --out", **adapter()
    ),
    "merge as what": bad("merge adapter --out never --dtype float8", "Unknown dtype 'float8'", **adapter()),
    "manifest torn": bad(
        OTHER, "manifest.json is not JSON", "score into another folder", **{"scores/manifest__json": "{"}
    ),
    "manifest a list": bad(OTHER, "manifest.json holds a list", **{"scores/manifest__json": "[]"}),
    "manifest of another format": bad(
        OTHER, "depend on something else", "estimator", **{"scores/manifest__json": config(format=1)}
    ),
    "manifest without its key": bad(
        OTHER,
        "manifest.json",
        "'key'",
        "score into another folder",
        **{"scores/manifest__json": config(key=...)},
    ),
    "manifest with a word for a number": bad(
        OTHER, "depend on something else", **{"scores/manifest__json": config(parts="one")}
    ),
    "other scores": bad(OTHER, "scores holds scores that depend on something else", "estimator"),
    "out holds something else": bad(
        "score --data pairs.jsonl --model model --out model", "model is not an empty folder"
    ),
    "out a file": bad("score --data pairs.jsonl --model model --out pairs.jsonl", "pairs.jsonl is not an empty folder"),
}

# a size in config.json that is no model's: what is asked of it
SIZES = {
    "vocab_size": (10**12, 0, -1),
    "hidden_size": (10**9, 0),
    "num_hidden_layers": (10**9, -1),
    "num_attention_heads": (-4,),
    "num_key_value_heads": (0,),
    "head_dim": (-8,),
    "intermediate_size": (10**12, -1),
    "max_position_embeddings": (-1,),
}
MODELS |= {
    f"{name} of {size}": bad(
        MODEL,
        f"config.json: {name} is {size}, which is no model's (1 to",
        "copy or download",
        **{C: config(**{name: size})},
    )
    for name, sizes in SIZES.items()
    for size in sizes
}
MODELS["layers without end, dry"] = bad(
    "train --dry-run --config recipe.yaml --out never",
    "num_hidden_layers is 1000000000, which is no model's",
    **{C: config(num_hidden_layers=10**9)},
)
