"""Comprehension: how much the prompt helps a model with a response, in nats per token (pure).

The measure is mutual information between prompt and response under the frozen reference model. That
measure is the one named in the public abstract of arXiv:2603.22829; the formulas here are this
project's instantiation of the idea and are not quoted from the paper.

Every function takes plain tensors, computes in float64 and returns float64: the sums are near -200 nats
and their difference near 30, so float32 would leave an error of about 1e-5 nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bdpo.errors import BdpoError


def pmi(cond: Tensor, marg: Tensor, lengths: Tensor) -> Tensor:
    """Pointwise mutual information per token: i = (cond - marg) / T.

    cond     (N,) sum over the response's tokens of log pi_0(y_t | x, y_<t)    [nats]
    marg     (N,) the same tokens without the prompt, log pi_0(y_t | x0, y_<t) [nats]
    lengths  (N,) T, the number of tokens in both sums
    returns  (N,) [nats/token]; negative where the prompt makes the response less likely

    By hand: (-10 - -14) / 4 = 1 and (-6 - -5) / 2 = -0.5.

    >>> pmi(torch.tensor([-10.0, -6.0]), torch.tensor([-14.0, -5.0]), torch.tensor([4, 2])).tolist()
    [1.0, -0.5]
    """
    return _per_token(cond, marg, lengths)


def entropy_drop(conditional_entropy_sum: Tensor, marginal_entropy_sum: Tensor, lengths: Tensor) -> Tensor:
    """Drop in predictive entropy that the prompt brings: mean over t of H(. | x0, y_<t) - H(. | x, y_<t).

    conditional_entropy_sum  (N,) sum over t of H(pi_0(. | x, y_<t))   [nats]
    marginal_entropy_sum     (N,) sum over t of H(pi_0(. | x0, y_<t))  [nats]
    lengths                  (N,) T, the number of tokens in both sums
    returns                  (N,) [nats/token]

    By hand: (9 - 6) / 3 = 1.

    >>> entropy_drop(torch.tensor([6.0]), torch.tensor([9.0]), torch.tensor([3])).tolist()
    [1.0]
    """
    return _per_token(marginal_entropy_sum, conditional_entropy_sum, lengths)


def contrastive_marginal(logps: Tensor) -> Tensor:
    """Monte-Carlo marginal over K other prompts: marg(y) = log(1/K sum_k pi_0(y | x_k)).

    logps    (K, N) log pi_0(y_n | x_k), summed over the response's tokens  [nats]
    returns  (N,)   [nats]; goes into `pmi` in place of the marginal under the null prompt

    By hand: log((e^-1 + e^-3) / 2) = -1 + log(1 + e^-2) - log 2 = -1.566219.

    >>> f"{contrastive_marginal(torch.tensor([[-1.0], [-3.0]])).item():.6f}"
    '-1.566219'
    """
    if logps.dim() != 2 or len(logps) == 0:
        raise BdpoError(f"contrastive_marginal takes logps (K, N), K >= 1, not {tuple(logps.shape)}.")
    return torch.logsumexp(logps.double(), dim=0) - math.log(len(logps))


def _per_token(minuend: Tensor, subtrahend: Tensor, lengths: Tensor) -> Tensor:
    shapes = [tuple(tensor.shape) for tensor in (minuend, subtrahend, lengths)]
    if minuend.dim() != 1 or len(set(shapes)) > 1:
        raise BdpoError(f"The two sums and the lengths must have one shape (N,), not {shapes}.")
    empty = (lengths <= 0).nonzero().flatten().tolist()
    if empty:
        raise BdpoError(f"Every response must have at least one token; that at position {empty[0]} has none.")
    return (minuend.double() - subtrahend.double()) / lengths.double()
