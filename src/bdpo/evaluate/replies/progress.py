"""The bar of a local model's replies: a batch takes minutes on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor
from transformers import LogitsProcessor

from bdpo.evaluate.replies.collect import Reply
from bdpo.terminal import bar, duration

_EVERY = 1.0  # second


class Progress(LogitsProcessor):
    """The bar of a local model's replies. It sees each step of generation, and changes nothing in it.

    Until the first replies are done it says how long all will take where no reply ends before the limit.
    """

    def __init__(self, total: int, longest: int) -> None:
        self.bar = bar("replies", total, "reply")
        self.total, self.longest, self.step, self.tokens = total, longest, 0, 0
        self.begun = self.shown = time.perf_counter()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """One token of each reply of a batch: input_ids (B, L), scores (B, V) as they come."""
        self.step += 1
        now = time.perf_counter()
        if now - self.shown >= _EVERY:
            self.shown = now
            said = f"token {self.step} of {self.longest}"
            if self.bar.n == 0:
                steps = self.longest * -(-self.total // len(scores))
                said += f", at most {duration((now - self.begun) / self.step * steps)}"
            self.bar.set_postfix_str(said)
        return scores

    def add(self, replies: Sequence[Reply]) -> None:
        """A batch is done."""
        self.tokens += sum(reply.tokens for reply in replies)
        self.step = 0
        speed = f"{self.tokens / (time.perf_counter() - self.begun):.0f} tok/s"
        self.bar.set_postfix_str(speed, refresh=False)
        self.bar.update(len(replies))

    def again(self) -> None:
        """A batch did not fit in memory, and is begun again."""
        self.step, self.begun = 0, time.perf_counter()
