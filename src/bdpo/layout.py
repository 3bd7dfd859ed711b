"""A prefix and its branches -> one batch of tensors, and where each response token lies (index arithmetic, pure).

A tree is a prefix with branches that continue it. A pair is one tree, `prompt | chosen | rejected`; for the marginals
many replies hang on the null prompt. The `shared` layout keeps a tree in one sequence: the prefix is computed once,
position ids restart after it, and the attention mask hides the branches from one another:

    tokens      p0 p1 p2 | c0 c1 | r0 r1 r2          p0 sees p0            r1 sees p0 p1 p2 r0 r1
    position     0  1  2    3  4    3  4  5          c1 sees p0 p1 p2 c0 c1
    branch       0  0  0    1  1    2  2  2

Short trees share a row, hidden from one another in the same way, so that little is spent on padding. The `packed`
layout has all trees in one row, for attention that looks at visible blocks only (`bdpo.attention`) and so does not grow
with the row. The `padded` layout has one branch a sequence, for models that cannot take such a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from heapq import heapreplace
from typing import Literal

import torch
from torch import Tensor

from bdpo.errors import BdpoError

_ATTENTION_TOKENS = 2000  # row length at which attention takes about as long as all else (135M parameters on a CPU)

Layout = Literal["packed", "shared", "padded"]
Ids = Sequence[int]


@dataclass(frozen=True)
class Tree:
    """A prefix of token ids and the branches that continue it."""

    prefix: Ids
    branches: Sequence[Ids]

    def __len__(self) -> int:
        return len(self.prefix) + sum(map(len, self.branches))


@dataclass(frozen=True)
class BranchBatch:
    """Trees laid out in B rows of L tokens, with K branches that hold N response tokens.

    Branches are numbered in the order of the trees, then of each tree's branches.
    """

    input_ids: Tensor  # (B, L) int64
    position_ids: Tensor  # (B, L) int64
    tree: Tensor  # (B, L) int64, which tree of its row a token belongs to; 0 is padding
    branch: Tensor  # (B, L) int64, which branch of its tree; 0 is the prefix
    heads: Tensor  # (M,) int64 into the flattened (B * L,) positions: those whose output predicts a response token
    head_of: (
        Tensor  # (N,) int64 into `heads`: what predicts response token n (a prefix's last token serves all branches)
    )
    targets: Tensor  # (N,) int64, the response tokens
    branch_of: Tensor  # (N,) int64, the branch (0 .. K-1) of response token n
    lengths: Tensor  # (K,) int64, response tokens of each branch
    layout: Layout

    def to(self, device: torch.device | str) -> BranchBatch:
        """The same batch with all tensors on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "layout"}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def lay_out(trees: Sequence[Tree], *, layout: Layout = "shared", pad_id: int = 0) -> BranchBatch:
    """Lay trees out as one batch.

    Args:
        trees: at least one.
        layout: `packed` (one row), `shared` (trees packed into rows at the least cost), or `padded`.
        pad_id: token id written where a row is not filled; it is masked and may be any valid id.

    Raises:
        BdpoError: a prefix or a branch has no token.

    >>> batch = lay_out([Tree([7, 8], [[1, 2], [3]])])
    >>> batch.input_ids.tolist(), batch.position_ids.tolist()
    ([[7, 8, 1, 2, 3]], [[0, 1, 2, 3, 2]])
    >>> batch.heads.tolist(), batch.head_of.tolist(), batch.targets.tolist(), batch.branch_of.tolist()
    ([1, 2], [0, 1, 0], [1, 2, 3], [0, 0, 1])
    """
    first_branch = [0]  # number of each tree's first branch
    for tree in trees:
        if not tree.prefix or not all(tree.branches):
            raise BdpoError("A prefix and each of its branches need at least one token.")
        first_branch.append(first_branch[-1] + len(tree.branches))
    numbered = [(first_branch[i], tree) for i, tree in enumerate(trees)]
    if layout == "packed":
        rows = [numbered]
    elif layout == "shared":
        rows = _pack(numbered)
    else:
        rows = [
            [(first_branch[i] + j, Tree(tree.prefix, [branch]))]
            for i, tree in enumerate(trees)
            for j, branch in enumerate(tree.branches)
        ]
    length = max(sum(len(tree) for _, tree in row) for row in rows)
    grid = torch.zeros(4, len(rows), length, dtype=torch.long)  # ids, positions, tree, branch
    grid[0] = pad_id
    predictions: list[tuple[int, int, int]] = []  # (branch number, flat position that predicts, token)
    for r, row in enumerate(rows):
        at = 0
        for t, (number, tree) in enumerate(row, start=1):
            predictions += _place(grid[:, r], at, t, tree, number, offset=r * length)
            at += len(tree)
    predictions.sort(key=lambda prediction: prediction[0])  # stable: tokens stay in order within a branch
    branch_of, source, targets = torch.tensor(predictions, dtype=torch.long).T
    heads, head_of = torch.unique(source, return_inverse=True)
    lengths = torch.bincount(branch_of, minlength=first_branch[-1])
    ids, positions, tree_of, branch = grid
    return BranchBatch(
        ids, positions, tree_of, branch, heads, head_of, targets.contiguous(), branch_of.contiguous(), lengths, layout
    )


