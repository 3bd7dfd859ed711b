"""A frozen model sharded over the processes of a launch, by torch's `fully_shard` (FSDP2), and the pass over it.

Each process holds its share of all weights, and while a layer is at work that layer whole. Bringing a layer together is
a matter of all processes, so they run every forward pass at the same time: each asks before one whether any still has
a batch, and a process without one joins in with a token of no account.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from bdpo.forward.layout import BranchBatch, Tree, lay_out
from bdpo.forward.logprobs import BranchLogps, branch_logps
from bdpo.forward.passes import Pass
from bdpo.models import device_of
from bdpo.processes import processes


def sharded(model: nn.Module) -> nn.Module:
    """A copy of `model` whose weights are shared out; the model itself stays whole, where it is, for whoever trains it.

    The copy begins with the model's own storage, and each layer's share moves to this process's device by itself: no
    device ever holds the whole.
    """
    same: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    shares: Any = copy.deepcopy(model, same)
    mesh = init_device_mesh(processes().device.type, (processes().num_processes,))
    units = {kind for module in shares.modules() for kind in getattr(module, "_no_split_modules", None) or ()}
    for module in reversed(list(shares.modules())):  # a unit within another one first
        if type(module).__name__ in units:
            fully_shard(module, mesh=mesh)
    return fully_shard(shares, mesh=mesh)


@dataclass(frozen=True)
class ShardedPass(Pass):
    """A `Pass` over what `sharded` made. Every process makes one, asks it as often as it likes, and then joins."""

    def sums(self, batch: BranchBatch, *, hidden: bool = False) -> BranchLogps:
        """Branch sums of a batch, when the other processes are ready for their own."""
        _any_has(device_of(self.model), work=True)
        return super().sums(batch, hidden=hidden)

    def join(self) -> None:
        """Help the others until none has a batch left."""
        device = device_of(self.model)
        filler = lay_out([Tree([0], [[0]])], layout=self.layout).to(device)
        while _any_has(device, work=False):
            branch_logps(self.model, filler)


def _any_has(device: torch.device, *, work: bool) -> bool:
    """Whether any process has work, which each says of itself."""
    flag = torch.tensor(int(work), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)
