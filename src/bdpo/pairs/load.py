"""From data to pairs: recognise the format, read row by row, count what is dropped or changed."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bdpo.errors import BdpoError
from bdpo.files import NotWritable, file_made_whole
from bdpo.pairs import fields
from bdpo.pairs.columns import check_mapping, likely_mapping, refuse_unread, renamed, shown_mapping
from bdpo.pairs.control import strip_control_tokens
from bdpo.pairs.fields import Row
from bdpo.pairs.formats import FORMATS, PREFERENCES, Dropped, Format, as_conversation
from bdpo.pairs.mend import Conflicts, Duplicates, mend_pairs
from bdpo.pairs.record import PreferencePair
from bdpo.pairs.sources import PlacedRow, Source, as_row, dataset_rows, open_source
from bdpo.terminal import each

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class LoadedPairs:
    """The pairs of one data set, and an account of every row that is not among them as it was."""

    pairs: list[PreferencePair]
    source: str  # what was read: path or name, with the split
    format: str  # a key of FORMATS
    n_rows: int  # rows read
    counts: dict[str, int] = field(default_factory=dict)  # rows dropped or changed, by reason
    errors: list[str] = field(default_factory=list)  # "file, line N: what, mend" of rows that are wrong
    places: dict[str, str] = field(default_factory=dict)  # of each pair, by id: "line N"

    def where(self, pair: PreferencePair) -> str:
        """What to call the pair in a message: its place in the data, or its id where none is known."""
        place = self.places.get(pair.id)
        return f"Pair {pair.id}" if place is None else f"{self.source}, {place}"


def load_pairs(
    data: str | Path,
    *,
    split: str | None = None,
    config: str | None = None,
    format: str | None = None,
    prefer: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_chat: bool = False,
    conflicts: Conflicts = "error",
    duplicates: Duplicates = "keep",
    sample: int | None = None,
    seed: int = 0,
    strip_control_tokens: Sequence[str] = (),
    on_error: Literal["raise", "collect"] = "raise",
) -> LoadedPairs:
    """Read preference pairs.

    Args:
        data: "starter"; a .jsonl, .json, .csv, .tsv or .parquet file (also gzipped); a folder that `save_to_disk`
            wrote; or a hub name, "org/name".
        split: "train" where there are splits and none is named; files have none.
        config: the hub data set's configuration.
        format: canonical, trl, hh, pku, orca, alpaca, sharegpt or helpsteer; None recognises it from the columns.
        prefer: for PKU-SafeRLHF, and required there: safety-protocol, safer or helpful.
        columns: our name of a column -> its name in the data, such as {"prompt": "question"}.
        as_chat: make each text prompt one message of the user, for the model's chat template.
        conflicts: what becomes of two replies that are preferred both ways, see `mend_pairs`; "error" leaves them.
        duplicates: what becomes of equal pairs, see `mend_pairs`.
        sample: draw this many pairs with a safe prompt (both replies safe) and as many with an unsafe one
            (one reply safe), in the order of the data; fewer where there are not as many.
        seed: of that draw.
        strip_control_tokens: strings to take out of every text, see `control_tokens`.
        on_error: "raise" stops at the first row that is wrong; "collect" lists such rows in `errors`.

    Raises:
        BdpoError: with the file and the line; for the data as a whole also under "collect".
    """
    options = _Options(
        format,
        prefer,
        columns or {},
        as_chat,
        conflicts,
        duplicates,
        sample,
        seed,
        strip_control_tokens,
        on_error,
    )
    return _load(open_source(data, split, config), options)


def pairs_from_rows(
    rows: Iterable[Row | PreferencePair] | Dataset,
    *,
    source: str = "rows",
    format: str | None = None,
    prefer: str | None = None,
    columns: Mapping[str, str] | None = None,
    as_chat: bool = False,
    conflicts: Conflicts = "error",
    duplicates: Duplicates = "keep",
    sample: int | None = None,
    seed: int = 0,
    strip_control_tokens: Sequence[str] = (),
    on_error: Literal["raise", "collect"] = "raise",
) -> LoadedPairs:
    """The same as `load_pairs` for rows in memory: dicts, pairs, or a `datasets.Dataset`."""
    options = _Options(
        format,
        prefer,
        columns or {},
        as_chat,
        conflicts,
        duplicates,
        sample,
        seed,
        strip_control_tokens,
        on_error,
    )
    placed = dataset_rows(rows) if hasattr(rows, "with_format") else _placed(rows)
    return _load(Source(source, source, placed), options)


def write_pairs(path: str | Path, pairs: Iterable[PreferencePair]) -> None:
    """Write canonical JSONL, one pair a line, whole or not at all; BdpoError where it cannot be written."""
    write_rows(path, map(asdict, pairs))


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSONL, whole or not at all; BdpoError where it cannot be written."""
    try:
        with file_made_whole(Path(path)) as work, work.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except NotWritable as error:
        raise BdpoError(f"{path}: cannot be written ({error.reason}); choose another place.") from None


