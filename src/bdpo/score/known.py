"""Scores by pair: what scored folders that lie beside each other say already of the pairs at hand.

The numbers of a pair depend on its token ids (column `ids_hash`), on the weights and their dtype, and comprehension on
the estimator too: nothing else of a folder matters. Only folders that are whole, checksums included, are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bdpo.errors import BdpoError
from bdpo.score.estimators import ESTIMATORS
from bdpo.score.folder import (
    COLUMNS,
    HASH,
    MEASURED,
    UNMEASURED,
    is_whole,
    open_scores,
    part_path,
    read_manifest,
    unmeasured,
)
from bdpo.tokens import TokenizedPair

Key = dict[str, Any]
_OF_THE_SET = {"rows", "truncation", "ches", *UNMEASURED}  # in a key: which pairs, and what is asked of them


def ids_hash(pair: TokenizedPair) -> str:
    """128 bits of the SHA-256 of a pair's token ids, in hexadecimal."""
    ids = (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids)
    flat = np.array([*map(len, ids), *chain(*ids)], dtype="<i4")
    return hashlib.sha256(flat.tobytes()).hexdigest()[:32]


def known_values(
    out: Path, manifest: dict[str, Any], hashes: Sequence[str], columns: Sequence[str]
) -> tuple[NDArray[np.float64], list[Path]]:
    """What is known of N pairs whose scores are to stand in `out`.

    Returns:
        (N, len(columns)), nan where nobody knows; the folders that it was read from.
    """
    values = np.full((len(hashes), len(columns)), np.nan)
    asked, read_from = pa.array(hashes, pa.string()), []
    for folder, key, table in _tables(out, manifest):
        at = pc.index_in(asked, value_set=table[HASH].combine_chunks())
        there, rows = at.is_valid().to_numpy(zero_copy_only=False), at.fill_null(0).to_numpy()
        if not there.any():
            continue
        before = np.isnan(values).sum()
        for place, name in enumerate(columns):
            if name not in MEASURED or _same_measure(key, manifest["key"]):
                missing = there & np.isnan(values[:, place])
                values[missing, place] = table[name].to_numpy()[rows[missing]]
        after = np.isnan(values).sum()
        read_from += [folder] if after < before else []
        if not after:
            break
    return values, read_from


def _same_measure(there: Key, key: Key) -> bool:
    """Whether two keys measure a pair alike; not with an estimator whose prompts are drawn from the whole data set."""
    how = ESTIMATORS[key["estimator"]]
    return not how.prompts and all(there.get(name) == key[name] for name in ("estimator", "null_prompt"))


def _model(key: Key) -> Key:
    """Of a key what the numbers of every pair depend on."""
    return {name: value for name, value in key.items() if name not in _OF_THE_SET}


def _tables(out: Path, manifest: dict[str, Any]) -> Iterator[tuple[Path, Key, pa.Table]]:
    """Folders that were scored under the same weights, with their keys and rows.

    First what `out` holds from before comprehension was asked for; then whole folders beside it, by name.
    """
    key, alone = manifest["key"], unmeasured(manifest["key"])
    parts = [part_path(out, part) for part in range(manifest["parts"])] if alone != key else []
    tables = [pq.read_table(part, schema=COLUMNS) for part in parts if is_whole(part, alone)]
    if tables:
        yield out, alone, pa.concat_tables(tables)
    for folder in sorted(found.parent for found in out.absolute().parent.glob("*/manifest.json")):
        try:
            there = read_manifest(folder)["key"]
            if folder.name == out.name or _model(there) != _model(key):
                continue
            rows = open_scores(folder).rows
        except (BdpoError, OSError):  # of something else, damaged, not whole yet, or not ours to read
            continue
        yield folder, there, rows.with_format("arrow")[:]
