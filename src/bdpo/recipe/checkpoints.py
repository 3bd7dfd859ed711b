"""Checkpoints that training can go on from: what completes one, and the newest that is complete.

    checkpoint-N/manifest.json    size and SHA-256 of every other file, written after all of them

A checkpoint without it was not written to its end; one whose files are other ones is damaged. Neither is resumed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from bdpo.errors import BdpoError
from bdpo.files import file_hash, read_json, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoints:
    """What the checkpoints of a run are good for."""

    complete: Path | None = None  # the newest that training can go on from
    passed_over: dict[Path, str] = field(default_factory=dict)  # newer ones that it cannot go on from, and why
    alone: Path | None = None  # the newest that holds the model alone, as train.save_only_model says


def find_checkpoints(out: Path, *, read: bool = True) -> Checkpoints:
    """Look at the checkpoints in a run's folder, the newest first, down to one that training can go on from.

    Args:
        read: compare the files' bytes, and not their sizes only.
    """
    passed_over: dict[Path, str] = {}
    alone = None
    for checkpoint in sorted(out.glob("checkpoint-*"), key=_step, reverse=True):
        if _step(checkpoint) < 0 or not checkpoint.is_dir():
            continue
        fault, resumable = _looked_at(checkpoint, read)
        if fault is None and resumable:
            return Checkpoints(checkpoint, passed_over, alone)
        if fault is None:
            alone = alone or checkpoint
        else:
            passed_over[checkpoint] = fault
    return Checkpoints(None, passed_over, alone)


def write_manifest(checkpoint: Path, *, resumable: bool) -> None:
    """Complete a checkpoint all of whose other files are written."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / MANIFEST)
    write_json(
        checkpoint / MANIFEST,
        {
            "step": _step(checkpoint),
            "resumable": resumable,
            "files": {
                path.relative_to(checkpoint).as_posix(): {"size": path.stat().st_size, "sha256": file_hash(path)}
                for path in files
            },
        },
    )


def _looked_at(checkpoint: Path, read: bool) -> tuple[str | None, bool]:
    """What is wrong with a checkpoint, and whether it holds what resuming needs."""
    if not (checkpoint / MANIFEST).exists():
        return "it was not written to its end", False
    try:
        manifest = read_json(checkpoint / MANIFEST, "", step=int, resumable=bool, files=dict)
    except BdpoError:
        return f"its {MANIFEST} is damaged", False
    if manifest["step"] != _step(checkpoint):
        return f"it is a copy of checkpoint-{manifest['step']}", False
    for name, written in manifest["files"].items():
        path = checkpoint / name
        if not path.resolve().is_relative_to(checkpoint.resolve()):
            return f"its {MANIFEST} names {name}, which is not in it", False
        if not path.is_file():
            return f"{name} is missing", False
        there = {"size": path.stat().st_size, "sha256": file_hash(path)} if read else {"size": path.stat().st_size}
        if not isinstance(written, dict) or any(written.get(key) != value for key, value in there.items()):
            return f"{name} is damaged", False
    return None, manifest["resumable"]


def _step(checkpoint: Path) -> int:
    found = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(found[1]) if found else -1
