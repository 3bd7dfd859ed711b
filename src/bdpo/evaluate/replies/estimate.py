"""What lies ahead: how long a model's replies will take in all, and what will be asked of a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from bdpo.evaluate.replies.collect import Reply
from bdpo.terminal import duration, visible

_TELLING = 16  # replies that tell how long the others will take
_CHARACTERS = 4  # of a token, in English


@dataclass(frozen=True)
class Calls:
    """What is asked of a server, for people who pay for it: told before it begins.

    >>> print(Calls.of(["Name a river."] * 300, written=256))
    300 calls, about 1,200 tokens to read and at most 76,800 to write
    """

    calls: int
    read: int  # tokens, by the length of the texts
    written: int  # tokens at most

    @classmethod
    def of(cls, texts: Iterable[str], *, written: int, read: int = 0) -> Calls:
        """One call for each text: so many tokens at most are written in each, and so many read beside the text."""
        lengths = [-(-len(text) // _CHARACTERS) + read for text in texts]
        return cls(len(lengths), sum(lengths), written * len(lengths))

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.calls + other.calls, self.read + other.read, self.written + other.written)

    def __str__(self) -> str:
        return f"{self.calls:,} calls, about {self.read:,} tokens to read and at most {self.written:,} to write"


NO_CALLS = Calls(0, 0, 0)


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
            tqdm.write(visible(f"{line}{duration(left)}"), file=sys.stderr)

    @property
    def _telling(self) -> int:
        return min(_TELLING, self.replies // 2)
