"""How comprehension is measured: which sums an estimator asks of the frozen model, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdpo.forward.layout import Ids
from bdpo.forward.logprobs import BranchLogps
from bdpo.forward.passes import Pass
from bdpo.method.comprehension import contrastive_marginal, entropy_drop, pmi
from bdpo.score.folder import NONE

CONTRASTIVE_PROMPTS = 8


@dataclass(frozen=True)
class Context:
    """What an estimator may use beside the pairs at hand."""

    null_ids: Ids
    prompts: Sequence[Ids] = ()  # contrastive: one more than is used, so that a pair's own prompt can be left out
    texts: Sequence[str] = ()  # of those prompts, whole: truncation may cut one text to several lists of ids
    own: Sequence[int] = ()  # for each pair at hand which of them is its own prompt, or -1


# (pass, sums of the 2n replies on their own prompts, the replies: n chosen, then n rejected; context)
#   -> marginal (2n,) [nats], comprehension (2n,) [nats/token]
Measured = tuple[Tensor, Tensor]
Measure = Callable[[Pass, BranchLogps, Sequence[Ids], Context], Measured]


@dataclass(frozen=True)
class Estimator:
    """How comprehension is measured."""

    measure: Measure | None  # None: comprehension is not measured
    passes: int  # how often each response token is computed, for the progress bar
    entropy: bool = False  # needs predictive entropies
    prompts: bool = False  # needs other prompts of the data set


def _by_pmi(frozen: Pass, cond: BranchLogps, replies: Sequence[Ids], context: Context) -> Measured:
    marg = frozen.on(context.null_ids, replies).logps
    return marg, pmi(cond.logps, marg, _lengths(replies))


def _by_entropy(frozen: Pass, cond: BranchLogps, replies: Sequence[Ids], context: Context) -> Measured:
    marg = frozen.on(context.null_ids, replies)
    assert cond.entropies is not None and marg.entropies is not None
    return marg.logps, entropy_drop(cond.entropies, marg.entropies, _lengths(replies))


def _by_contrast(frozen: Pass, cond: BranchLogps, replies: Sequence[Ids], context: Context) -> Measured:
    others = torch.stack([frozen.on(prompt, replies).logps for prompt in context.prompts])  # (K + 1, 2n)
    kept = [  # of the K + 1 prompts, for each reply K that are not its own
        [k for k in range(len(context.prompts)) if k != own][:CONTRASTIVE_PROMPTS]
        for own in (*context.own, *context.own)
    ]
    marg = contrastive_marginal(others.gather(0, torch.tensor(kept).T))
    return marg, pmi(cond.logps, marg, _lengths(replies))


ESTIMATORS = {
    "pmi": Estimator(_by_pmi, passes=2),
    "entropy": Estimator(_by_entropy, passes=2, entropy=True),
    "contrastive": Estimator(_by_contrast, passes=CONTRASTIVE_PROMPTS + 2, prompts=True),
    NONE: Estimator(None, passes=1),  # the reference log-probabilities alone
}


def _lengths(replies: Sequence[Ids]) -> Tensor:
    return torch.tensor([len(reply) for reply in replies])
