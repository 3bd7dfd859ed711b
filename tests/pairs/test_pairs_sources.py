"""Files, folders, hub names and the starter data: the rows of each, and one sentence for each fault."""

import csv
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, load_pairs, sources, write_pairs

MESSAGES = [{"role": "user", "content": "Name a river, please."}]
ROWS = [
    {"prompt": MESSAGES, "chosen": [{"role": "assistant", "content": "The Rhine.\nIt is long."}],
     "rejected": [{"role": "assistant", "content": "A lake, \"Como\"."}]},
    {"prompt": MESSAGES, "chosen": [{"role": "assistant", "content": "The Ötztaler Ache."}],
     "rejected": [{"role": "assistant", "content": "No."}]},
]  # fmt: skip
REPLIES = [("The Rhine.\nIt is long.", 'A lake, "Como".'), ("The Ötztaler Ache.", "No.")]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({name: json.dumps(cell) for name, cell in row.items()} for row in rows)


def write_parquet(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {".jsonl": write_jsonl, ".json": write_json, ".csv": write_csv, ".parquet": write_parquet}


def replies(loaded):
    return [(pair.chosen, pair.rejected) for pair in loaded.pairs]


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
def test_each_kind_of_file_gives_the_same_pairs(tmp_path, suffix, gzipped):
    path = tmp_path / f"rivers{suffix}"
    WRITERS[suffix](path, ROWS)
    if gzipped:
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    loaded = load_pairs(str(path))
    assert replies(loaded) == REPLIES
    assert (loaded.format, loaded.n_rows, loaded.source) == ("trl", 2, str(path))
    assert all(pair.prompt == tuple(MESSAGES) and pair.source == path.name for pair in loaded.pairs)


def test_ids_and_places_are_lines_of_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    row = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
    path.write_text(f"\ufeff{row}\r\n\n{row}\n")  # byte order mark, Windows line end, blank line
    assert [pair.id for pair in load_pairs(path).pairs] == ["line-1", "line-3"]


def test_a_json_file_may_hold_one_object_a_line(tmp_path):
    path = tmp_path / "a.json"
    write_jsonl(path, ROWS)
    assert replies(load_pairs(path)) == REPLIES


def test_csv_lines_are_where_rows_begin(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,prompt,chosen,rejected,chosen_safe,category\n,p,"one\ntwo",b,true,x\n,p,c,d,,\n,p,c\n')
    loaded = load_pairs(path, on_error="collect")
    assert [(pair.id, pair.chosen, pair.chosen_safe, pair.category) for pair in loaded.pairs] == [
        ("line-2", "one\ntwo", True, ("x",)),
        ("line-4", "c", None, ()),
    ]
    assert loaded.errors == [f"{path}, line 5: the row has not the 6 cells of the header: put its text in quotes."]


def test_bad_lines_are_collected_and_the_others_read(tmp_path):
    path = tmp_path / "a.jsonl"
    good = b'{"prompt": "a", "chosen": "b", "rejected": "c"}'
    path.write_bytes(b"\n".join([good, b'{"prompt": "a",', b'{"prompt": "\xff"}', b"[1]", b'{"prompt": "a"}', good]))
    loaded = load_pairs(path, on_error="collect")
    assert (loaded.n_rows, [pair.id for pair in loaded.pairs]) == (6, ["line-1", "line-6"])
    assert [error.removeprefix(f"{path}, ").split(":")[0] for error in loaded.errors] == [
        "line 2", "line 3", "line 4", "line 5",
    ]  # fmt: skip
    assert "not JSON" in loaded.errors[0] and "not UTF-8 (byte 13 of the line)" in loaded.errors[1]
    assert "not an object" in loaded.errors[2] and "no column 'chosen'" in loaded.errors[3]
    with pytest.raises(BdpoError, match=r"a\.jsonl, line 2: not JSON"):
        load_pairs(path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", b"", "it has no rows"),
        ("a.jsonl", b"\n \n", "it has no rows"),
        ("a.csv", b"prompt,chosen,rejected\n", "it has no rows"),
        ("a.jsonl", b"nonsense", r"a\.jsonl, line 1: not JSON"),
        ("a.json", b'[{"prompt": "a"},\n oops]', r"a\.json, line 2: not JSON"),
        ("a.json", b'[{"prompt": "a"},\n "\xff"]', r"a\.json, line 2: not UTF-8"),
        ("a.csv", b"prompt,chosen,rejected\na,b,c\na,\xff,c\n", r"a\.csv, line 3: not UTF-8"),
        ("a.csv", b'prompt,chosen,rejected\na,b,"c\n', r"a\.csv, line 2: not CSV"),
        ("a.parquet", b"no parquet", r"a\.parquet: not a Parquet file"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], r"a\.jsonl\.gz: not a whole gzip file"),
        ("a.txt", b"text", r"a\.txt: unknown kind of file; convert it to one of \.jsonl, \.json, \.csv, \.tsv, "),
    ],
)
def test_a_faulty_file_is_one_sentence(tmp_path, name, content, fault):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BdpoError, match=fault) as caught:
        load_pairs(path)
    assert "\n" not in str(caught.value)


