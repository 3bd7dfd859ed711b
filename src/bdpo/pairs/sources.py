"""Where rows come from: what a data name means, and one reader for each kind of file.

A source gives (place, row) one after the other. A line that is no row comes as the `BdpoError` that says why,
so that the loader can go on to the next. To add a kind of file, write its reader and give it a line in
`FILE_READERS`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError, first_line
from bdpo.files import expanded, read_bytes
from bdpo.pairs.fields import Row

# bytes; what takes more, and so many times what it takes on disk, is made to fill memory and is no text
UNPACKED, SWOLLEN = 256 << 20, 200
_BATCH = 256  # rows of Parquet at a time
_NOTHING = "no such file; give a path, a hub name (org/name), or 'starter'."

PlacedRow = tuple[str, Row | BdpoError]
"""Where a row stands ("line 3"), counted from 1, and the row."""

FileReader = Callable[[bytes], Iterator[PlacedRow]]
"""From a file's content to its rows; raises BdpoError, without the path, where it is no such file at all."""


@dataclass(frozen=True)
class Source:
    """Rows and where they come from."""

    description: str  # for messages: the path or name as the user knows it
    name: str  # short, the pairs' `source`
    rows: Iterable[PlacedRow]


def open_source(data: str | Path, split: str | None = None, config: str | None = None) -> Source:
    """The rows of "starter", a file, a `save_to_disk` folder, or a hub data set.

    A name that exists on disk is a path, and so is one that has a data file's suffix or begins with ".", "/"
    or "~"; any other "org/name" is a data set on the hub.

    Raises:
        BdpoError: no such file, folder or data set; it cannot be read; or split or config have no meaning for
            it.
    """
    hub = _is_hub_name(data)
    path = expanded(data)
    if config is not None and not hub:
        raise BdpoError(f"{data}: only a hub data set has a config; leave config '{config}' out.")
    if data == "starter":
        return _starter_source(split or "train")
    if hub:
        return _hub_source(str(data), split or "train", config)
    if os.path.isdir(path):
        return _folder_source(path, split)
    if split is not None:
        raise BdpoError(f"{path}: a file has no splits; leave split '{split}' out.")
    return _file_source(path)


def refuse_missing(data: str | Path) -> None:
    """Raise BdpoError, as reading does, where a name of data is a path at which there is nothing."""
    if data != "starter" and not _is_hub_name(data) and not os.path.exists(expanded(data)):
        raise BdpoError(f"{expanded(data)}: {_NOTHING}")


def refuse_onto(out: Path, data: str | Path, option: str) -> None:
    """Raise BdpoError where what is to be written would take the place of the data that it is made of."""
    if out.exists() and os.path.exists(expanded(data)) and out.samefile(expanded(data)):
        raise BdpoError(f"{option} {out} is the data itself: choose another name.")


def _is_hub_name(data: str | Path) -> bool:
    if not isinstance(data, str) or os.path.exists(data) or _suffix(data) in FILE_READERS:
        return False
    return not data.startswith(".") and re.fullmatch(r"[\w.-]+/[\w.-]+", data) is not None


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


# --- files -----------------------------------------------------------------------------------------------


def _file_source(path: Path) -> Source:
    reader = FILE_READERS.get(_suffix(path.name))
    if reader is None and os.path.exists(path):
        raise BdpoError(f"{path}: unknown kind of file; convert it to one of {', '.join(FILE_READERS)}.")
    return Source(str(path), path.name, _read(path, str(path), reader or _jsonl_rows))


def _starter_source(split: str) -> Source:
    if split not in ("train", "validation"):
        raise BdpoError(f"the starter data has the splits train and validation, not '{split}'.")
    resource = files("bdpo") / "starter" / f"{split}.jsonl"
    if not resource.is_file():
        raise BdpoError("the starter data is missing from this installation: install bdpo again.")
    return Source(f"starter ({split})", "starter", _read(resource, f"starter ({split})", _jsonl_rows))


