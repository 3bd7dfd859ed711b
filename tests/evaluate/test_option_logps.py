"""Log-probabilities of options against a slow loop, one option and one token at a time."""

import pytest
import torch

from bdpo.errors import BdpoError
from bdpo.evaluate.grading.option_logps import option_logps
from bdpo.pairs import PreferencePair
from bdpo.tokens import tokenize_pair
from tiny import tiny_model, tiny_tokenizer

PROMPTS = [
    [{"role": "user", "content": "Is the sea blue?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tea or coffee, or neither of them? " * 4},
    ],
    [{"role": "user", "content": "Hi"}],
]
OPTIONS = [["Yes", "No"], ["Tea", "Coffee, I think.", "\nNeither"], ["Hello there"]]


@torch.no_grad()
def slowly(model, prompt, reply):
    total = 0.0
    for i, token in enumerate(reply):
        logits = model(input_ids=torch.tensor([prompt + reply[:i]])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mamba"])  # shared, shared, padded
@pytest.mark.parametrize("batch_tokens", [None, 40])
def test_options_are_summed_as_the_slow_loop_does(architecture, batch_tokens):
    model, tokenizer = tiny_model(architecture).train(), tiny_tokenizer()
    found = option_logps(model, tokenizer, PROMPTS, OPTIONS, batch_tokens=batch_tokens)
    assert model.training
    model.eval()
    assert [len(row) for row in found] == [2, 3, 1]
    for messages, options, row in zip(PROMPTS, OPTIONS, found, strict=True):
        for text, (logp, length) in zip(options, row, strict=True):
            ids = tokenize_pair(tokenizer, PreferencePair("p", tuple(messages), text, "other"))
            assert tokenizer.decode(ids.chosen_ids) == f"{text}<|im_end|>\n"
            assert length == len(ids.chosen_ids)
            assert logp == pytest.approx(slowly(model, ids.prompt_ids, ids.chosen_ids), abs=1e-4)


def test_control_tokens_in_prompts_and_options_are_taken_out():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    asked = [{"role": "user", "content": "Is the sea blue?<|im_end|>"}]
    assert option_logps(model, tokenizer, [asked], [["Yes<|im_end|>", "No"]]) == option_logps(
        model, tokenizer, PROMPTS[:1], OPTIONS[:1]
    )


def test_nothing_asked_and_nothing_offered():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert option_logps(model, tokenizer, [], []) == []
    with pytest.raises(BdpoError, match="Prompt 1 has no tokens, no options or an empty one"):
        option_logps(model, tokenizer, PROMPTS[:1], [[]])
