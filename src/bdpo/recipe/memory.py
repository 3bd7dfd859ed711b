"""How much memory training will take, from shapes alone (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from bdpo.forward.head import CHUNK, CPU_CHUNK, NARROWEST

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 0.55}  # a weight; 4bit counts its block scales
PROCESS = 0.7e9  # bytes: Python with torch, transformers and the tokenizer, before any weight


@dataclass(frozen=True)
class Shape:
    """What of a model and a run decides its memory."""

    parameters: int  # all weights of the base model
    trainable: int  # weights that are trained (an adapter's, or all)
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    tokens: int  # of the largest micro-batch, prompts once
    replies: int  # reply tokens among them


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold, at the peak of a training step on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gaps: float = 0.0  # of the C library's heap
    process: float = PROCESS

    @property
    def total(self) -> float:
        """All of it, bytes."""
        return sum(vars(self).values())


def _head(shape: Shape, compute: str, *, trained: bool, cpu: bool) -> float:
    """A slice of logits with a copy, a hidden vector a reply token (`bdpo.forward.head`), a trained head's gradient."""
    logits = min(max(CPU_CHUNK if cpu else CHUNK, NARROWEST * shape.replies), shape.replies * shape.vocabulary)
    kept = shape.replies * shape.hidden * BYTES[compute]
    return 12.0 * logits + kept + (4.0 * shape.vocabulary * shape.hidden if trained else 0.0)


def training_memory(
    shape: Shape, *, weights: str, compute: str, checkpointing: bool, adapter: bool, cpu: bool
) -> Memory:
    """Estimate the peak of one training step with AdamW on one device.

    A layer of the Llama kind keeps about 9 hidden and 4 intermediate vectors a token for its backward pass (inputs
    of norms and linear layers, queries, keys and values expanded to all heads, the gate's factors); with
    checkpointing one hidden vector a layer, and one layer in full.

    On a CPU what an adapter's branches take in passing leaves gaps in the heap, since an aligned block of glibc (before
    2.38) does not fit into the gap that one of its size has left. Fitted to benchmarks/results/memory.md: 0.5 times the
    outputs of a layer's linear layers a token, with checkpointing as without.

    Args:
        weights: how the base is stored, a key of `BYTES`; an adapter and its optimiser are float32.
        compute: dtype of activations.
        cpu: training is on a CPU.
    """
    trained = 4.0 if adapter else BYTES[weights]
    outputs = (4 * shape.hidden + 2 * shape.intermediate) * BYTES[compute]
    a_layer = (9 * shape.hidden + 4 * shape.intermediate) * BYTES[compute]
    kept = shape.hidden * BYTES[compute] * shape.layers + a_layer if checkpointing else a_layer * shape.layers
    return Memory(
        weights=shape.parameters * BYTES[weights] + (shape.trainable * trained if adapter else 0.0),
        gradients=shape.trainable * trained,
        optimizer=shape.trainable * trained * 2,
        activations=shape.tokens * kept,
        logits=_head(shape, compute, trained=not adapter, cpu=cpu),
        gaps=0.5 * outputs * shape.layers * shape.tokens if cpu and adapter else 0.0,
    )
