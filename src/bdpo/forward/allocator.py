"""Let the C allocator keep what torch frees on a CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# parameters of mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1  # as a threshold of trimming; a number of bytes would end at 2 GiB, which a training step exceeds


@cache
def keep_freed_memory() -> None:
    """Tell glibc to hand freed blocks out again instead of returning them to the kernel.

    A training step frees and takes gigabytes of activations; by default each large one is mapped anew, and the
    kernel clears its pages every time. Does nothing where the C library is not glibc. Holds for the whole process.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
