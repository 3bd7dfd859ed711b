"""The pairs of the studies: `python studies/pairs.py starter OUT`, `mixed OUT FOLDER` and `thirds OUT CSV`.

Writes OUT/train.jsonl and OUT/heldout.jsonl, no prompt on both sides, with the kind of each pair in `prompt_kind`, and
OUT/heldout-half.jsonl, every second held-out pair, for models that take long.

starter   the 424 embedded pairs, drawn anew so that more of them are held out
mixed     unsafe prompts of PKU-SafeRLHF, harmless ones of Alpaca with needless refusals, from the public files
          pku_saferlhf_test_pairs.jsonl.gz and alpaca_refused_pairs.jsonl.gz in FOLDER; of like length
thirds    of OUT/train.jsonl, by the imbalance d in what `bdpo data show --export CSV` wrote of it: OUT/smallest.jsonl,
          OUT/largest.jsonl (of |d|) and OUT/random.jsonl, each with the same number of pairs of each kind
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def starter(rng: random.Random) -> tuple[list[Row], list[Row]]:
    """240 held-out pairs, 160 of unsafe and 80 of harmless prompts; the others are for training."""
    splits = [files("bdpo.starter") / f"{split}.jsonl" for split in ("train", "validation")]
    rows = [json.loads(line) for split in splits for line in split.read_text(encoding="utf-8").splitlines()]
    rng.shuffle(rows)
    unsafe = [row | {"prompt_kind": "unsafe"} for row in rows if not row["rejected_safe"]]
    harmless = [row | {"prompt_kind": "harmless"} for row in rows if row["rejected_safe"]]
    train = unsafe[160:] + harmless[80:]
    rng.shuffle(train)
    return train, unsafe[:160] + harmless[:80]


def mixed(rng: random.Random, folder: Path) -> tuple[list[Row], list[Row]]:
    """200 unsafe and 120 harmless pairs held out, 500 and 180 for training; a pair preferred both ways is left out.

    One pair a prompt of PKU with 5 to 80 words a reply; three a prompt of Alpaca's 100, each reply its first 60 words.
    """
    unsafe = list(_by_prompt(_rows(folder / "pku_saferlhf_test_pairs.jsonl.gz"), "unsafe").values())
    harmless = list(_by_prompt(_rows(folder / "alpaca_refused_pairs.jsonl.gz"), "harmless").values())
    unsafe = [kept for group in unsafe if (kept := [row for row in _undisputed(group) if _short(row)])]
    rng.shuffle(unsafe)
    rng.shuffle(harmless)
    held = [rng.choice(group) for group in unsafe[:200]]
    held += [_cut(row) for group in harmless[:40] for row in rng.sample(group, 3)]
    train = [rng.choice(group) for group in unsafe[200:700]]
    train += [_cut(row) for group in harmless[40:] for row in rng.sample(group, 3)]
    rng.shuffle(train)
    return train, held


def _rows(path: Path) -> Iterable[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def _by_prompt(rows: Iterable[Row], kind: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[" ".join(str(row["prompt"]).lower().split())].append(row | {"prompt_kind": kind})
    return groups


def _undisputed(rows: list[Row]) -> list[Row]:
    """Each pair once, and none that is preferred the other way round as well."""
    found = {(row["chosen"], row["rejected"]): row for row in rows}
    return [row for (chosen, rejected), row in found.items() if (rejected, chosen) not in found]


def _short(row: Row) -> bool:
    return all(5 <= len(row[side].split()) <= 80 for side in ("chosen", "rejected"))


def _cut(row: Row) -> Row:
    return row | {side: " ".join(row[side].split(" ")[:60]) for side in ("chosen", "rejected")}


def thirds(rng: random.Random, train: list[Row], imbalance: dict[str, float]) -> dict[str, list[Row]]:
    """The third of the smallest |d| of each kind, that of the largest, and one drawn; in an order that is drawn."""
    found: dict[str, list[Row]] = {"smallest": [], "largest": [], "random": []}
    for kind in sorted({row["prompt_kind"] for row in train}):
        rows = sorted((row for row in train if row["prompt_kind"] == kind), key=lambda row: abs(imbalance[row["id"]]))
        third = len(rows) // 3
        found["smallest"] += rows[:third]
        found["largest"] += rows[len(rows) - third :]
        found["random"] += rng.sample(rows, third)
    return {name: rng.sample(rows, len(rows)) for name, rows in found.items()}


def main(name: str, out: str, source: str = "") -> None:
    """Write the files and say what they hold."""
    rng = random.Random(0)
    if name == "thirds":
        train = [json.loads(line) for line in (Path(out) / "train.jsonl").read_text(encoding="utf-8").splitlines()]
        with Path(source).open(encoding="utf-8", newline="") as lines:
            found = thirds(rng, train, {row["id"]: float(row["d"]) for row in csv.DictReader(lines)})
    else:
        train, held = starter(rng) if name == "starter" else mixed(rng, Path(source))
        found = {"train": train, "heldout": held, "heldout-half": held[::2]}
    Path(out).mkdir(parents=True, exist_ok=True)
    for file, rows in ((f"{name}.jsonl", rows) for name, rows in found.items()):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (Path(out) / file).write_text("".join(lines), encoding="utf-8")
        print(f"{out}/{file}: {dict(Counter(row['prompt_kind'] for row in rows))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
