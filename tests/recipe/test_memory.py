"""The estimate of a training step's memory, by hand; benchmarks/results/memory.md holds it against measured peaks."""

import pytest

from bdpo.recipe.memory import PROCESS, Memory, Shape, training_memory

SHAPE = Shape(parameters=1000, trainable=100, layers=2, hidden=8, intermediate=16, vocabulary=50, tokens=10, replies=4)


def lora(**how: bool) -> Memory:
    values = {"checkpointing": False, "adapter": True, "cpu": False} | how
    return training_memory(SHAPE, weights="float32", compute="float32", **values)


def test_an_adapter_by_hand() -> None:
    memory = lora()
    assert (memory.weights, memory.gradients, memory.optimizer) == (4000 + 400, 400, 800)
    assert memory.activations == (9 * 8 + 4 * 16) * 4 * 2 * 10
    assert memory.logits == 12 * 4 * 50 + 4 * 8 * 4, "one chunk, and the hidden vectors of four reply tokens"
    assert memory.total == 4400 + 400 + 800 + 10_880 + 2528 + PROCESS


def test_checkpointing_keeps_a_vector_a_layer_and_one_layer_whole() -> None:
    assert lora(checkpointing=True).activations == (8 * 4 * 2 + (9 * 8 + 4 * 16) * 4) * 10


@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_a_cpu_an_adapter_leaves_gaps_in_the_heap(checkpointing: bool) -> None:
    assert lora(cpu=True, checkpointing=checkpointing).gaps == pytest.approx(0.5 * (4 * 8 + 2 * 16) * 4 * 2 * 10)
    assert lora(cpu=True, adapter=False).gaps == 0


def test_4bit_weights_under_bfloat16() -> None:
    memory = training_memory(SHAPE, weights="4bit", compute="bfloat16", checkpointing=False, adapter=True, cpu=False)
    assert memory.weights == pytest.approx(0.55 * 1000 + 400)
    assert memory.activations == (9 * 8 + 4 * 16) * 2 * 2 * 10
