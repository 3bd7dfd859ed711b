"""`bdpo data clean`: the mended data set as a file, and a report of each decision beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError
from bdpo.files import one_at_a_time, refuse_taken
from bdpo.pairs.check import EXAMPLES, check_pairs
from bdpo.pairs.load import LoadedPairs, load_pairs, write_pairs, write_rows
from bdpo.pairs.mend import Conflicts, Duplicates, mend_pairs
from bdpo.pairs.sources import refuse_onto


@dataclass(frozen=True)
class Cleaned:
    """What `clean` wrote."""

    pairs: Path
    report: Path
    loaded: LoadedPairs  # the mended pairs, and the account of every row that is not among them

    def lines(self) -> list[str]:
        """It, for people."""
        loaded = self.loaded
        told = [f"{len(loaded.pairs)} pairs of {loaded.n_rows} rows of {loaded.source} ({loaded.format}): {self.pairs}"]
        told += [f"  {n} rows {reason}" for reason, n in loaded.counts.items()]
        told += [f"  {error}" for error in loaded.errors[:EXAMPLES]]
        told.append(f"Each decision: {self.report}")
        left = check_pairs(LoadedPairs(loaded.pairs, str(self.pairs), "canonical", 0)).findings
        errors = [
            f"{finding.name.replace('_', ' ')} ({finding.count})" for finding in left if finding.severity == "error"
        ]
        if errors:
            told.append(
                f"Not mended, and bdpo train stops at it: {', '.join(errors)}. See bdpo data check {self.pairs}."
            )
        return told


def clean(
    data: str | Path, out: Path, *, conflicts: Conflicts = "majority", duplicates: Duplicates = "drop", **reading: Any
) -> Cleaned:
    """Write the pairs of `data`, mended as `mend_pairs` does it, and a line a decision into OUT.report.jsonl.

    Rows that cannot be read are left out and stand in the report, each with its place.

    Args:
        reading: further arguments of `load_pairs`.

    Raises:
        BdpoError: as `load_pairs`; no row can be read; `out` is no .jsonl file or the data itself.
    """
    if out.suffix != ".jsonl":
        raise BdpoError(f"--out {out}: the pairs are written as JSON lines, so give a name that ends in .jsonl.")
    report = out.with_suffix(".report.jsonl")
    if folder := next((path for path in (out, report) if path.is_dir()), None):  # the other one would be written
        raise BdpoError(f"--out {out}: {folder} is a folder; choose another name.")
    refuse_onto(out, data, "--out")
    refuse_onto(report, data, f"--out {out}: its report,")
    refuse_taken(report, f"--out {out}: its report", '{"reason": ')
    refuse_taken(out, "--out", "" if report.is_file() else None)  # what it wrote has a report beside it
    loaded = load_pairs(data, on_error="collect", **reading)
    if not loaded.pairs:
        raise BdpoError(f"No row can be read; the first: {loaded.errors[0]}")
    mended = mend_pairs(loaded.pairs, conflicts=conflicts, duplicates=duplicates)
    unread = {_UNREAD: len(loaded.errors)} if loaded.errors else {}
    loaded.pairs, loaded.counts = mended.pairs, loaded.counts | unread | mended.counts
    decisions = [asdict(decision) for decision in mended.decisions]
    with one_at_a_time(out):  # the two belong together
        write_rows(report, [*({"reason": _UNREAD, "row": error} for error in loaded.errors), *decisions])
        write_pairs(out, mended.pairs)
    return Cleaned(out, report, loaded)


_UNREAD = "dropped: they cannot be read"
