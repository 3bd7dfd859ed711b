"""How long a model's replies will take in all: an evaluation takes hours."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from bdpo.evaluate.replies.collect import Reply
from bdpo.terminal import duration

_TELLING = 16  # replies that tell how long the others will take


class Estimate:
    """Says once how long a model's replies will take in all, from what the first ones took.

    Args:
        whose: what to call the model.
        replies: how many there will be, those included that the cache has.
    """

    def __init__(self, whose: str, replies: int) -> None:
        self.whose, self.replies, self.made = whose, replies, 0
        self.begun = time.perf_counter()

    def __call__(self, batch: Sequence[Reply]) -> None:
        """Replies as they come."""
        told, self.made = self.made >= self._telling, self.made + len(batch)
        if not told and self._telling <= self.made < self.replies:
            left = (time.perf_counter() - self.begun) / self.made * (self.replies - self.made)
            line = f"{self.whose}: {self.made} of {self.replies} replies are there, the others take about "
            tqdm.write(f"{line}{duration(left)}", file=sys.stderr)

    @property
    def _telling(self) -> int:
        return min(_TELLING, self.replies // 2)
