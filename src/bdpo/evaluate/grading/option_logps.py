"""Log-probabilities of given replies to a prompt: which of the options a model would rather say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from bdpo.errors import BdpoError
from bdpo.forward.layout import Tree
from bdpo.forward.logprobs import choose_layout
from bdpo.forward.passes import Pass
from bdpo.pairs import Message
from bdpo.terminal import bar
from bdpo.tokens import options_ids


class OptionLogp(NamedTuple):
    """One option given its prompt."""

    logp: float  # summed over its tokens, the end of turn included [nats]
    length: int  # tokens


@torch.no_grad()
def option_logps(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    options: Sequence[Sequence[str]],
    *,
    batch_tokens: int | None = None,
) -> list[list[OptionLogp]]:
    """Log-probability of each option as the whole reply to its prompt, for N prompts with one or more options each.

    The model is taken as it is handed in; an adapter that is on stays on. Options are tokenised as the replies of
    pairs are (`tokens.tokenize_pair`), and those of one prompt share its computation.

    Args:
        batch_tokens: tokens a forward pass may hold; changes speed and memory, not the numbers. None: 1024 on a
            CPU, 8192 elsewhere.

    Raises:
        BdpoError: no options, an option without tokens, a template that does not render the prompt as a prefix, or
            log-probabilities that are not finite.
    """
    trees = []
    for i, (messages, texts) in enumerate(zip(prompts, options, strict=True), start=1):
        prefix, branches = options_ids(tokenizer, messages, texts, f"Prompt {i}")
        if not prefix or not branches or not all(branches):
            raise BdpoError(f"Prompt {i} has no tokens, no options or an empty one: fill it in, or leave it out.")
        trees.append(Tree(prefix, branches))
    if not trees:
        return []
    lengths = [[len(branch) for branch in tree.branches] for tree in trees]
    was_training = model.training
    model.eval()
    try:
        layout, _ = choose_layout(model, max(len(tree.prefix) + max(map(len, tree.branches)) for tree in trees))
        with bar("options", sum(map(sum, lengths)), "tok") as progress:
            sums = Pass(model, layout, progress, batch_tokens).over(trees)
    finally:
        model.train(was_training)
    of_prompt = [i for i, row in enumerate(lengths, start=1) for _ in row]
    bad = (~sums.logps.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise BdpoError(
            f"The model gives non-finite log-probabilities to the options of prompt {of_prompt[bad[0]]}: its weights "
            f"are damaged, or overflow in {model.dtype}; try --dtype float32."
        )
    logps = iter(sums.logps.tolist())
    return [[OptionLogp(next(logps), length) for length in row] for row in lengths]
