"""The scored data set on disk, between stage 1 and stage 2.

manifest.json            what the numbers depend on (`key`), versions and counts
data/part-00000.parquet  the columns of `COLUMNS`, some pairs a part, in the order of the data
data/.part-00000.sha256  its checksum, written after it: a part without one, or with a wrong one, is made again
.arrow/                  the memory-mapped copy that reading works from; it may be removed
"""

from __future__ import annotations

import glob
import hashlib
import os
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from bdpo.errors import BdpoError
from bdpo.files import cache_dir, file_hash, key_difference, read_json, write_json, write_whole

FORMAT = 2

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        *[(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")],
        *[(f"ref_{side}_logps", pa.float32()) for side in ("chosen", "rejected")],
        *[(f"{side}_marginal_logps", pa.float32()) for side in ("chosen", "rejected")],
        *[(f"{side}_mi", pa.float64()) for side in ("chosen", "rejected")],
        *[(f"{side}_safe", pa.bool_()) for side in ("chosen", "rejected")],
        ("category", pa.list_(pa.string())),
        ("source", pa.string()),
    ]
)


@dataclass(frozen=True)
class ScoredData:
    """A scored data set: memory-mapped rows with the columns of `COLUMNS`, and the manifest."""

    rows: Dataset
    manifest: dict[str, Any]
    path: Path
    scored_by: weakref.ref[Any] | None = None  # the model, where it was this process that asked for the scores


def open_scores(path: str | Path) -> ScoredData:
    """Open a scored folder, memory-mapped.

    Raises:
        BdpoError: no manifest, or a part is missing or damaged (scoring again makes just that part anew).
    """
    path = Path(path)
    manifest = _read_manifest(path)
    parts = [part_path(path, part) for part in range(manifest["parts"])]
    damaged = [part.name for part in parts if not is_whole(part)]
    if damaged:
        raise BdpoError(
            f"{path}: {len(damaged)} of {len(parts)} parts are missing or damaged (first: {damaged[0]}). Run the same "
            "`bdpo score` again: it makes just these anew."
        )
    copy = path if os.access(path, os.W_OK) else cache_dir()
    with _no_progress_bar():  # "Generating train split" would say nothing to the user
        rows = Dataset.from_parquet([glob.escape(str(part)) for part in parts], cache_dir=str(copy / ".arrow"))
    return ScoredData(rows, manifest, path)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def claim(out: Path, manifest: dict[str, Any]) -> None:
    """Make `out` ours, or check that what it holds depends on the same things."""
    if (out / "manifest.json").exists():
        different = key_difference(_read_manifest(out)["key"], manifest["key"])
        if different:
            raise BdpoError(
                f"{out} holds scores that depend on something else; it differs in {'; '.join(different)}. "
                "Choose another --out, or remove the folder."
            )
        return
    try:
        if out.exists() and (not out.is_dir() or any(not held.name.startswith(".") for held in out.iterdir())):
            raise BdpoError(f"{out} is not an empty folder and holds no scores: choose another --out.")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BdpoError(f"Cannot write in {out} ({error.strerror}): choose another --out.") from error
    write_json(out / "manifest.json", manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / "manifest.json").exists():
        raise BdpoError(f"{path} is not a scored folder (no manifest.json): run `bdpo score` first.")
    manifest = read_json(path / "manifest.json", "score into another folder")
    if manifest.get("format") != FORMAT:
        raise BdpoError(f"{path / 'manifest.json'} is of another format: score again with this version of bdpo.")
    return manifest


def part_path(out: Path, part: int) -> Path:
    return out / "data" / f"part-{part:05d}.parquet"


def is_whole(part: Path) -> bool:
    checksum = _checksum_path(part)
    if not (part.exists() and checksum.exists()):
        return False
    return file_hash(part) == checksum.read_text().strip()


def _checksum_path(part: Path) -> Path:
    return part.with_name(f".{part.stem}.sha256")  # hidden, so that Parquet readers pass it by


def write_part(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=COLUMNS), sink)
    data = sink.getvalue().to_pybytes()
    _checksum_path(path).unlink(missing_ok=True)
    write_whole(path, data)
    write_whole(_checksum_path(path), hashlib.sha256(data).hexdigest())
