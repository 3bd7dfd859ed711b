"""A few of the trials of `make faults`, in real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_nothing_is_lost_in_a_few_trials() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent), "--quick"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    everything = next(line for line in done.stdout.splitlines() if line.startswith("| **all** |"))
    tried, survived, lost = (int(cell) for cell in everything.split("|")[2:5])
    assert tried == survived >= 16 and lost == 0