def _read(path: Path | Traversable, where: str, reader: FileReader) -> list[PlacedRow]:
    """All rows of one file: everything that can go wrong with a file as a whole is told here."""
    try:
        content = read_bytes(path) if isinstance(path, Path) else path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = _unzipped(content)
        return list(reader(content))
    except FileNotFoundError:
        raise BdpoError(f"{where}: {_NOTHING}") from None
    except PermissionError:
        raise BdpoError(f"{where}: no permission to read it; change its mode or owner.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise BdpoError(f"{where}: not a whole gzip file; download or compress it again.") from None
    except OSError as error:
        raise BdpoError(f"{where}: cannot be read ({error.strerror or error}).") from None
    except BdpoError as error:
        raise BdpoError(f"{where}: {error}") from None


def _unzipped(content: bytes) -> bytes:
    most, unpacked = max(UNPACKED, SWOLLEN * len(content)), bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while some := file.read(min(1 << 24, most)):
            unpacked += some
            _refuse_swollen(len(unpacked), most)
    return bytes(unpacked)


def _refuse_swollen(size: int, most: int) -> None:
    if size > most:
        raise BdpoError(f"it unpacks to more than {most >> 20} MiB, as no text does; have a look at what is in it.")


def _jsonl_rows(content: bytes) -> Iterator[PlacedRow]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield f"line {number}", _json_row(line)


def _json_row(line: bytes) -> Row | BdpoError:
    try:
        return as_row(json.loads(line.decode(), object_pairs_hook=_object))
    except UnicodeDecodeError as error:
        return BdpoError(f"not UTF-8 (byte {error.start + 1} of the line): save the file as UTF-8.")
    except json.JSONDecodeError as error:
        return BdpoError(f"not JSON ({error.msg}, column {error.colno}): each line must be one JSON object.")
    except (ValueError, RecursionError) as error:
        return BdpoError(f"not readable JSON ({error}): each line must be one JSON object.")


def _json_rows(content: bytes) -> Iterator[PlacedRow]:
    """A JSON list of rows; a .json file with one object a line (as `datasets` writes it) is JSON lines."""
    if not content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from _jsonl_rows(content)
        return
    try:
        cells = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        yield _not_utf8(content, error)
    except json.JSONDecodeError as error:
        yield f"line {error.lineno}", BdpoError(f"not JSON ({error.msg}): it must be a list of objects.")
    except (ValueError, RecursionError) as error:
        raise BdpoError(f"not readable JSON ({error}): it must be a list of objects.") from None
    else:
        yield from ((f"row {number}", as_row(cell)) for number, cell in enumerate(cells, start=1))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | BdpoError:
    """A JSON object, or what is wrong in it: a key that stands there twice, of which Python would take the last."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return next(filter(None, map(_fault, row.values())), row)
    twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
    return BdpoError(f"the key '{twice}' is given twice in one object: leave one of them.")


def _fault(cell: Any) -> BdpoError | None:
    if isinstance(cell, list):
        return next(filter(None, map(_fault, cell)), None)
    return cell if isinstance(cell, BdpoError) else None


def _csv_rows(content: bytes, delimiter: str = ",") -> Iterator[PlacedRow]:
    csv.field_size_limit(sys.maxsize)  # a long conversation exceeds the default of 128 KiB
    line = 1  # where a row begins: its cells may hold line breaks
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True, delimiter=delimiter)
        _check_header(rows.fieldnames or (), delimiter)
        columns = len(rows.fieldnames or ())
        line = rows.line_num + 1
        for row in rows:
            whole = None not in row and None not in row.values()
            fault = BdpoError(f"the row has not the {columns} cells of the header: put its text in quotes.")
            yield f"line {line}", row if whole else fault
            line = rows.line_num + 1
    except UnicodeDecodeError as error:
        yield _not_utf8(content, error)
    except csv.Error as error:
        yield f"line {line}", BdpoError(f"not CSV ({error}): check its quotes.")


def _check_header(columns: Sequence[str], delimiter: str) -> None:
    """BdpoError where a column stands there twice, or the whole header is one cell that another delimiter divides."""
    _refuse_twice(columns, "the header (line 1)")
    found = next((mark for mark in ",;\t|" if mark != delimiter and len(columns) == 1 and mark in columns[0]), None)
    if found is not None:
        wanted = {",": "commas", "\t": "tabs"}[delimiter]
        raise BdpoError(
            f"the header (line 1) is one column, divided by {found!r} and not by {wanted}: save the file with {wanted}."
        )


def _refuse_twice(columns: Sequence[str], where: str) -> None:
    twice = next((name for name, n in Counter(columns).items() if name and n > 1), None)
    if twice is not None:
        raise BdpoError(f"{where} has the column '{twice}' twice: rename one of them, or take it out.")


def _parquet_rows(content: bytes) -> Iterator[PlacedRow]:
    import pyarrow.parquet  # slow to import, and only needed here

    size, done, most = 0, 0, max(UNPACKED, SWOLLEN * len(content))
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        _refuse_twice(file.schema_arrow.names, "the table")
        for batch in file.iter_batches(_BATCH):
            size += batch.nbytes + sys.getsizeof({}) * batch.num_rows
            _refuse_swollen(size, most)
            columns = {name: _cells(name, batch[name]) for name in batch.schema.names}
            for number, cells in enumerate(zip(*columns.values(), strict=True), start=done + 1):
                yield f"row {number}", dict(zip(columns, cells, strict=True))
            done += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise BdpoError(f"not a Parquet file, or a damaged one ({first_line(error)}); write it again.") from None


def _cells(name: str, column: Any) -> list[Any]:
    """A column of Parquet as Python's values, which cannot be all that Parquet has: times beyond all years, say."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        raise BdpoError(f"the column '{name}' cannot be read ({first_line(error)}); write it as text.") from None


FILE_READERS: dict[str, FileReader] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
}
"""File readers by suffix; each may also be gzipped (.jsonl.gz)."""


