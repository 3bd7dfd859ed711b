"""This process among others, and the device it computes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import PartialState

_STOPS = (signal.SIGINT, signal.SIGTERM)


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


def weights_are_sharded() -> bool:
    """Whether the engine that `accelerate launch` was told of shares out the weights: FSDP, or DeepSpeed's ZeRO-3."""
    from accelerate.utils import DeepSpeedPlugin, parse_flag_from_env

    # the plugin knows the stage, whether the launcher was told it or a DeepSpeed config file that says it
    zero3 = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") and DeepSpeedPlugin().zero_stage == 3
    return (zero3 or parse_flag_from_env("ACCELERATE_USE_FSDP")) and processes().num_processes > 1


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


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, whose number it has; a process that ends by it exits with 128 + the number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stop:
    """A handler of Ctrl-C and SIGTERM: raises `Stopped`, or, where it is told to wait, notes the first and says so."""

    def __init__(self) -> None:
        self.waits = False
        self.noted: int | None = None  # the signal
        self._owner = os.getpid()

    def __call__(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        if os.getpid() != self._owner:  # a data loader's process: Ctrl-C reaches it too, and its parent will end it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if not self.waits or self.noted is not None:
            raise Stopped(number)
        self.noted = number
        os.write(2, b"\nbdpo: Stopping as soon as a checkpoint is written; once more stops at once.\n")

    def now(self) -> None:
        """Raise `Stopped` where a signal was noted."""
        if self.noted is not None:
            raise Stopped(self.noted)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM go to a `Stop`; what they did before is restored afterwards.

    Not where the signals are ignored (nohup, a job in a script's background), outside the main thread, nor in one of
    several processes, which could wait for each other for ever: their launcher ends them.
    """
    stop = Stop()
    before = {}
    if os.environ.get("WORLD_SIZE", "1") == "1" and threading.current_thread() is threading.main_thread():
        for number in _STOPS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda swallowed: _stop_again(swallowed, hook)
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_again(swallowed: sys.UnraisableHookArgs, otherwise: Callable[[Any], Any]) -> None:
    """A signal that came in a destructor or a weak reference's callback, where Python drops exceptions, comes again."""
    if isinstance(swallowed.exc_value, Stopped):
        threading.Timer(0.01, os.kill, (os.getpid(), swallowed.exc_value.number)).start()
    else:
        otherwise(swallowed)


def unstoppable() -> None:
    """Ignore Ctrl-C and SIGTERM from now on: all is done and said, and the interpreter takes a second to end."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
