"""The scored data set on disk, between stage 1 and stage 2.

manifest.json            what the numbers depend on (`key`), versions and counts, and a checksum of all that
data/part-00000.parquet  the columns of `COLUMNS`, some pairs a part, in the order of the data
data/.part-00000.sha256  checksum of its bytes, its name and the key, written after it: a part without one, or with
                         another one, is made again
.arrow/                  the memory-mapped copy that reading works from, with its checksum; it may be removed
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from bdpo.errors import BdpoError, UnusableFolder
from bdpo.files import (
    cache_dir,
    file_hash,
    file_made_whole,
    key_difference,
    key_digest,
    read_json,
    write_json,
    write_whole,
)

FORMAT = 2
NONE = "none"  # the estimator of scores without comprehension

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
MEASURED = ("chosen_marginal_logps", "rejected_marginal_logps", "chosen_mi", "rejected_mi")
CHES = ("ches", "ches_normalised")
HASH = "ids_hash"
UNMEASURED = {"estimator": NONE, "null_prompt": [], "contrastive_prompts": []}  # in a key
_CALLED = {  # fields of a key -> what they are to people, and what nothing there means
    "weights": ("the model's weights", None),
    "dtype": ("the weights' dtype", None),
    "truncation": ("the truncation to data.max_length", "nothing cut"),
    "estimator": ("the estimator", None),
    "ches": ("CHES measured", False),
}
_MOST = 10**6  # parts that a manifest may speak of

COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        *[(name, pa.list_(pa.int32())) for name in ("prompt_ids", "chosen_ids", "rejected_ids")],
        *[(name, pa.float32()) for name in REFERENCE],
        *[(name, pa.float64() if name.endswith("_mi") else pa.float32()) for name in MEASURED],  # null with `none`
        *[(f"{side}_safe", pa.bool_()) for side in ("chosen", "rejected")],
        ("category", pa.list_(pa.string())),
        ("source", pa.string()),
        ("prompt_kind", pa.string()),  # null in parts of earlier versions, as are other columns that came later
        *[(name, pa.float64()) for name in CHES],  # null where it was not asked for
        (HASH, pa.string()),  # of prompt_ids, chosen_ids and rejected_ids (see `bdpo.score.known`)
    ]
)


@dataclass(frozen=True)
class ScoredData:
    """A scored data set: memory-mapped rows with the columns of `COLUMNS`, and the manifest."""

    rows: Dataset
    manifest: dict[str, Any]
    path: Path
    scored_by: weakref.ref[Any] | None = None  # the model, where it was this process that asked for the scores

    @property
    def measured(self) -> bool:
        """Whether comprehension was measured; else its columns are null."""
        return bool(self.manifest["key"]["estimator"] != NONE)


def open_scores(path: str | Path) -> ScoredData:
    """Open a scored folder, memory-mapped.

    Raises:
        BdpoError: no manifest, or a part is missing or damaged (scoring again makes just that part anew).
    """
    path = Path(path)
    manifest = read_manifest(path)
    parts = [part_path(path, part) for part in range(manifest["parts"])]
    damaged = [part_path(path, part).name for part in missing_parts(path, manifest)]
    if damaged:
        raise BdpoError(
            f"{path}: {len(damaged)} of {len(parts)} parts are missing or damaged (first: {damaged[0]}). Run the same "
            "`bdpo score` again: it makes just these anew."
        )
    return ScoredData(Dataset.from_file(str(_memory_mapped(path, parts))), manifest, path)


def unmeasured(key: dict[str, Any]) -> dict[str, Any]:
    """The key of the same scores without comprehension."""
    return key | UNMEASURED


def serves(there: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether scores of the key `there` have what those of `key` would have: with any estimator where it asks none."""
    return there == key or (key.get("estimator") == NONE and unmeasured(there) == key)


def serving(folders: Iterable[Path], key: dict[str, Any]) -> list[Path]:
    """Those of the folders whose scores serve `key` and are of another, in the order of estimators and of names."""
    from bdpo.score.estimators import ESTIMATORS  # which brings torch along

    found = []
    for folder in folders:
        try:
            there = read_manifest(folder)["key"]
        except BdpoError:
            continue
        if there != key and serves(there, key) and there.get("estimator") in ESTIMATORS:  # else of a later version
            found.append((list(ESTIMATORS).index(there["estimator"]), folder))
    return [folder for _, folder in sorted(found)]


def _memory_mapped(path: Path, parts: list[Path]) -> Path:
    """The rows of all parts in one Arrow file, made where there is none of these parts with its checksum."""
    place = (path if os.access(path, os.W_OK) else cache_dir()) / ".arrow"
    sums = "".join(_checksum_path(part).read_text() for part in parts)
    made_of = hashlib.sha256(f"{COLUMNS.names} {sums}".encode()).hexdigest()
    copy, checksum = place / f"{made_of[:20]}.arrow", place / f"{made_of[:20]}.sha256"
    if copy.is_file() and checksum.is_file() and checksum.read_bytes() == file_hash(copy).encode():
        return copy
    with file_made_whole(copy) as work, pa.OSFile(str(work), "wb") as sink, pa.ipc.new_stream(sink, COLUMNS) as rows:
        for part in parts:
            rows.write_table(pq.read_table(part, schema=COLUMNS))
    write_whole(checksum, file_hash(copy))
    return copy


