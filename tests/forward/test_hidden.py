"""The states that predict a response's tokens, summed: every layout against the states of one plain forward."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps
from tiny import tiny_model

TREES = [Tree([5, 9, 7], [[1, 2], [3]]), Tree([8], [[4, 6, 2, 9], [11, 12, 13]]), Tree([5, 9, 7, 2], [[1], [2], [1]])]


def slow_sums(model, trees):
    sums = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.tensor([[*tree.prefix, *branch]])
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
            sums.append(states[len(tree.prefix) - 1 : len(ids[0]) - 1].double().sum(0))
    return torch.stack(sums)


@pytest.mark.parametrize("layout", ["packed", "shared", "padded"])
@pytest.mark.parametrize("architecture", ["llama", "gemma", "gpt2", "llama with an adapter", "llama that caps"])
@torch.no_grad()
def test_sums_of_states_are_those_of_plain_forwards(architecture, layout):
    model = tiny_model(architecture.split()[0], attn_implementation="sdpa")
    if "adapter" in architecture:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    if "caps" in architecture:  # a head with a hook of its own output: logits are taken from the whole head
        model.lm_head.register_forward_hook(lambda module, args, logits: torch.tanh(logits))
    expected = slow_sums(model, TREES)
    found = branch_logps(model, lay_out(TREES, layout=layout), hidden=True)
    assert found.hidden.shape == expected.shape == (7, model.config.hidden_size)
    torch.testing.assert_close(found.hidden.double(), expected, atol=2e-5, rtol=1e-5)
    assert (found.hidden[0] - found.hidden[1]).abs().max() > 0.1  # not all alike
    assert branch_logps(model, lay_out(TREES, layout=layout)).hidden is None
    assert not model.get_output_embeddings()._forward_pre_hooks
