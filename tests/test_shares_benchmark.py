"""What the profile makes of operators: each is put where its arithmetic belongs, and the shares are of the clock."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps
from bdpo.forward.lora import fuse_lora
from benchmarks import shares
from tiny import tiny_model


def event(name: str, spent: float = 0.0, parent: Any = None, shapes: Any = ()) -> Any:
    return SimpleNamespace(name=name, self_cpu_time_total=spent * 1e6, cpu_parent=parent, input_shapes=shapes)


def test_shares_by_hand() -> None:
    step = event("Optimizer.step#AdamW.step")
    layers = event("aten::mm", 4.0, shapes=[[100, 576], [576, 192]])
    down, up = event("aten::mm", 0.5, shapes=[[100, 576], [576, 16]]), event("aten::addmm_", 0.5, shapes=[[9], [9, 16]])
    inner = event("aten::mul", 1.0, parent=event("aten::scaled_dot_product_attention"))
    head = event("_SlicedHead")
    others = [event("aten::mul_", 1.0, parent=step), event("aten::silu", 1.0), event("SiluBackward0", 0.25)]
    others += [event("aten::mm", 0.5, head, [[9, 576], [576, 16]]), event("aten::exp_", 0.25, head)]
    found = shares.shares([layers, down, up, inner, *others, event("aten::cat", 0.5)], seconds=10.0, rank=16)
    assert found == pytest.approx({
        "linear layers": 0.4, "LoRA's products": 0.1, "optimiser": 0.1, "attention": 0.1, "copies": 0.05,
        "products of the LM head": 0.05, "softmax of the LM head": 0.025, "norms, rotation, activation, sums": 0.1,
        "autograd and dispatch": 0.025, "outside operators": 0.05,
    })  # fmt: skip


def test_the_products_of_a_model_are_told_apart() -> None:
    model = tiny_model()
    config = model.config
    policy = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear"))
    fuse_lora(policy)
    batch = lay_out([Tree([5, 6, 7, 8, 9], [[4, 6, 2, 1], [7, 5]])], layout="packed")
    with shares._profile() as found:
        branch_logps(policy, batch).logps.sum().backward()
    counted = Counter(
        shares.group_of(one, 3) for one in found.events() if one.name in ("aten::mm", "aten::addmm", "aten::addmm_")
    )
    layers = config.num_hidden_layers
    # of each of seven layers W x and W^T g; of the first layer's q, k and v the inputs want no gradient
    assert counted["linear layers"] == 2 * 7 * layers - 3
    # A x, B u; B^T g, A^T v, v x^T, g u^T
    assert counted["LoRA's products"] == 6 * 7 * layers - 3
    attention = [one for one in found.events() if one.name == "aten::scaled_dot_product_attention"]
    assert len(attention) == 2 * layers, "the prompt, and both replies in one call"
    assert all(shares.group_of(one, 3) == "attention" for one in attention)
