"""Replies of a model, the records they are kept as, and the cache of those that were made before.

A record file is JSONL: an object a line, with the checksum of its other fields as the last one. Lines are only ever
appended, each call in one write, so that several processes may share a file. A line that is torn or damaged is left
out when the file is read, and what it held is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from bdpo.errors import BdpoError
from bdpo.files import cache_dir, key_difference, key_digest
from bdpo.pairs import Message

Prompts = Mapping[str, Sequence[Message]]
"""Conversations by id, each ending before the reply."""


@dataclass(frozen=True)
class Sampling:
    """Generation settings: what a reply depends on beside the model and the prompt.

    Raises:
        BdpoError: a setting is out of range, or several samples are asked of greedy decoding.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0  # nucleus sampling; 1 leaves the distribution whole
    samples: int = 1  # replies a prompt
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.samples < 1:
            raise BdpoError("max_new_tokens and samples must be at least 1.")
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise BdpoError("temperature must not be negative, and top_p must lie above 0 and at most at 1.")
        if self.samples > 1 and self.temperature == 0:
            raise BdpoError(
                f"{self.samples} samples a prompt need a temperature above 0: greedy replies are all alike."
            )

    @property
    def key(self) -> dict[str, Any]:
        """The settings that one reply depends on: not how many samples there are, nor a seed that draws nothing."""
        if self.temperature == 0:
            return {"max_new_tokens": self.max_new_tokens, "temperature": 0.0}
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "seed": self.seed,
        }

    def seed_of(self, fingerprint: str, sample: int) -> int:
        """A seed for one sample of one prompt (31 bits), so that it depends on no other in its batch."""
        drawn = hashlib.sha256(f"{self.seed} {sample} {fingerprint}".encode()).digest()
        return int.from_bytes(drawn[:4], "big") >> 1


@dataclass(frozen=True)
class Reply:
    """One reply to one prompt."""

    id: str  # of the prompt
    sample: int  # 0 .. samples - 1
    text: str
    stop: Literal["end", "length"]  # the model ended its turn, or ran into max_new_tokens
    prompt_tokens: int
    tokens: int  # generated, the token that ended the turn included


OnBatch = Callable[[list[Reply]], None]


class Generator(Protocol):
    """Something that replies to prompts: a local model or an endpoint."""

    @property
    def key(self) -> dict[str, Any]:
        """What its replies depend on beside prompt and sampling."""

    @property
    def may_cache(self) -> bool:
        """Whether another model always has another key; a server may change its weights under one name."""

    def fingerprint(self, messages: Sequence[Message], where: str) -> str:
        """A hash of the prompt as the model reads it; `where` names the prompt in an error."""

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: OnBatch | None = None) -> dict[str, list[Reply]]:
        """All samples of every prompt; `on_batch` is handed the replies as they are made."""


def collect(
    generator: Generator, prompts: Prompts, sampling: Sampling, path: str | Path | None = None
) -> dict[str, list[Reply]]:
    """Replies to all prompts, in the order of `prompts`, `sampling.samples` each; only what is missing is generated.

    Looked for in the record file `path`, where a killed run goes on, and in the cache, where the replies of the same
    weights to the same prompts lie. Whatever was made or found is in both afterwards.

    Raises:
        BdpoError: `path` holds replies of another model or other settings (the message names the fields), a file
            cannot be written, or what the generator raises.
    """
    key = {**generator.key, **sampling.key}
    prints = {id: generator.fingerprint(messages, id) for id, messages in prompts.items()}
    own = _Kept(None if path is None else RecordFile(path), key)
    cache = _Kept(
        RecordFile(cache_dir() / "replies" / f"{key_digest(key)}.jsonl") if generator.may_cache else None, key
    )
    found = {}
    for id, fingerprint in prints.items():
        kept = own.find(id, fingerprint, sampling.samples)
        if kept is None and (kept := cache.find(id, fingerprint, sampling.samples)) is not None:
            own.add(kept, prints)
        if kept is not None:
            found[id] = kept

    def keep(replies: list[Reply]) -> None:
        own.add(replies, prints)
        cache.add(replies, prints)

    missing = {id: messages for id, messages in prompts.items() if id not in found}
    made = generator.replies(missing, sampling, keep) if missing else {}
    return {id: found[id] if id in found else made[id] for id in prompts}


class RecordFile:
    """A JSONL file of records (dicts of JSON values) with a checksum a line; see the module."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All whole records, in the order of the file; none where there is no file.

        Damaged lines are left out; of one that is not the last it is said so, since no killed run explains it.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BdpoError(f"Cannot read {self.path} ({error.strerror}): check the path.") from error
        records = [(number, _whole(line)) for number, line in enumerate(lines, start=1) if line.strip()]
        damaged = [number for number, record in records[:-1] if record is None]
        if damaged:
            numbers = ", ".join(map(str, damaged))
            print(f"{self.path}: line {numbers} is damaged; what it held is made again.", file=sys.stderr)
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


class _Kept:
    """Replies in a record file, each with the digest of what it depends on; without a file nothing is kept.

    The first record has in full what the replies depend on, for the message where that is something else.
    """

    def __init__(self, file: RecordFile | None, key: dict[str, Any]) -> None:
        self.file, self.digest = file, key_digest(key)
        records = file.read() if file else []
        headers = [record["depends_on"] for record in records if "depends_on" in record]
        if file and not headers:
            file.append([{"depends_on": key}])
        for header in headers:
            different = key_difference(header, key)
            if different:
                raise BdpoError(
                    f"{file and file.path} holds replies that depend on something else; it differs in "
                    f"{'; '.join(different)}. Choose another --out, or remove the file."
                )
        self.records = {
            (record["prompt"], record["sample"]): record for record in records if record.get("key") == self.digest
        }

    def find(self, id: str, fingerprint: str, samples: int) -> list[Reply] | None:
        """All samples of a prompt, under this id; None where one is missing."""
        records = [self.records.get((fingerprint, sample)) for sample in range(samples)]
        return None if None in records else [_reply({**record, "id": id}) for record in records if record]

    def add(self, replies: Sequence[Reply], prints: Mapping[str, str]) -> None:
        """Append replies to prompts with these fingerprints."""
        if self.file:
            self.file.append({**asdict(reply), "prompt": prints[reply.id], "key": self.digest} for reply in replies)


def _reply(record: Mapping[str, Any]) -> Reply:
    return Reply(**{name: record[name] for name in Reply.__dataclass_fields__})


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(record))
    return f'{text[:-1]}{", " if record else ""}"checksum": "{_checksum(record)}"}}\n'.encode()


def _whole(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where it does not have its checksum."""
    try:
        record = json.loads(line)
        return record if record.pop("checksum") == _checksum(record) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))
