"""Scored rows -> the micro-batches of an optimiser step.

A step is a fixed list of pairs, whatever the micro-batch, the accumulation and the number of processes. Its pairs are
sorted by length and dealt out, so that what is computed together has like length; where a step has fewer pairs than
places, an empty micro-batch gets one filler, which keeps the processes in step and weighs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader

from bdpo.forward.layout import BranchBatch, Layout, Tree, lay_out, spread
from bdpo.method.balance import Balance


@dataclass(frozen=True)
class Filler:
    """Stands for a row of the data where a micro-batch would be empty: computed like it, and counted for nothing."""

    row: int


class StepSampler:
    """Lists of rows, one a micro-batch, for this process: indices, or one `Filler`.

    Args:
        lengths: tokens of each row.
        per_step: pairs of an optimiser step, over all processes and accumulation.
        micro: pairs of a micro-batch.
        rank, world: this process and how many there are; `per_step` is a multiple of `micro * world`.
        shuffle: a new order each epoch (seeded, see `set_epoch`), else the order of the rows.
        dealt: so many micro-batches a step (over all processes, a multiple of `world`), dealt so that each has about
            as many tokens; None: as many as `micro` gives, of pairs of like length.

    >>> list(StepSampler([5, 9, 7], per_step=2, micro=1, shuffle=False))
    [[1], [0], [2], [Filler(row=2)]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        per_step: int,
        micro: int,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        dealt: int | None = None,
    ) -> None:
        self.lengths = lengths
        self.dealt = dealt
        self.per_step, self.micro, self.rank, self.world = per_step, micro, rank, world
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self.epoch = 0
        self.batch_size = micro  # read by transformers.Trainer

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Micro-batches of this process in an epoch."""
        n = len(self.lengths)
        steps = n // self.per_step if self.drop_last else -(-n // self.per_step)
        return steps * (self.dealt or self.per_step // self.micro) // self.world

    def steps(self) -> Iterator[list[int]]:
        """The lists of rows that make up the steps of the epoch."""
        n = len(self.lengths)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(n, generator=generator).tolist()
        else:
            order = list(range(n))
        end = n - n % self.per_step if self.drop_last else n
        for start in range(0, end, self.per_step):
            yield order[start : start + self.per_step]

    def __iter__(self) -> Iterator[list[int] | list[Filler]]:
        for step in self.steps():
            rows = sorted(step, key=lambda i: -self.lengths[i])
            if self.dealt:
                batches = [[rows[i] for i in batch] for batch in spread([self.lengths[i] for i in rows], self.dealt)]
            else:
                batches = [rows[start : start + self.micro] for start in range(0, self.per_step, self.micro)]
            for batch in batches[self.rank :: self.world]:
                yield batch or [Filler(rows[-1])]


def fewest_batches(sampler: StepSampler, epochs: int, budget: int) -> int:
    """Micro-batches that a step must be dealt into, over all processes, so that none exceeds `budget` tokens.

    The same number for every step of all epochs, a multiple of the number of processes. A pair longer than the budget
    is a micro-batch of its own.

    >>> fewest_batches(StepSampler([5, 9, 7, 3], per_step=4, micro=1, shuffle=False), 1, 12)
    2
    """
    budget = max(budget, *sampler.lengths)
    count = sampler.world
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for step in sampler.steps():
            lengths = [sampler.lengths[i] for i in step]
            while max(sum(lengths[i] for i in batch) for batch in spread(lengths, count)) > budget:
                count += sampler.world
    return count


class ScoredRows:
    """Rows of a scored data set with their balance; a `Filler` gives its row, marked as not real."""

    def __init__(
        self, rows: Dataset, balance: Balance, manifest: dict[str, Any], kinds: Sequence[int] | None = None
    ) -> None:
        self.rows = rows
        self.kinds = kinds or [0] * len(rows)  # as `PairStatistics` has them
        self.manifest = manifest  # of the scores
        self.balance = balance
        table = rows.with_format("arrow")[:]  # not rows.data, which forgets a selection of rows
        mi = {side: torch.tensor(table[f"{side}_mi"].to_numpy()) for side in ("chosen", "rejected")}
        self.imbalance = mi["chosen"] - mi["rejected"]  # (N,) float64 [nats/token]; nan where not measured
        prompt, chosen, rejected = (
            pc.list_value_length(table[f"{part}_ids"]).to_numpy() for part in ("prompt", "chosen", "rejected")
        )
        self.lengths: list[int] = (prompt + chosen + rejected).tolist()
        self.longest = int((prompt + np.maximum(chosen, rejected)).max())  # prompt + longer reply

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Filler) -> dict[str, Any]:
        i = index.row if isinstance(index, Filler) else index
        return {
            **self.rows[i],
            "real": not isinstance(index, Filler),
            "chosen_weight": self.balance.chosen_weight[i].item(),
            "rejected_weight": self.balance.rejected_weight[i].item(),
            "scale": self.balance.scale[i].item(),
            "imbalance": self.imbalance[i].item(),
            "kind": self.kinds[i],
        }


@dataclass(frozen=True)
class PairBatch:
    """B pairs laid out for one forward pass; branches 2i and 2i + 1 are the chosen and rejected reply of pair i."""

    branches: BranchBatch
    ref_chosen: Tensor  # (B,) float32 [nats]
    ref_rejected: Tensor
    chosen_weight: Tensor  # (B,) float32
    rejected_weight: Tensor
    scale: Tensor  # (B,) float32
    imbalance: Tensor  # (B,) float32 [nats/token]; nan where not measured
    kind: Tensor  # (B,) float32, as `PairStatistics` has it
    chosen_unsafe: Tensor  # (B,) bool, False where not labelled
    rejected_unsafe: Tensor
    real: Tensor  # (B,) bool, False for fillers
    ids: list[str]

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch with all tensors on `device`."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "ids"}
        return replace(self, **moved)


class PairCollator:
    """Rows -> {"pairs": PairBatch}.

    The batch travels as one object, not as tensors: Trainer casts float tensors to bfloat16 under DeepSpeed, and near
    -200 nats that is a step of one.

    >>> a = {"id": "a", "prompt_ids": [7, 8], "chosen_ids": [1, 2], "rejected_ids": [3],
    ...      "ref_chosen_logps": -5.0, "ref_rejected_logps": -2.5, "chosen_safe": True, "rejected_safe": False,
    ...      "chosen_weight": 0.5, "rejected_weight": 1.5, "scale": 0.9, "imbalance": 0.25, "kind": 1, "real": True}
    >>> b = a | {"id": "b", "prompt_ids": [9], "chosen_ids": [4], "rejected_ids": [5, 6]}
    >>> batch = PairCollator("packed", pad_id=0)([a, b])["pairs"]
    >>> batch.branches.input_ids  # prompt of a, its chosen, its rejected response; then b
    tensor([[7, 8, 1, 2, 3, 9, 4, 5, 6]])
    >>> batch.branches.position_ids  # both responses continue the prompt
    tensor([[0, 1, 2, 3, 2, 0, 1, 1, 2]])
    >>> batch.branches.block
    tensor([[1, 1, 2, 2, 3, 4, 5, 6, 6]])
    >>> batch.branches.lengths  # chosen and rejected response of a, of b
    tensor([2, 1, 1, 2])
    >>> batch.ref_chosen, batch.chosen_weight, batch.rejected_unsafe
    (tensor([-5., -5.]), tensor([0.5000, 0.5000]), tensor([True, True]))
    """

    def __init__(self, layout: Layout, pad_id: int) -> None:
        self.layout = layout
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, PairBatch]:
        trees = [Tree(row["prompt_ids"], (row["chosen_ids"], row["rejected_ids"])) for row in rows]

        def column(name: str) -> Tensor:
            return torch.tensor([row[name] for row in rows], dtype=torch.float32)

        batch = PairBatch(
            branches=lay_out(trees, layout=self.layout, pad_id=self.pad_id),
            ref_chosen=column("ref_chosen_logps"),
            ref_rejected=column("ref_rejected_logps"),
            chosen_weight=column("chosen_weight"),
            rejected_weight=column("rejected_weight"),
            scale=column("scale"),
            imbalance=column("imbalance"),
            kind=column("kind"),
            chosen_unsafe=torch.tensor([row["chosen_safe"] is False for row in rows]),
            rejected_unsafe=torch.tensor([row["rejected_safe"] is False for row in rows]),
            real=torch.tensor([row["real"] for row in rows]),
            ids=[row["id"] for row in rows],
        )
        return {"pairs": batch}


class StepLoader(DataLoader):
    """A DataLoader whose batch sampler is told the epoch, as transformers.Trainer tells its loaders."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
