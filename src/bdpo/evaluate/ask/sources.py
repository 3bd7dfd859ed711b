"""Where the rows of a benchmark come from: the package, a folder with the published files, or the network.

A folder, where one is named, is the only place looked at (a cluster without network must not wait for one). Without
it the rows come from the hub, or, where the hub has none that is open to all, from the published file's address.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from urllib.request import urlopen

from bdpo.errors import BdpoError
from bdpo.files import expanded, read_bytes
from bdpo.pairs.fields import Row
from bdpo.pairs.sources import FILE_READERS, PlacedRow, open_source

DATA_DIR = "BDPO_DATA_DIR"
"""The environment variable that names the folder where none is given."""


class MissingRows(BdpoError):
    """The rows of a benchmark are not to be had here; the message says what to download and where to put it.

    `brief` says it in one line, for one of many.
    """

    def __init__(self, message: str, brief: str) -> None:
        super().__init__(message)
        self.brief = brief


@dataclass(frozen=True)
class RowSource:
    """Where rows come from. `{part}` in a file name or address stands for each of `parts`, one after the other."""

    files: tuple[str, ...] = ()  # names in a data folder; the first one there is read
    url: str = ""  # address of the published file, for the message and where there is no hub data set
    hub: str = ""  # data set on the hub, "org/name"
    split: str = "train"  # of the hub data set
    configs: tuple[str | None, ...] = (None,)  # of the hub data set; one for each part, where there are parts
    parts: tuple[str, ...] = ()  # each row says its part under "part"
    package: str = ""  # name of a file that ships in bdpo/starter; then nothing else is needed


def placed_rows(source: RowSource, data_dir: str | Path | None = None) -> Iterator[PlacedRow]:
    """The rows of a benchmark, each with its place ("strongreject.csv, line 3").

    Args:
        data_dir: folder with the published files; None: the one that BDPO_DATA_DIR names, else the network.

    Raises:
        MissingRows: the file is not there, or the network does not give it.
        BdpoError: no such folder, or a file that cannot be read.
    """
    if source.package:
        content = (files("bdpo") / "starter" / source.package).read_bytes()
        yield from _rows(content, f"starter/{source.package}")
    elif folder := data_folder(data_dir):
        for name, part in _present(source, folder):
            yield from _of_part(part, file_rows(folder / name, name))
    elif source.hub:
        yield from _hub_rows(source)
    else:
        for part in source.parts or ("",):
            address = source.url.format(part=part)
            yield from _of_part(part, _rows(_download(address, source), address))


def data_folder(data_dir: str | Path | None) -> Path | None:
    """The folder of published files: the one given, else the one that BDPO_DATA_DIR names, else None."""
    named = data_dir or os.environ.get(DATA_DIR)
    if not named:
        return None
    folder = expanded(named)
    if not folder.is_dir():
        raise BdpoError(f"{folder}: no such folder; give one with --data-dir or {DATA_DIR}, or none to use the hub.")
    return folder


# --- files -----------------------------------------------------------------------------------------------


def _present(source: RowSource, folder: Path) -> list[tuple[str, str]]:
    """Name and part ("" for a file with all parts, or without parts) of each file to read."""
    for name in source.files:
        parts = source.parts if "{part}" in name else ("",)
        named = [(name.format(part=part), part) for part in parts]
        if all((folder / file).is_file() for file, _ in named):
            return named
    wanted = " or ".join(name.format(part="{" + ",".join(source.parts) + "}") for name in source.files)
    raise _missing(source, f"{folder} has no {wanted}:", "there", f"not in {folder}")


def _missing(source: RowSource, reason: str, place: str, briefly: str) -> MissingRows:
    """The error with how to come by the published file, and under which name to put it down."""
    unpack = ", unpack it" if source.url.endswith(".zip") else ""
    same_kind = [name for name in source.files if Path(name).suffix == Path(source.url).suffix]
    name = (same_kind or source.files)[0]
    for_each = f" (for each part: {', '.join(source.parts)})" if "{part}" in name else ""
    return MissingRows(
        f"{reason} download {source.url}{unpack} and put it {place} as {name}{for_each}.",
        f"{briefly}; download {source.url}{unpack} into --data-dir as {name}",
    )


_OWN_FOLDER = f"into a folder that --data-dir or {DATA_DIR} names,"


def file_rows(path: Path, name: str) -> Iterator[PlacedRow]:
    """The rows of one file, by the suffix of its name; `name` is what messages call it."""
    try:
        content = read_bytes(path)
    except OSError as error:
        raise BdpoError(f"{path}: cannot be read ({error.strerror or error}).") from None
    yield from _rows(content, name)


def _rows(content: bytes, name: str) -> Iterator[PlacedRow]:
    suffix = Path(name).suffix
    if suffix not in FILE_READERS:
        raise BdpoError(f"{name}: unknown kind of file; convert it to one of {', '.join(FILE_READERS)}.")
    if suffix == ".json" and (lists := _named_lists(content)):
        for part, cells in lists.items():
            yield from _of_part(part, ((f"{name}, {part} {n}", cell) for n, cell in enumerate(cells, start=1)))
        return
    try:
        yield from ((f"{name}, {place}", row) for place, row in FILE_READERS[suffix](content))
    except BdpoError as error:
        raise BdpoError(f"{name}: {error}") from None


def _named_lists(content: bytes) -> dict[str, list[Row]]:
    """The lists of a JSON file that is one object of lists of rows, as AdvGLUE and the JailbreakBench artefacts are."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(whole, dict):
        return {}
    lists = {key: cell for key, cell in whole.items() if isinstance(cell, list)}
    return {key: cells for key, cells in lists.items() if all(isinstance(cell, dict) for cell in cells)}


def _of_part(part: str, rows: Iterator[PlacedRow]) -> Iterator[PlacedRow]:
    """The rows, marked as those of the part where there is one."""
    for place, row in rows:
        yield place, row if not part or isinstance(row, BdpoError) else {**row, "part": part}


# --- the network -----------------------------------------------------------------------------------------


def _hub_rows(source: RowSource) -> Iterator[PlacedRow]:
    parts = source.parts or ("",) * len(source.configs)
    for config, part in zip(source.configs, parts, strict=True):
        try:
            opened = open_source(source.hub, source.split, config)
        except BdpoError as error:
            raise _missing(source, f"{error} Or", _OWN_FOLDER, "the hub does not give it") from error
        for place, row in _of_part(part, iter(opened.rows)):
            yield f"{opened.description}, {place}", row


def _download(address: str, source: RowSource) -> bytes:
    from huggingface_hub.constants import HF_HUB_OFFLINE  # slow to import, and only needed here

    try:
        if HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        with urlopen(address, timeout=30) as answer:
            return bytes(answer.read())
    except (OSError, HTTPException) as error:
        reason = f"the network gives no rows ({error}):"
        raise _missing(source, reason, _OWN_FOLDER, "the network does not give it") from error
