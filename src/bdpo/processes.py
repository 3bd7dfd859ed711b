"""This process among others, and the device it computes on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def processes() -> PartialState:
    """This process among those of `accelerate launch` or `torchrun`: which one, how many, on which device."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu())


def on_cpu() -> bool:
    """Whether this process computes on the CPU: there is nothing else, or the launcher says so.

    accelerate must be told: left to itself it takes each process on a machine without accelerator for the only one.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def first_to_say(sentence: str) -> bool:
    """Whether no other process of this launch has said it yet: their launcher keeps a store that all of them reach."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore

    try:
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        return store.add(f"bdpo: {sentence}", 1) == 1
    except RuntimeError:  # the launcher is gone
        return True