@dataclass(frozen=True)
class _Options:
    """What `load_pairs` and `pairs_from_rows` have in common; the meaning is told there."""

    format: str | None
    prefer: str | None
    columns: Mapping[str, str]
    as_chat: bool
    conflicts: Conflicts
    duplicates: Duplicates
    sample: int | None
    seed: int
    strip_control_tokens: Sequence[str]
    on_error: Literal["raise", "collect"]


def _load(source: Source, options: _Options) -> LoadedPairs:
    rows = _renamed_rows(source, options.columns)
    format = options.format or _recognised_format(source, rows)
    _check_options(source, format, options)
    loaded = LoadedPairs([], source.description, format, len(rows))
    counts = Counter[str]()
    for place, row in each(rows, "reading", "rows"):
        try:
            pair = _pair(row, place, source, FORMATS[format], options)
            if pair.id in loaded.places:
                raise BdpoError(f"the id '{pair.id}' stands on {loaded.places[pair.id]} already: make ids unique.")
        except Dropped as dropped:
            counts[f"dropped: {dropped}"] += 1
        except BdpoError as error:
            loaded.errors.append(f"{source.description}, {place}: {error}")
            if options.on_error == "raise":
                raise BdpoError(loaded.errors[-1]) from None
        else:
            loaded.places[pair.id] = place
            loaded.pairs.append(pair)
            counts[_CUT_OFF] += isinstance(pair.prompt, str) and isinstance(row, Mapping) and "prompt" not in row
    _strip(loaded, options.strip_control_tokens, counts)
    if options.as_chat or any(isinstance(row, Mapping) and _has_system(row) for _, row in rows):
        _make_chat(loaded, counts)
    mended = mend_pairs(loaded.pairs, conflicts=options.conflicts, duplicates=options.duplicates)
    loaded.pairs = mended.pairs
    counts.update(mended.counts)
    if options.sample is not None:
        _draw(loaded, options.sample, options.seed, counts)
    loaded.counts = {reason: n for reason, n in counts.items() if n}
    if not loaded.pairs and not loaded.errors:
        reasons = "; ".join(f"{n} {reason}" for reason, n in loaded.counts.items())
        raise BdpoError(f"{source.description}: none of its {len(rows)} rows gives a pair ({reasons}).")
    return loaded


_CUT_OFF = "changed: no column holds the prompt, so what both texts begin with was taken for it"


def _renamed_rows(source: Source, columns: Mapping[str, str]) -> list[PlacedRow]:
    """All rows, their columns under our names; BdpoError where there are none, or none has a column that is mapped."""
    rows = list(source.rows)
    if not rows:
        raise BdpoError(f"{source.description}: it has no rows; is it the file you meant?")
    check_mapping(columns)
    sound = [row for _, row in rows if not isinstance(row, BdpoError)]
    for ours, theirs in columns.items():
        if sound and not any(theirs in row for row in sound):
            raise BdpoError(
                f"{source.description}: no row has the column '{theirs}' that data.columns gives for '{ours}' "
                f"(the columns are {_quoted(sound[0])}): correct its name."
            )
    return [(place, row if isinstance(row, BdpoError) else renamed(row, columns)) for place, row in rows]


def _quoted(row: Row) -> str:
    return ", ".join(f"'{column}'" for column in row) or "none"


def _has_system(row: Row) -> bool:
    return isinstance(row.get("system"), str) and bool(row["system"].strip())


def _placed(rows: Iterable[Row | PreferencePair]) -> Iterable[PlacedRow]:
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", asdict(row) if isinstance(row, PreferencePair) else as_row(row)


