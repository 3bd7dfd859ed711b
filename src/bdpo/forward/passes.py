"""A frozen model over many trees: batches of like length, one forward pass each, sums in the order of the trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bdpo.forward.allocator import keep_freed_memory
from bdpo.forward.layout import BranchBatch, Ids, Layout, Tree, bucket, hang, lay_out
from bdpo.forward.logprobs import BranchLogps, branch_logps
from bdpo.models import device_of

CPU_BATCH_TOKENS, BATCH_TOKENS = 1024, 8192  # of a forward pass: a CPU's caches favour little
_ROW_TOKENS = 512  # longest row that replies are hung on one prefix in: attention grows with its square


@dataclass(frozen=True)
class Pass:
    """The frozen model and how batches are made for it; hands out sums of log-probabilities and entropies."""

    model: Any
    layout: Layout
    progress: tqdm[Any]
    batch_tokens: int | None = None  # a forward pass may hold; None: by the device
    entropy: bool = False

    def over(self, trees: Sequence[Tree], *, hidden: bool = False) -> BranchLogps:
        """Branch sums of all trees, in their order; batches are made of trees of like length."""
        if self.layout == "padded":  # one branch a sequence, and that is what its tokens are
            trees = [Tree(tree.prefix, [branch]) for tree in trees for branch in tree.branches]
        starts = [0, *accumulate(len(tree.branches) for tree in trees)]
        logps = torch.zeros(starts[-1], dtype=torch.float64)
        entropies = torch.zeros_like(logps) if self.entropy else None
        states: Tensor | None = None
        device = device_of(self.model)
        if device.type == "cpu":
            keep_freed_memory()
        budget = self.batch_tokens or (CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS)
        lengths = [len(tree) for tree in trees]
        for members in bucket(lengths, budget, padded=self.layout == "padded"):
            batch = lay_out([trees[i] for i in members], layout=self.layout).to(device)
            sums = self.sums(batch, hidden=hidden)
            places = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in members])
            logps[places] = sums.logps.cpu().double()
            if entropies is not None and sums.entropies is not None:
                entropies[places] = sums.entropies.cpu().double()
            if sums.hidden is not None:
                states = torch.zeros(len(logps), sums.hidden.shape[1]) if states is None else states
                states[places] = sums.hidden.cpu()
            self.progress.update(int(batch.lengths.sum()))
        return BranchLogps(logps, entropies, states)

    def sums(self, batch: BranchBatch, *, hidden: bool = False) -> BranchLogps:
        """Branch sums of one batch: one forward pass."""
        return branch_logps(self.model, batch, entropy=self.entropy, hidden=hidden)

    def conditional(self, prompts: Sequence[Ids], replies: Sequence[Ids], *, hidden: bool = False) -> BranchLogps:
        """Sums (2n,) of n pairs, each a tree on its own prompt; `replies` are n chosen, then n rejected."""
        n = len(prompts)
        sums = self.over([Tree(prompts[i], (replies[i], replies[n + i])) for i in range(n)], hidden=hidden)
        order = torch.arange(2 * n).view(n, 2).T.flatten()  # from chosen, rejected, chosen ... to all chosen first
        return _ordered(sums, order)

    def on(self, prefix: Ids, replies: Sequence[Ids]) -> BranchLogps:
        """Sums of many replies that hang on one prefix, in the order of `replies`."""
        hung = hang(prefix, replies, max(_ROW_TOKENS, 2 * len(prefix)))
        sums = self.over([tree for _, tree in hung])
        order = torch.tensor([i for members, _ in hung for i in members]).argsort()
        return _ordered(sums, order)


def _ordered(sums: BranchLogps, order: Tensor) -> BranchLogps:
    entropies, hidden = (None if found is None else found[order] for found in (sums.entropies, sums.hidden))
    return BranchLogps(sums.logps[order], entropies, hidden)
