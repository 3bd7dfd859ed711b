"""`make faults`: real processes of bdpo, stopped and damaged; a table, and exit code 1 if anything is lost.

python tests/faults [--seed N] [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from damages import DAMAGES, QUICK
from home import Home, make_home
from stops import AIMS, Trial, stops


def tried(home: Home, name: str, seed: int, quick: bool) -> list[Trial]:
    """All trials of one kind."""
    random = Random(f"{seed} {name}")
    return list(stops(home, name, random, quick) if name in AIMS else DAMAGES[name](home, random))


def table(trials: Iterable[Trial]) -> tuple[str, list[Trial]]:
    """fault / tried / survived / lost in Markdown, and the trials in which something was lost."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.fault, []).append(trial)
    rows = [("fault", "tried", "survived", "lost"), ("---", "---:", "---:", "---:")]
    for fault, tried in found.items():
        lost = sum(bool(trial.lost) for trial in tried)
        rows.append((fault, str(len(tried)), str(len(tried) - lost), str(lost)))
    lost = [trial for tried in found.values() for trial in tried if trial.lost]
    total = sum(map(len, found.values()))
    rows.append(("**all**", str(total), str(total - len(lost)), str(len(lost))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows), lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the flipped bits")
    parser.add_argument("--quick", action="store_true", help="a few of them, in half a minute")
    options = parser.parse_args()
    begun = time.monotonic()
    names = (*AIMS, *(QUICK if options.quick else DAMAGES))
    with tempfile.TemporaryDirectory(prefix="bdpo-faults-") as folder:
        home = make_home(Path(folder))
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            done = [pool.submit(tried, home, name, options.seed, options.quick) for name in names]
            text, lost = table(trial for future in done for trial in future.result())
    print(text)
    for trial in lost:
        print(f"LOST: {trial.fault}: {trial.lost}", file=sys.stderr)
    print(f"\n{time.monotonic() - begun:.0f} s, seed {options.seed}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