def _not_utf8(content: bytes, error: UnicodeDecodeError) -> PlacedRow:
    line = content.count(b"\n", 0, error.start) + 1
    return f"line {line}", BdpoError("not UTF-8: save the file as UTF-8.")


def as_row(cell: Any) -> Row | BdpoError:
    """The cell as a row, or the fault where it is none."""
    if isinstance(cell, Mapping | BdpoError):
        return cell
    return BdpoError(f"a {type(cell).__name__}, not an object: a row is one object with named columns.")


# --- Hugging Face data sets ------------------------------------------------------------------------------


def _folder_source(path: Path, split: str | None) -> Source:
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # datasets, arrow and the file system each raise their own
        raise BdpoError(
            f"{path}: not a folder that datasets' save_to_disk wrote ({first_line(error)}); "
            "name a data file in it instead."
        ) from error
    if not isinstance(loaded, DatasetDict):
        if split is not None:
            raise BdpoError(f"{path}: a data set without splits; leave split '{split}' out.")
        return Source(str(path), path.name, dataset_rows(loaded))
    split = split or "train"
    if split not in loaded:
        raise BdpoError(f"{path}: it has the splits {', '.join(loaded)} and not '{split}'; name one with split.")
    return Source(f"{path} ({split})", path.name, dataset_rows(loaded[split]))


def _hub_source(name: str, split: str, config: str | None) -> Source:
    from datasets import load_dataset

    try:
        loaded = load_dataset(name, config, split=split)
    except Exception as error:  # network, name, config, split, access: datasets raises a dozen kinds
        raise BdpoError(
            f"{name}: no such file or folder here, and the hub did not give its split '{split}' "
            f"({first_line(error)}); check name, config, split and network, or give a local file."
        ) from error
    return Source(f"{name} ({split})", name, dataset_rows(loaded))


def dataset_rows(dataset: Any) -> Iterator[PlacedRow]:
    """The rows of a `datasets.Dataset`, whatever format (torch, numpy) is set on it."""
    for number, row in enumerate(dataset.with_format(None), start=1):
        yield f"row {number}", row
