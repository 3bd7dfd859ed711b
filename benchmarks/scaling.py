"""What `bdpo train --dry-run` estimates for models that were not run here: the figures of docs/scaling.md.

    python -m benchmarks.scaling

Only the shapes of the models are made (a config and the starter's tokenizer), and pairs of about 1,024 tokens. Nothing
is measured: it is the arithmetic of bdpo.recipe.memory, with weights, gradients and optimiser divided by the devices
that share them. What a device brings together while it works is added: embedding and head, which FSDP2 keeps whole from
the forward pass on, the layer at work, and the next one, which is fetched meanwhile.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config

from bdpo import models
from bdpo.pairs import PreferencePair, write_pairs
from bdpo.recipe.dryrun import DryRun, dry_run
from bdpo.recipe.memory import BYTES, PROCESS, Shape
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
    "405B (Llama-3.1-405B's shape)": LlamaConfig(
        vocab_size=128_256, hidden_size=16_384, intermediate_size=53_248, num_hidden_layers=126,
        num_attention_heads=128, num_key_value_heads=8,
    ),
}  # fmt: skip
CARD, FREE = 80e9, 0.1  # bytes of a card, and the share of it that stays free
SCORED_TOKENS = 2048  # of a forward pass: score.batch_tokens


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
    Setting("LoRA, FSDP2 on 4", "70B (Llama-3.1-70B's shape)", {"dtype": "bfloat16"}, LORA, shards=4),
    Setting("LoRA, FSDP2 on 24", "405B (Llama-3.1-405B's shape)", {"dtype": "bfloat16"}, LORA, shards=24),
)


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        write_pairs(Path(folder) / "pairs.jsonl", _pairs())
        print("| model | how | a device, training [GB] | weights | whole at work | gradients | optimiser "
              "| activations | logits | a device, scoring [GB] |")  # fmt: skip
        print("| --- | --- " + "| ---: " * 8 + "|")
        for setting in SETTINGS:
            print(_row(setting, Path(folder)), flush=True)
        print()
        print("| model | weights | in bf16 [GB] | in 4 bit [GB] | cards of 80 GB: stage 1 | LoRA |")
        print("| --- " + "| ---: " * 5 + "|")
        for shape in SHAPES:
            print(_sizes(shape, Path(folder)), flush=True)


def _row(setting: Setting, folder: Path) -> str:
    found = _estimate(setting, folder)
    stored = setting.model.get("quantization") or setting.model["dtype"]
    parts = _training(found, stored, setting.shards)
    cells = " | ".join(f"{part / 1e9:.1f}" for part in parts)
    total = (sum(parts) + PROCESS) / 1e9
    scoring = scoring_bytes(found.shape, BYTES[stored], setting.shards) / 1e9
    return f"| {setting.shape} | {setting.name} | {total:.1f} | {cells} | {scoring:.1f} |"


def _sizes(shape: str, folder: Path) -> str:
    found = _estimate(Setting("LoRA", shape, {"dtype": "bfloat16"}, LORA), folder)
    room = CARD * (1 - FREE)
    scoring = next(n for n in range(1, 1000) if scoring_bytes(found.shape, 2.0, n) <= room)
    training = next(n for n in range(1, 1000) if sum(_training(found, "bfloat16", n)) + PROCESS <= room)
    weights = found.shape.parameters
    sizes = f"{weights / 1e9:.1f}B | {weights * 2 / 1e9:.0f} | {weights * BYTES['4bit'] / 1e9:.0f}"
    return f"| {shape} | {sizes} | {scoring} | {training} |"


def gathered_bytes(shape: Shape, of_weight: float, shards: int) -> float:
    """What a device holds whole beside its share: embedding and head, and two layers; nothing where it holds all.

    >>> sizes = {"trainable": 0, "intermediate": 0, "tokens": 0, "replies": 0}
    >>> shape = Shape(parameters=1_200, layers=4, hidden=10, vocabulary=20, **sizes)
    >>> gathered_bytes(shape, 2.0, 2)  # 2 x 20 x 10 weights, and of 800 in four layers two
    1600.0
    """
    if shards == 1:
        return 0.0
    ends = 2 * shape.vocabulary * shape.hidden
    return of_weight * (ends + 2 * (shape.parameters - ends) / shape.layers)


def scoring_bytes(shape: Shape, of_weight: float, shards: int) -> float:
    """Stage 1 on one device: its weights, what it brings together, and the vectors of one layer for a forward pass."""
    a_layer = (9 * shape.hidden + 4 * shape.intermediate) * BYTES["bfloat16"]  # as in `training_memory`
    weights = shape.parameters * of_weight / shards + gathered_bytes(shape, of_weight, shards)
    return weights + SCORED_TOKENS * a_layer + PROCESS


def _training(found: DryRun, stored: str, shards: int) -> tuple[float, ...]:
    """Weights, what is whole at work, gradients, optimiser, activations and logits of a device [bytes]."""
    memory = found.memory
    whole = gathered_bytes(found.shape, BYTES[stored], shards)
    shares = memory.weights / shards, whole, memory.gradients / shards, memory.optimizer / shards
    return (*shares, memory.activations, memory.logits)


def _estimate(setting: Setting, folder: Path) -> DryRun:
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
    return dry_run(parse_recipe(content), folder / "run")


def _pairs() -> list[PreferencePair]:
    prompt, reply = " the" * 512, " the" * 256
    return [
        PreferencePair(f"p{i}", ({"role": "user", "content": f"{i}{prompt}"},), reply, f"{reply} end") for i in range(4)
    ]


if __name__ == "__main__":
    main()