def test_what_unpacks_to_no_end_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    """One line or cell over and over, hundreds of times what it takes on disk; ordinary text, 20 times, is read."""
    monkeypatch.setattr(sources, "UNPACKED", 1 << 20)
    line = json.dumps({"prompt": "Why?", "chosen": "So.", "rejected": "x" * 20_000}).encode() + b"\n"
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line * 300))
    pq.write_table(pa.table({"prompt": ["x" * 10_000] * 1000}), tmp_path / "a.parquet")
    for name in ("a.jsonl.gz", "a.parquet"):
        with pytest.raises(BdpoError, match=rf"{name}: it unpacks to more than \d+ MiB, as no text does; have a look"):
            load_pairs(tmp_path / name)
    draw = random.Random(0)
    rows = [
        {"prompt": f"Why {n}?", "chosen": "So.", "rejected": draw.randbytes(40).hex() + "x" * 999} for n in range(9)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text))
    monkeypatch.setattr(sources, "UNPACKED", 1 << 10)
    assert len(text) > 1 << 10 and len(load_pairs(tmp_path / "b.jsonl.gz").pairs) == 9


def test_no_permission_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, ROWS)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root, as in CI, may read everything
    with pytest.raises(BdpoError, match="no permission to read it; change its mode"):
        load_pairs(path)


@pytest.mark.parametrize("name", ["./missing.jsonl", "org/missing.jsonl", "missing", "/no/such/place", "../up"])
def test_a_missing_path_is_not_asked_of_the_hub(name, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_args, **_more: pytest.fail("asked the hub"))
    with pytest.raises(BdpoError, match="no such file; give a path, a hub name"):
        load_pairs(name)


def test_split_and_config_where_they_mean_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, ROWS)
    with pytest.raises(BdpoError, match="a file has no splits; leave split 'train' out"):
        load_pairs(path, split="train")
    with pytest.raises(BdpoError, match="only a hub data set has a config"):
        load_pairs(path, config="small")


# --- data sets -------------------------------------------------------------------------------------------


def test_save_to_disk_folders(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert replies(load_pairs(tmp_path / "one")) == REPLIES
    assert replies(load_pairs(tmp_path / "two")) == REPLIES
    held_out = load_pairs(tmp_path / "two", split="test")
    assert (replies(held_out), held_out.source) == (REPLIES[1:], f"{tmp_path / 'two'} (test)")
    with pytest.raises(BdpoError, match="has the splits train, test and not 'validation'"):
        load_pairs(tmp_path / "two", split="validation")
    with pytest.raises(BdpoError, match="without splits"):
        load_pairs(tmp_path / "one", split="train")
    (tmp_path / "three").mkdir()
    with pytest.raises(BdpoError, match="three: not a folder that datasets' save_to_disk wrote"):
        load_pairs(tmp_path / "three")


def test_hub_names_go_to_datasets_with_split_and_config(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load_pairs("some-org/rivers.v2")
    load_pairs("some-org/rivers", split="test", config="small")
    assert replies(loaded) == REPLIES
    assert (loaded.source, loaded.pairs[0].source) == ("some-org/rivers.v2 (train)", "some-org/rivers.v2")
    assert asked == [("some-org/rivers.v2", None, "train"), ("some-org/rivers", "small", "test")]


def test_a_hub_failure_is_one_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_args, **_more):
        raise ConnectionError("cannot reach the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(BdpoError, match=r"org/name: no such file or folder here.*\(cannot reach the hub\)") as caught:
        load_pairs("org/name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", [None, "train", "validation"])
def test_starter_data(split):
    starter = Path(load_pairs.__code__.co_filename).parents[1] / "starter"
    if not (starter / f"{split or 'train'}.jsonl").is_file():
        pytest.skip("the starter data is not written yet")
    loaded = load_pairs("starter", split=split)
    assert (loaded.format, loaded.errors, loaded.counts) == ("canonical", [], {})
    assert loaded.source == f"starter ({split or 'train'})"
    assert len(loaded.pairs) == loaded.n_rows >= (80 if split == "validation" else 320)


def test_starter_has_two_splits():
    with pytest.raises(BdpoError, match="the splits train and validation, not 'test'"):
        load_pairs("starter", split="test")


# --- writing ---------------------------------------------------------------------------------------------


def test_written_pairs_read_back_the_same(tmp_path):
    pairs = [
        PreferencePair("1", tuple(MESSAGES), "Ache\u2028\U0001f30a", "", True, None, ("a", "b"), "rivers"),
        PreferencePair("2", "Plain text, then", ' "quoted"\n', "no", source="rivers"),
    ]
    path = tmp_path / "new" / "pairs.jsonl"
    write_pairs(path, pairs)
    assert load_pairs(path).pairs == pairs
    assert [entry.name for entry in path.parent.iterdir()] == ["pairs.jsonl"]
    assert list(json.loads(path.read_text(encoding="utf-8").split("\n")[0])) == [
        "id", "prompt", "chosen", "rejected", "chosen_safe", "rejected_safe", "category", "source", "prompt_kind",
    ]  # fmt: skip


def test_writing_nowhere_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BdpoError, match="cannot be written"):
        write_pairs(tmp_path / "file" / "pairs.jsonl", [])

    def broken():
        yield PreferencePair("1", "a", "b", "c")
        raise RuntimeError("the source dried up")

    with pytest.raises(RuntimeError):
        write_pairs(tmp_path / "pairs.jsonl", broken())
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
