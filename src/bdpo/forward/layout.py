"""A prefix and its branches -> one batch of tensors, and where each response token lies (index arithmetic, pure).

A tree is a prefix with branches that continue it. A pair is one tree, `prompt | chosen | rejected`; for the marginals
many replies hang on the null prompt. The `shared` layout keeps a tree in one sequence of blocks: the prefix is computed
once, position ids restart after it, and a block sees itself and the blocks that it continues, no others:

    tokens      p0 p1 p2 | c0 c1 | r0 r1 r2          p0 sees p0            r1 sees p0 p1 p2 r0 r1
    position     0  1  2    3  4    3  4  5          c1 sees p0 p1 p2 c0 c1
    block        1  1  1    2  2    3  3  3          blocks 2 and 3 continue block 1

Short trees share a row, so that little is spent on padding. What their prefixes begin with alike, such as a system
prompt, is then one block that all of them continue: it too is computed once. The `packed` layout has all trees in one
row, for attention that looks at visible blocks only (`bdpo.forward.attention`) and so does not grow with the row. The
`padded` layout has one branch a sequence, for models that cannot take such a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from heapq import heapreplace
from typing import Literal

import torch
from torch import Tensor

from bdpo.errors import BdpoError

_DEPTH = 3  # blocks of the longest chain: what a row begins with, the rest of a prefix, a branch
_ALIKE_TOKENS = 8  # so many tokens must trees begin with alike to be worth a block of attention
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
    block: Tensor  # (B, L) int64, which block of the batch (1 .. S) a token belongs to; 0 is padding
    parent: Tensor  # (S + 1,) int64, the block that a block continues, earlier in its row; 0 is none
    predictors: Tensor  # (M,) int64 into the flattened (B * L,) positions: their outputs predict the response tokens
    predictor_of: Tensor  # (N,) int64 into `predictors`, of response token n (a prefix's last serves all its branches)
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
    >>> batch.predictors.tolist(), batch.predictor_of.tolist(), batch.targets.tolist(), batch.branch_of.tolist()
    ([1, 2], [0, 1, 0], [1, 2, 3], [0, 0, 1])
    """
    first_branch = [0]  # number of each tree's first branch
    for tree in trees:
        if not tree.prefix or not all(tree.branches):
            raise BdpoError("A prefix and each of its branches need at least one token.")
        first_branch.append(first_branch[-1] + len(tree.branches))
    rows = _rows(list(zip(first_branch, trees, strict=False)), layout)
    blocks = [_blocks(row) for row in rows]
    length = max(sum(len(block.ids) for block in row) for row in blocks)
    grid = torch.zeros(3, len(rows), length, dtype=torch.long)  # ids, positions, blocks
    grid[0] = pad_id
    parent = [0]
    predictions: list[tuple[int, int, int]] = []  # (branch number, flat position that predicts, token)
    for r, row_blocks in enumerate(blocks):
        before = len(parent) - 1
        predictions += _place(grid[:, r], row_blocks, before, offset=r * length)
        parent += [0 if block.parent is None else before + 1 + block.parent for block in row_blocks]
    predictions.sort(key=lambda prediction: prediction[0])  # stable: tokens stay in order within a branch
    branch_of, source, targets = torch.tensor(predictions, dtype=torch.long).T
    predictors, predictor_of = torch.unique(source, return_inverse=True)
    lengths = torch.bincount(branch_of, minlength=first_branch[-1])
    ids, positions, block = grid
    return BranchBatch(
        ids, positions, block, torch.tensor(parent), predictors, predictor_of, targets.contiguous(),
        branch_of.contiguous(), lengths, layout,
    )  # fmt: skip


def block_table(batch: BranchBatch) -> Tensor:
    """The blocks of a `packed` row, in order: (S, 2) int64, the length of each, and which block it continues, or -1.

    >>> block_table(lay_out([Tree([7, 8], [[1, 2], [3]]), Tree([9], [[4]])], layout="packed")).tolist()
    [[2, -1], [2, 0], [1, 0], [1, -1], [1, 3]]
    """
    return torch.stack([batch.block[0].bincount(), batch.parent - 1], dim=1)[1:]


def attention_mask(batch: BranchBatch) -> Tensor:
    """Which token sees which: (B, 1, L, L) bool, True = visible; for `padded` (B, L) int64, 1 = not padding.

    A token sees itself, the earlier tokens of its own block, and the blocks that it continues.
    """
    if batch.layout == "padded":
        return (batch.block > 0).long()
    keys = batch.block[:, None, :]
    own, *continued = chain(batch.block, batch.parent)
    visible = own[:, :, None] == keys
    for block in continued:
        visible |= block[:, :, None] == keys
    return visible.tril_()[:, None]


def chain(block: Tensor, parent: Tensor) -> list[Tensor]:
    """Of each token its block, the block that this continues, and so on; 0 where there is no more, and for padding."""
    blocks = [block]
    while len(blocks) < _DEPTH:
        blocks.append(parent[blocks[-1]])
    return blocks


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


def _rows(numbered: list[tuple[int, Tree]], layout: Layout) -> list[list[tuple[int, Tree]]]:
    """The trees of each row, each with the number of its first branch."""
    if layout == "packed":
        return [numbered]
    if layout == "shared":
        return _pack(numbered)
    return [
        [(first + i, Tree(tree.prefix, [branch]))] for first, tree in numbered for i, branch in enumerate(tree.branches)
    ]


@dataclass(frozen=True)
class _Block:
    """Tokens of a row that see the same blocks before them."""

    ids: Ids
    parent: int | None  # the block of the row that it continues
    branch: int | None = None  # number of the branch that it is; None for a prefix


def _blocks(row: list[tuple[int, Tree]]) -> list[_Block]:
    """What the trees of a row begin with alike, then of each tree the rest of its prefix, and its branches."""
    alike = _alike([tree.prefix for _, tree in row])
    blocks = [_Block(row[0][1].prefix[:alike], parent=None)] if alike else []
    root = 0 if alike else None
    for number, tree in row:
        last = root
        if len(tree.prefix) > alike:
            last = len(blocks)
            blocks.append(_Block(tree.prefix[alike:], parent=root))
        blocks += [_Block(branch, last, number + b) for b, branch in enumerate(tree.branches)]
    return blocks


def _alike(prefixes: Sequence[Ids]) -> int:
    """How many tokens all prefixes begin with alike; 0 where they are too few, or one prefix is all there is."""
    if len(prefixes) == 1:
        return 0
    shortest = min(prefixes, key=len)
    alike = next((i for i, token in enumerate(shortest) if any(p[i] != token for p in prefixes)), len(shortest))
    return alike if alike >= _ALIKE_TOKENS else 0


def _place(row: Tensor, blocks: list[_Block], before: int, offset: int) -> list[tuple[int, int, int]]:
    """Write blocks into a row (3, L), numbered after the `before` of other rows.

    Returns the (branch number, flat position, token) triples.
    """
    ends: list[tuple[int, int]] = []  # of each block: tokens up to its end, column of its last token
    triples = []
    at = 0
    for i, block in enumerate(blocks, start=1):
        seen, last = (0, -1) if block.parent is None else ends[block.parent]
        start, at = at, at + len(block.ids)
        ends.append((seen + len(block.ids), at - 1))
        row[0, start:at] = torch.as_tensor(block.ids)
        row[1, start:at] = torch.arange(seen, seen + len(block.ids))
        row[2, start:at] = before + i
        if block.branch is not None:
            sources = [last, *range(start, at - 1)]
            triples += [(block.branch, offset + s, int(token)) for s, token in zip(sources, block.ids, strict=True)]
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
