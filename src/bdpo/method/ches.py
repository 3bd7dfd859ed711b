"""CHES, the centered hidden embedding similarity of a pair's responses (Razin et al., arXiv:2410.08847; pure).

A diagnosis beside comprehension: the higher it is, the likelier is DPO to make the preferred response less likely as
well (likelihood displacement). Read in the authors' code (princeton-nlp/unintentional-unalignment, ches/ches.py), not
in the paper. With S_y the sum over a response's tokens of the hidden states that predict them, which are those of the
prompt's last token to the response's last but one:

    CHES = <S_c, S_r> - ||S_c||^2          length-normalised: the same with S_y / T_y in place of S_y

The subtraction is what is centred: a rejected response that is the chosen one has CHES 0.
"""

from __future__ import annotations

from torch import Tensor

from bdpo.errors import BdpoError


def ches(chosen: Tensor, rejected: Tensor) -> Tensor:
    """CHES of each pair.

    chosen, rejected  (N, D) S_c and S_r, or their means over tokens for the length-normalised form
    returns           (N,) float64, in squared units of a hidden state

    By hand: <(1, 2), (3, 1)> - ||(1, 2)||^2 = 5 - 5 = 0, and <(1, 0), (-2, 7)> - 1 = -3.

    >>> import torch
    >>> ches(torch.tensor([[1.0, 2.0], [1.0, 0.0]]), torch.tensor([[3.0, 1.0], [-2.0, 7.0]])).tolist()
    [0.0, -3.0]
    """
    if chosen.dim() != 2 or chosen.shape != rejected.shape:
        raise BdpoError(f"ches takes two tensors (N, D), not {tuple(chosen.shape)} and {tuple(rejected.shape)}.")
    chosen, rejected = chosen.double(), rejected.double()
    return (chosen * (rejected - chosen)).sum(dim=1)