def block_table(batch: BranchBatch) -> Tensor:
    """The blocks of a `packed` row, in order: (S, 2) int64, the length of each, and which block is its prefix.

    A prefix is its own prefix.

    >>> block_table(lay_out([Tree([7, 8], [[1, 2], [3]]), Tree([9], [[4]])], layout="packed")).tolist()
    [[2, 0], [2, 0], [1, 0], [1, 3], [1, 3]]
    """
    tokens = torch.stack([batch.tree[0], batch.branch[0]])
    (_, branch), lengths = torch.unique_consecutive(tokens, dim=1, return_counts=True)
    is_prefix = branch == 0
    prefix = is_prefix.nonzero().flatten()[is_prefix.cumsum(0) - 1]
    return torch.stack([lengths, prefix], dim=1)


def attention_mask(batch: BranchBatch) -> Tensor:
    """Which token sees which: (B, 1, L, L) bool, True = visible; for `padded` (B, L) int64, 1 = not padding.

    A token sees itself, the earlier tokens of its own branch, and its tree's prefix.
    """
    if batch.layout == "padded":
        return (batch.tree > 0).long()
    same_tree = batch.tree[:, :, None] == batch.tree[:, None, :]
    same_branch = batch.branch[:, :, None] == batch.branch[:, None, :]
    in_prefix = (batch.branch == 0)[:, None, :]
    return (same_tree & (same_branch | in_prefix)).tril_()[:, None]


def bucket(lengths: Sequence[int], budget: int, *, padded: bool = False) -> list[list[int]]:
    """Group indices into batches of like length whose summed length stays within `budget` tokens.

    A single item above the budget gets a batch of its own. Longest first, so that a batch that does not fit in
    memory shows at the start. With `padded` every item counts as long as the longest of its batch.

    >>> bucket([5, 1, 9, 4], 10)
    [[2], [0, 3, 1]]
    >>> bucket([5, 1, 9, 4], 10, padded=True)
    [[2], [0, 3], [1]]
    """
    batches: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        cost = lengths[batches[-1][0]] if padded and batches else lengths[i]
        if not batches or cost > room:
            batches.append([])
            room, cost = budget, lengths[i]
        batches[-1].append(i)
        room -= cost
    return batches


def hang(prefix: Ids, branches: Sequence[Ids], room: int) -> list[tuple[list[int], Tree]]:
    """Hang many branches on one prefix, in as few trees of at most `room` tokens as first-fit finds.

    Returns the trees, each with the indices of its branches. A branch too long for `room` gets a tree of its own.
    """
    bins = _first_fit([len(branch) for branch in branches], room - len(prefix))
    return [(members, Tree(prefix, [branches[i] for i in members])) for members in bins]


def spread(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices dealt into `count` rows of like total length: the longest first, each to the emptiest row."""
    rows: list[list[int]] = [[] for _ in range(count)]
    emptiest = [(0, row) for row in range(count)]  # a heap of (total length, row)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        total, row = emptiest[0]
        rows[row].append(i)
        heapreplace(emptiest, (total + lengths[i], row))
    return rows


def _place(row: Tensor, at: int, t: int, tree: Tree, number: int, offset: int) -> list[tuple[int, int, int]]:
    """Write one tree into a row (4, L) from column `at`; return its (branch number, flat position, token) triples."""
    start, end = at, at + len(tree.prefix)
    row[0, start:end] = torch.as_tensor(tree.prefix)
    row[1, start:end] = torch.arange(len(tree.prefix))
    row[2, start:end] = t
    last_of_prefix = end - 1
    triples = []
    for b, branch in enumerate(tree.branches):
        start, end = end, end + len(branch)
        row[0, start:end] = torch.as_tensor(branch)
        row[1, start:end] = torch.arange(len(tree.prefix), len(tree.prefix) + len(branch))
        row[2, start:end] = t
        row[3, start:end] = b + 1
        sources = [last_of_prefix, *range(start, end - 1)]
        triples += [(number + b, offset + s, int(token)) for s, token in zip(sources, branch, strict=True)]
    return triples


def _pack(numbered: list[tuple[int, Tree]]) -> list[list[tuple[int, Tree]]]:
    """Put trees into rows at the least cost: longer rows need less padding, but attention grows with their square."""
    lengths = [len(tree) for _, tree in numbered]

    def cost(rows: list[list[int]]) -> float:
        length = max(sum(lengths[i] for i in row) for row in rows)
        return len(rows) * length * (1 + length / _ATTENTION_TOKENS)

    fewest = max(1, sum(lengths) // (4 * max(lengths)))  # rows of up to four times the longest tree are tried
    counts = range(fewest, len(lengths) + 1, 1 + (len(lengths) - fewest) // 32)
    rows = min((spread(lengths, count) for count in (*counts, len(lengths))), key=cost)
    return [[numbered[i] for i in row] for row in rows]


def _first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing bin packing: indices of each bin."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = next((b for b, room in enumerate(rooms) if room >= lengths[i]), None)
        if at is None:
            bins.append([i])
            rooms.append(capacity - lengths[i])
        else:
            bins[at].append(i)
            rooms[at] -= lengths[i]
    return bins