def _pair(row: Row | BdpoError, place: str, source: Source, format: Format, options: _Options) -> PreferencePair:
    """One row's pair; an id that it does not bring is made from its place, which names it for good."""
    if isinstance(row, BdpoError):
        raise row
    if (key := fields.beside_text(row, format.columns)) is not None:
        raise Dropped(f"'{key}' belongs to the conversation and is no text, so it cannot be read")
    refuse_unread(row, format, options.columns)
    pair = format.read(row, options.prefer)
    return replace(pair, id=pair.id or place.replace(" ", "-"), source=pair.source or source.name)


def _recognised_format(source: Source, rows: list[PlacedRow]) -> str:
    """The format of the first row that has a known one."""
    sound = [row for _, row in rows if not isinstance(row, BdpoError)]
    found = next((name for row in sound for name, format in FORMATS.items() if format.matches(row)), None)
    if found is None and sound:
        raise BdpoError(f"{source.description}: {_unknown(sound[0])}")
    return found or "canonical"  # every line is broken: the format is no matter


def _unknown(row: Row) -> str:
    """Why a row is of no known format, and what to do."""
    if {"prompt", "response"} <= row.keys():
        return (
            f"a row has one response (the columns are {_quoted(row)}), and a pair needs two to the same prompt, of "
            "which one is preferred: join such rows into pairs, with the columns prompt, chosen and rejected."
        )
    return (
        f"no known pair format has the columns {_quoted(row)}; rename them to prompt, chosen and rejected (for "
        "PKU-SafeRLHF: prompt, response_0 and response_1), or say which is which, "
        f"{shown_mapping(likely_mapping(row))}."
    )


def _check_options(source: Source, format: str, options: _Options) -> None:
    choices = " | ".join(PREFERENCES)
    if format not in FORMATS:
        raise BdpoError(f"unknown format '{format}': choose one of {', '.join(FORMATS)}.")
    if format == "pku" and options.prefer not in PREFERENCES:
        raise BdpoError(
            f"{source.description}: PKU-SafeRLHF ranks by safety and by helpfulness; say with prefer which "
            f"reply is chosen, {choices} (prefer is {options.prefer or 'not given'})."
        )
    if format != "pku" and options.prefer is not None:
        raise BdpoError(
            f"{source.description}: prefer is for PKU-SafeRLHF, and this is read as {format}; leave it out."
        )
    if options.sample is not None and options.sample < 1:
        raise BdpoError(f"sample is {options.sample}: draw at least 1 pair of each kind.")


def _strip(loaded: LoadedPairs, tokens: Sequence[str], counts: Counter[str]) -> None:
    stripped = [strip_control_tokens(pair, tokens) for pair in loaded.pairs]
    counts["changed: control tokens stripped"] = sum(a != b for a, b in zip(loaded.pairs, stripped, strict=True))
    loaded.pairs = stripped


def _make_chat(loaded: LoadedPairs, counts: Counter[str]) -> None:
    """Make each text prompt one message of the user."""
    counts["changed: the text prompt became a message of the user"] = sum(
        isinstance(p.prompt, str) for p in loaded.pairs
    )
    loaded.pairs = [replace(pair, prompt=as_conversation(pair.prompt)) for pair in loaded.pairs]


def _draw(loaded: LoadedPairs, size: int, seed: int, counts: Counter[str]) -> None:
    """Keep `size` pairs with a safe prompt and `size` with an unsafe one, as the replies' labels tell."""
    labels = [(pair.chosen_safe, pair.rejected_safe) for pair in loaded.pairs]
    kinds = {
        "safe": [i for i, label in enumerate(labels) if label == (True, True)],
        "unsafe": [i for i, label in enumerate(labels) if set(label) == {True, False}],
    }
    if not any(kinds.values()) and labels:
        raise BdpoError(f"{loaded.source}: sample needs pairs labelled chosen_safe and rejected_safe; here are none.")
    draw = random.Random(seed)
    kept = {i for indices in kinds.values() for i in draw.sample(indices, min(size, len(indices)))}
    for kind, indices in kinds.items():
        counts[f"sample: missing pairs with a {kind} prompt (all {len(indices)} taken)"] = max(0, size - len(indices))
    counts["dropped: not drawn for the sample"] = len(labels) - len(kept)
    loaded.pairs = [pair for i, pair in enumerate(loaded.pairs) if i in kept]
