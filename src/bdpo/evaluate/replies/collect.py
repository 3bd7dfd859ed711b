"""Replies of a model to prompts, and the cache of those that were made before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.records import RecordFile
from bdpo.evaluate.replies.thoughts import Said, split_thought
from bdpo.files import cache_dir, key_difference, key_digest
from bdpo.pairs import Message

Prompts = Mapping[str, Sequence[Message]]
"""Conversations by id, each ending before the reply, or with a last turn of the assistant: how its reply begins."""


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
        if self.seed < 0:
            raise BdpoError(f"seed is {self.seed} and must not be negative.")
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
    text: str  # all that the model said, a thought with its marks included
    stop: Literal["end", "length", "filtered", "untaken"]  # the model's end of turn, max_new_tokens, a provider's
    # filter, or a server that does not take this prompt (too long for it, for one)
    prompt_tokens: int
    tokens: int  # generated, the token that ended the turn included
    thought: str = ""  # what a server hands over apart from the text

    @property
    def said(self) -> Said:
        """Thought and answer, taken apart; scorers and judges are shown the answer."""
        return split_thought(self.text, self.thought, cut=self.stop == "length")


OnBatch = Callable[[list[Reply]], None]


def opening_of(messages: Sequence[Message]) -> str:
    """How the reply to a conversation begins; "" where the model is free."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""


def begun(opening: str, said: str) -> str:
    """The whole reply of which the model was given the opening; nothing where it added nothing.

    >>> begun("Sure:", " take two eggs."), begun("Sure:", " "), begun("", "Hi.")
    ('Sure: take two eggs.', '', 'Hi.')
    """
    if not opening:
        return said
    return opening + said if said.strip() else ""


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
    generator: Generator,
    prompts: Prompts,
    sampling: Sampling,
    path: str | Path | None = None,
    on_batch: OnBatch | None = None,
) -> dict[str, list[Reply]]:
    """Replies to all prompts, in the order of `prompts`, `sampling.samples` each; only what is missing is generated.

    Looked for in the record file `path`, where a killed run goes on, and in the cache, where the replies of the same
    weights to the same prompts lie. Whatever was made or found is in both afterwards, and what
    was made is handed to `on_batch`.

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
        if on_batch:
            on_batch(replies)

    missing = {id: messages for id, messages in prompts.items() if id not in found}
    made = generator.replies(missing, sampling, keep) if missing else {}
    return {id: found[id] if id in found else made[id] for id in prompts}


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
    return Reply(**{name: record[name] for name in Reply.__dataclass_fields__ if name in record})
