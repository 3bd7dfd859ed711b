"""Record files: JSONL that may be killed at any byte, and shared.

An object a line, with the checksum of its other fields as the last one. Lines are only ever appended, each call in one
write, so that several processes may share a file. A line that is torn or damaged is left out when the file is read, and
what it held is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError
from bdpo.files import read_bytes
from bdpo.terminal import visible


class RecordFile:
    """A JSONL file of records (dicts of JSON values) with a checksum a line; see the module."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All whole records, in the order of the file; none where there is no file.

        Damaged lines are left out; of one that is not the last it is said so, since no killed run explains it.
        """
        try:
            lines = read_bytes(self.path).split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BdpoError(f"Cannot read {self.path} ({error.strerror}): check the path.") from error
        records = [(number, _whole(line)) for number, line in enumerate(lines, start=1) if line.strip()]
        damaged = [number for number, record in records[:-1] if record is None]
        if damaged:
            numbers = ", ".join(map(str, damaged))
            print(visible(f"{self.path}: line {numbers} is damaged; what it held is made again."), file=sys.stderr)
        return [record for _, record in records if record is not None]

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records at the end, all in one write.

        Raises:
            BdpoError: it cannot be written; what is there is kept.
        """
        data = b"".join(_line(record) for record in records)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b", buffering=0) as file:
                if file.tell() and _last_byte(file) != b"\n":  # a torn line must not swallow the next
                    data = b"\n" + data
                if file.write(data) != len(data):
                    raise OSError(None, "no room is left")
        except OSError as error:
            raise BdpoError(
                f"Cannot write {self.path} ({error.strerror}): make room, or choose another place (--out, BDPO_CACHE). "
                "What is there is kept."
            ) from error


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(record))
    return f'{text[:-1]}{", " if record else ""}"checksum": "{_checksum(record)}"}}\n'.encode()


def _whole(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where it does not have its checksum."""
    try:
        record = json.loads(line)
        return record if record.pop("checksum") == _checksum(record) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))
