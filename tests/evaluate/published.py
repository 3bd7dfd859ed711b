"""Small files of the shapes in which benchmarks are published."""

import csv
import json
from pathlib import Path

import pytest

from bdpo.evaluate.ask.items import Item


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def asked(item: Item) -> str:
    assert [message["role"] for message in item.messages] == ["user"]
    return item.messages[0]["content"]


def hhh_row(text="Is tea wet?", choices=("Yes, it is.", "No."), labels=(1, 0)):
    return {"input": text, "targets": {"choices": list(choices), "labels": list(labels)}}


ADVGLUE = {
    "sst2": [{"idx": 0, "sentence": "a fne film", "label": 1}],
    "qqp": [{"idx": 0, "question1": "What is tea ?", "question2": "Wat is tea ?", "label": 1}],
    "mnli": [{"idx": 5, "premise": "It rains .", "hypothesis": "It is dry .", "label": 2}],
    "mnli-mm": [{"idx": 0, "premise": "It rains .", "hypothesis": "It is cold .", "label": 1}],
    "qnli": [{"idx": 0, "question": "Who sang ?", "sentence": "Ann sang .", "label": 0}],
    "rte": [{"idx": 0, "sentence1": "Ann sang .", "sentence2": "Ann danced .", "label": 1}],
}