def claim(out: Path, manifest: dict[str, Any]) -> None:
    """Make `out` ours, or check that what it holds depends on the same things; a damaged manifest is written again.

    Scores without comprehension become those with it: the manifest says so from now on, and the parts follow.

    Raises:
        BdpoError: it holds scores that depend on something else, or something else, or cannot be written.
    """
    if (out / "manifest.json").exists():
        try:
            there = read_manifest(out)
        except BdpoError:
            if not _holds_parts_of(out, manifest["key"]):  # then the key must say that these are the same scores
                there = read_json(out / "manifest.json", "score into another folder", key=dict)
                _refuse_other(out, there, manifest)
            return write_manifest(out, manifest)
        if there["key"] != manifest["key"] and serves(manifest["key"], there["key"]):
            return write_manifest(out, manifest)
        return _refuse_other(out, there, manifest)
    try:
        if out.exists() and (not out.is_dir() or any(not held.name.startswith(".") for held in out.iterdir())):
            raise UnusableFolder(f"{out} is not an empty folder and holds no scores: ")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableFolder(f"Cannot write in {out} ({error.strerror}): ") from error
    write_manifest(out, manifest)


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parts in which what two manifests' scores depend on differs, as readable lines; none where they agree.

    Other token ids (`rows`) are told by what made them: another number of pairs, tokenizer, template or truncation,
    else other texts or labels. Prompts that comprehension is measured against are told where nothing else explains it.
    """
    keys = there["key"], now["key"]
    other = {field for field in {*keys[0], *keys[1]} if keys[0].get(field) != keys[1].get(field)}
    lines = key_difference(
        *({name: key.get(field) or none for field, (name, none) in _CALLED.items() if field in other} for key in keys)
    )
    if "rows" in other:
        made = [_made_of(manifest) for manifest in (there, now)]
        known = [name for name in made[0] if None not in (made[0][name], made[1][name])]  # else it was damaged
        why = key_difference(*({name: one[name] for name in known} for one in made))
        lines += why or ([] if "truncation" in other else ["texts or labels of the pairs"])
    if not lines and other:
        lines.append("the prompts that comprehension is measured against (chat template, data.seed)")
    return lines


def _made_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the token ids of scores were made of."""
    told = manifest.get("tokenizer")
    hashes = told if isinstance(told, dict) else {}  # damaged, and kept for its key alone
    return {
        "the number of pairs": manifest.get("pairs"),
        "the tokenizer": hashes.get("tokenizer"),
        "the chat template": hashes.get("chat_template"),
    }


def _refuse_other(out: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    different = differing(there, now)
    if different:
        raise UnusableFolder(
            f"{out} holds scores that depend on something else; it differs in {'; '.join(different)}: ",
            ", or remove the folder.",
        )


def _holds_parts_of(out: Path, key: dict[str, Any]) -> bool:
    """Whether a folder whose manifest cannot be read holds parts for this key, or nothing beside the manifest."""
    parts = list((out / "data").glob("*.parquet"))
    if any(is_whole(part, key) for part in parts):
        return True
    return not parts and all(held.name in ("manifest.json", "data") or held.name[0] == "." for held in out.iterdir())


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    write_json(out / "manifest.json", manifest | {"checksum": key_digest(manifest)})


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a scored folder. Raises BdpoError where there is none, or it is not as it was written."""
    file = path / "manifest.json"
    if not file.exists():
        raise BdpoError(f"{path} is not a scored folder (no manifest.json): run `bdpo score` first.")
    manifest = read_json(file, "score into another folder", format=int, key=dict, parts=int, pairs=int)
    if manifest["format"] != FORMAT:
        raise BdpoError(f"{file} is of another format: score again with this version of bdpo.")
    content = {field: value for field, value in manifest.items() if field != "checksum"}
    if manifest.get("checksum") != key_digest(content) or not 0 <= manifest["parts"] <= _MOST:
        raise BdpoError(f"{file} is damaged: run the same `bdpo score` again, or score into another folder.")
    return manifest


def is_served(manifest: Mapping[str, Any]) -> bool:
    """Whether a server made these scores, whose weights nobody here has hashed."""
    return "endpoint" in manifest


def part_path(out: Path, part: int) -> Path:
    return out / "data" / f"part-{part:05d}.parquet"


def missing_parts(out: Path, manifest: dict[str, Any]) -> list[int]:
    """The parts of scores that are not there as they were written."""
    return [part for part in range(manifest["parts"]) if not is_whole(part_path(out, part), manifest["key"])]


def is_whole(part: Path, key: dict[str, Any] | None = None) -> bool:
    """Whether a part is there as it was written, under its own name and for this key; None: the manifest's."""
    checksum = _checksum_path(part)
    if not (part.is_file() and checksum.is_file()):
        return False
    return _checksum(part, file_hash(part), key) == checksum.read_text(encoding="utf-8", errors="replace").strip()


def _checksum(part: Path, bytes_hash: str, key: dict[str, Any] | None = None) -> str:
    if key is None:
        key = read_json(part.parents[1] / "manifest.json", "score into another folder", key=dict)["key"]
    return hashlib.sha256(f"{key_digest(key)} {part.name} {bytes_hash}".encode()).hexdigest()


def _checksum_path(part: Path) -> Path:
    return part.with_name(f".{part.stem}.sha256")  # hidden, so that Parquet readers pass it by


def write_part(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a part and its checksum; one that another process wrote meanwhile is kept."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=COLUMNS), sink)
    data = sink.getvalue().to_pybytes()
    if is_whole(path):
        return
    write_whole(path, data)
    write_whole(_checksum_path(path), _checksum(path, hashlib.sha256(data).hexdigest()))
