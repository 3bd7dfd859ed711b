"""What `bdpo train --dry-run` estimates for models that were not run here: the figures of docs/scaling.md.

    python -m benchmarks.scaling

Only the shapes of the models are made (a config and the starter's tokenizer), and pairs of about 1,024 tokens. Nothing
is measured: it is the arithmetic of bdpo.recipe.memory, with weights, gradients and optimiser divided by the devices
that share them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from bdpo import models
from bdpo.pairs import PreferencePair, write_pairs
from bdpo.recipe.dryrun import dry_run
from bdpo.recipe.memory import BYTES
from bdpo.recipe.sections import parse_recipe

SHAPES: dict[str, PreTrainedConfig] = {
    "7B (Qwen2-7B's shape)": Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4,
    ),
    "70B (Llama-3.1-70B's shape)": LlamaConfig(
        vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A way to train: sections of the recipe, and over how many devices the state of training is sharded."""

    name: str
    shape: str
    model: dict[str, Any]
    peft: dict[str, Any] | None
    shards: int = 1


LORA = {"r": 16, "lora_alpha": 32}
SETTINGS = (
    Setting("LoRA", "7B (Qwen2-7B's shape)", {"dtype": "bfloat16"}, LORA),
    Setting("all weights, FSDP2 on 8", "7B (Qwen2-7B's shape)", {"dtype": "float32"}, None, shards=8),
    Setting("QLoRA", "70B (Llama-3.1-70B's shape)", {"dtype": "bfloat16", "quantization": "4bit"}, LORA),
)


def main() -> None:
    """Print the table."""
    print("| model | how | a device, training [GB] | weights | gradients | optimiser | activations | logits | "
          "whole model while scoring [GB] |")  # fmt: skip
    print("| --- | --- " + "| ---: " * 7 + "|")
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.jsonl", _pairs())
        for setting in SETTINGS:
            print(_row(setting, Path(folder)), flush=True)


def _row(setting: Setting, folder: Path) -> str:
    place = folder / setting.shape.split()[0]
    if not place.exists():
        SHAPES[setting.shape].save_pretrained(place)
        models.load_tokenizer("starter").save_pretrained(place)
    train = {"bf16": True, "gradient_checkpointing": True, "per_device_train_batch_size": 1}
    content = {
        "model": {"name": str(place), **setting.model},
        "data": {"train": str(folder / "pairs.jsonl"), "max_length": 2048},
        "train": train,
        **({"peft": setting.peft} if setting.peft else {}),
    }
    found = dry_run(parse_recipe(content), folder / "run")
    memory, stored = found.memory, setting.model.get("quantization") or setting.model["dtype"]
    shared = [part / setting.shards / 1e9 for part in (memory.weights, memory.gradients, memory.optimizer)]
    own = [part / 1e9 for part in (memory.activations, memory.logits)]
    cells = " | ".join(f"{value:.1f}" for value in (*shared, *own))
    total = sum(shared) + sum(own) + memory.process / 1e9
    whole = found.shape.parameters * BYTES[stored] / 1e9
    return f"| {setting.shape} | {setting.name} | {total:.1f} | {cells} | {whole:.1f} |"


def _pairs() -> list[PreferencePair]:
    prompt, reply = " the" * 512, " the" * 256
    return [
        PreferencePair(f"p{i}", ({"role": "user", "content": f"{i}{prompt}"},), reply, f"{reply} end") for i in range(4)
    ]


if __name__ == "__main__":
    main()
