"""Attention over a packed row, block by block: a block of queries meets the keys that it may see, and few others.

A dense mask makes the kernel compare every token of the row with every other and throw most of it away, and the row's
square sits in memory. Here each block attends to itself, causally, and to the blocks that it continues, so that the
cost is that of the trees one by one, however many share the row.

On a GPU FlexAttention does so, by its block mask (`flex_mask`); here is the same for `sdpa` on a CPU.

The blocks travel where the mask would: transformers hands a mask of four dimensions on as it is, and so gradient
checkpointing, PEFT and DDP need to know nothing of them. `sdpa` is told from other masks by the dtype.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bdpo.forward.layout import chain

_UNKNOWN_HERE = ("softcap", "position_bias", "s_aux")  # what some models ask of attention beside scores and mask
_TOGETHER = 128  # tokens of the short blocks that share a call: they compare each with all, and throw most of it away


@cache
def let_sdpa_take_blocks() -> None:
    """Replace what transformers calls `sdpa`, for this process; for every other mask it is what it was."""
    AttentionInterface.register("sdpa", _sdpa)


def block_attention(
    query: Tensor, key: Tensor, value: Tensor, blocks: Tensor, *, dropout: float = 0.0, scaling: float | None = None
) -> Tensor:
    """Attention of one packed row.

    Args:
        query: (1, H, L, D).
        key, value: (1, K, L, D) with H a multiple of K (grouped queries).
        blocks: (S, 2) int64 as `layout.block_table` makes it, on the CPU: length of each block of the row, and
            which block it continues, or -1.

    Returns:
        (1, L, H, D).
    """
    spans = _spans(tuple(map(tuple, blocks.tolist())), query.dtype, query.device)
    groups = query.shape[1] // key.shape[1]
    sizes = [span.size for span in spans]
    # the heads of keys become the batch, so that a group's queries share them without a copy
    queries = query[0].unflatten(0, (-1, groups)).split(sizes, dim=2)  # each (K, groups, size, D)
    keys, values = (list(x[0][:, None].split(sizes, dim=2)) for x in (key, value))  # each (K, 1, size, D)
    outputs = []
    for i, (_, parent, mask) in enumerate(spans):
        if parent >= 0:  # what the parent sees, it sees too
            keys[i], values[i] = (torch.cat([seen[parent], seen[i]], dim=2) for seen in (keys, values))
        k, v = (seen[i].expand(-1, groups, -1, -1) for seen in (keys, values))
        output = scaled_dot_product_attention(
            queries[i], k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling
        )
        outputs.append(output.permute(2, 0, 1, 3))
    return torch.cat(outputs).flatten(1, 2)[None]


class _Span(NamedTuple):
    """A block, or short ones that continue the same, side by side: one call of attention."""

    size: int
    parent: int  # number of the span that it continues, or -1
    mask: Tensor | None  # (size, keys) additive, keys being the chain's and its own; None: causal


@lru_cache(maxsize=1)  # the layers of a model ask for the same one after another
def _spans(blocks: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> list[_Span]:
    continued = {parent for _, parent in blocks}
    members: list[list[int]] = []  # of each span, the lengths of its blocks
    parents: list[int] = []
    span_of: list[int] = []  # of each block
    joins = False  # whether the last span may take another block
    for i, (length, parent) in enumerate(blocks):
        of_parent = -1 if parent < 0 else span_of[parent]
        leaf = i not in continued and parent >= 0
        if leaf and joins and parents[-1] == of_parent and sum(members[-1]) + length <= _TOGETHER:
            members[-1].append(length)
        else:
            members.append([length])
            parents.append(of_parent)
        joins = leaf
        span_of.append(len(members) - 1)
    spans: list[_Span] = []
    seen: list[int] = []  # keys of each span
    with torch.inference_mode(False):  # a training step may ask for what an evaluation made
        for lengths, parent in zip(members, parents, strict=True):
            size = sum(lengths)
            seen.append(size + (seen[parent] if parent >= 0 else 0))
            mask = _side_by_side(lengths, seen[-1], dtype, device) if parent >= 0 else None
            spans.append(_Span(size, parent, mask))
    return spans


def _side_by_side(lengths: list[int], keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive mask (queries, keys) of blocks that see what is before them all, and each itself, causally."""
    size = sum(lengths)
    mask = torch.full((size, keys), float("-inf"), dtype=dtype, device=device)
    mask[:, : keys - size] = 0
    for start, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
        at = keys - size + start
        mask[start : start + length, at : at + length].triu_(1)
    return mask


def flex_mask(block: Tensor, parent: Tensor) -> BlockMask:
    """The block mask of rows for FlexAttention, which skips the tiles in which no token sees another.

    Making it looks at the row's square once a batch, for all layers.

    Args:
        block, parent: (1, L) and (S + 1,) int64 as in `layout.BranchBatch`, on the model's device.
    """
    length = block.shape[1]
    own, continued, first = (blocks[0] for blocks in chain(block, parent))

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_key = own[key]
        seen = (own[query] == of_key) | (continued[query] == of_key) | (first[query] == of_key)
        return seen & (query >= key)

    return create_block_mask(visible, None, None, length, length, device=block.device)


def _sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    asked = [name for name in _UNKNOWN_HERE if kwargs.get(name) is not None]
    if asked:
        raise ValueError(f"attention by blocks does not know {asked[0]}")
    return block_attention(query, key, value, attention_mask[0, 0], dropout=dropout, scaling=scaling), None
