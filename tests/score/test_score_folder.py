"""The scored folder: what it holds, what it refuses, what is made again."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from reference import PAIRS, numbers, parts, slow

from bdpo.errors import BdpoError
from bdpo.files import file_hash
from bdpo.forward import passes
from bdpo.score import folder, score, scoring, sources
from bdpo.score.folder import COLUMNS, open_scores
from bdpo.score.summary import summarise_scores
from bdpo.tokens import tokenize_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

# --- the folder ------------------------------------------------------------------------------------------------


def test_the_folder_opens_with_datasets_and_with_pyarrow(model, tokenizer, tmp_path):
    out = tmp_path / "s"
    rows = score(model, tokenizer, PAIRS, out).rows
    assert list(parts(out)) == [f"part-0000{i}.parquet" for i in range(3)]
    table = pq.read_table(out / "data")
    assert table.schema.equals(COLUMNS) and table["id"].to_pylist() == [pair.id for pair in PAIRS]
    cache = str(tmp_path / "elsewhere")
    for loaded in (
        datasets.load_dataset(str(out), split="train", cache_dir=cache),
        datasets.load_dataset("parquet", data_dir=str(out / "data"), split="train", cache_dir=cache),
    ):
        assert loaded.column_names == COLUMNS.names and loaded[7] == rows[7]


def test_a_folder_of_before_a_column_was_kept_opens_with_nulls(model, tokenizer, tmp_path):
    out, plain = tmp_path / "s", [replace(pair, prompt_kind="") for pair in PAIRS]
    key = score(model, tokenizer, plain, out).manifest["key"]
    for part in (out / "data").glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns("prompt_kind"), part)
        folder._checksum_path(part).write_text(folder._checksum(part, file_hash(part), key))
    old = open_scores(out)
    assert set(old.rows["prompt_kind"]) == {None} and list(old.rows["id"]) == [pair.id for pair in PAIRS]
    assert score(model, tokenizer, PAIRS, tmp_path / "said").manifest["key"]["rows"] != key["rows"]


def test_rows_are_memory_mapped_and_the_manifest_says_what_they_depend_on(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "name_or_path", "tiny")
    data = score(model, tokenizer, PAIRS, tmp_path / "s", max_length=80)
    assert [Path(file["filename"]).parent.name for file in data.rows.cache_files] == [".arrow"]
    assert type(data.rows.data).__name__ == "MemoryMappedTable"
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest == data.manifest
    assert set(manifest["key"]) == {
        *("weights", "rows", "truncation", "estimator", "null_prompt"),
        *("contrastive_prompts", "dtype"),
    }
    assert manifest["key"]["truncation"] == 80 and manifest["key"]["dtype"] == "float32"
    assert (manifest["model"], manifest["pairs"], manifest["parts"], manifest["max_length"]) == ("tiny", 12, 3, 80)
    assert manifest["truncation"] == tokenize_pairs(tokenizer, PAIRS, max_length=80).counts
    assert set(manifest["tokenizer"]) == {"tokenizer", "chat_template"} and manifest["other_prompts"] == {}
    assert set(manifest["versions"]) == {"bdpo", "torch", "transformers"}


def test_a_folder_that_cannot_be_written_to_is_read_through_the_cache(model, tokenizer, tmp_path, monkeypatch):
    out = tmp_path / "s"
    written = score(model, tokenizer, PAIRS, out).rows[3]
    monkeypatch.setattr(folder.os, "access", lambda path, mode: False)
    data = open_scores(out)
    assert data.rows[3] == written
    assert Path(data.rows.cache_files[0]["filename"]).is_relative_to(tmp_path / "cache")


def test_the_summary_has_the_tilt_of_the_balance_that_training_will_have(model, tokenizer, tmp_path):
    rows = score(model, tokenizer, make_pairs(12), tmp_path / "scores").rows
    d = [row["chosen_mi"] - row["rejected_mi"] for row in rows]
    mean = sum(d) / 12
    tau = math.sqrt(sum((x - mean) ** 2 for x in d) / 12)
    by_hand = sum(2 / (1 + math.exp(x / tau)) for x in d) / 12
    assert summarise_scores(rows).tilt == pytest.approx((by_hand, 2 - by_hand), abs=1e-9)
    centred = sum(2 / (1 + math.exp((x - mean) / tau)) for x in d) / 12
    assert summarise_scores(rows, center="mean").tilt == pytest.approx((centred, 2 - centred), abs=1e-9)
    assert summarise_scores(rows, enabled=False).tilt == (1.0, 1.0)


def test_scoring_again_computes_nothing(model, tokenizer, tmp_path, monkeypatch):
    first = numbers(score(model, tokenizer, PAIRS, tmp_path / "s"))
    monkeypatch.setattr(passes, "branch_logps", _fail)
    monkeypatch.setattr(sources, "choose_layout", _fail)
    for how in ({}, {"batch_tokens": 64}, {"seed": 9}, {"max_length": 2048}):
        assert torch.equal(numbers(score(model, tokenizer, PAIRS, tmp_path / "s", **how)), first)


def test_a_template_that_renders_the_same_ids_computes_nothing_anew(model, tmp_path, monkeypatch):
    first = numbers(score(model, tiny_tokenizer(), PAIRS, tmp_path / "s"))
    monkeypatch.setattr(passes, "branch_logps", _fail)
    reworded = tiny_tokenizer(chat_template="{{ '' }}" + tiny_tokenizer().chat_template)
    assert torch.equal(numbers(score(model, reworded, PAIRS, tmp_path / "s")), first)


def test_held_out_pairs_are_contrasted_with_the_training_prompts(model, tokenizer, tmp_path, monkeypatch):
    training = score(model, tokenizer, PAIRS, tmp_path / "s", estimator="contrastive", seed=1).manifest
    monkeypatch.setattr(sources, "weights_hash", _fail)
    few = [PAIRS[0], *make_pairs(2, seed=5)]  # fewer than K + 1, and one of the training prompts
    data = score(model, tokenizer, few, tmp_path / "h", estimator="contrastive", training=training)
    for name in ("weights", "contrastive_prompts"):
        assert data.manifest["key"][name] == training["key"][name]
    drawn = training["key"]["contrastive_prompts"]
    for row in data.rows:
        others = [prompt for prompt in drawn if prompt != row["prompt_ids"]][:8]
        logps = torch.tensor([slow(model, prompt, row["chosen_ids"])[0] for prompt in others], dtype=torch.float64)
        assert row["chosen_marginal_logps"] == pytest.approx(logps.logsumexp(0).item() - math.log(8), abs=1e-4)


def _fail(*args, **kwargs):
    raise AssertionError("computed again")


def test_without_out_the_folder_lies_in_the_cache_by_what_it_depends_on(model, tokenizer, tmp_path, monkeypatch):
    first = score(model, tokenizer, PAIRS)
    assert first.path.parent == tmp_path / "cache" / "scores"
    other = score(model, tokenizer, PAIRS[:5])
    assert other.path != first.path
    monkeypatch.setattr(passes, "branch_logps", _fail)
    assert score(model, tokenizer, PAIRS).path == first.path


def test_a_killed_run_goes_on_with_what_is_missing(model, tokenizer, tmp_path, monkeypatch):
    expected = parts(score(model, tokenizer, PAIRS, tmp_path / "whole").path)
    made = []
    write = folder.write_part

    def write_or_die(path, rows):
        if len(made) == 1:
            path.write_bytes(b"half")  # what a kill in the middle of writing may leave
            raise KeyboardInterrupt
        made.append(path.name)
        write(path, rows)

    monkeypatch.setattr(scoring, "write_part", write_or_die)
    out = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        score(model, tokenizer, PAIRS, out)
    assert made == ["part-00000.parquet"]
    with pytest.raises(BdpoError, match="2 of 3 parts are missing or damaged"):
        open_scores(out)
    made[:] = []
    monkeypatch.setattr(scoring, "write_part", lambda path, rows: (made.append(path.name), write(path, rows)))
    score(model, tokenizer, PAIRS, out)
    assert made == ["part-00001.parquet", "part-00002.parquet"]
    assert parts(out) == expected


def test_a_run_killed_while_it_writes_the_manifest_starts_anew(model, tokenizer, tmp_path, monkeypatch):
    def die(path, data):
        path.open("wb").write(data[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", die)
        score(model, tokenizer, PAIRS[:2], tmp_path / "s")
    assert len(score(model, tokenizer, PAIRS[:2], tmp_path / "s").rows) == 2


def test_a_damaged_part_is_found_and_it_alone_is_made_again(model, tokenizer, tmp_path, monkeypatch):
    out = score(model, tokenizer, PAIRS, tmp_path / "s").path
    expected = parts(out)
    part = out / "data" / "part-00001.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(data)
    with pytest.raises(BdpoError, match=r"1 of 3 parts .*damaged \(first: part-00001.parquet\).*makes just these anew"):
        open_scores(out)
    made = []
    write = folder.write_part
    monkeypatch.setattr(scoring, "write_part", lambda path, rows: (made.append(path.name), write(path, rows)))
    again = score(model, tokenizer, PAIRS, out)
    assert made == ["part-00001.parquet"]
    assert parts(out) == expected
    assert numbers(again).isfinite().all() and again.rows["id"][:] == [pair.id for pair in PAIRS]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"model": lambda: tiny_model(seed=1)}, {"the model's weights"}),
        ({"model": lambda: tiny_model(dtype=torch.bfloat16)}, {"the model's weights", "the weights' dtype"}),
        ({"pairs": PAIRS[:11]}, {"the number of pairs"}),
        ({"pairs": [replace(PAIRS[0], chosen_safe=False), *PAIRS[1:]]}, {"texts or labels of the pairs"}),
        ({"max_length": 70}, {"the truncation to data.max_length"}),
        ({"estimator": "entropy"}, {"the estimator"}),
        ({"estimator": "contrastive"}, {"the estimator"}),
        ({"template": "Be kind."}, {"the chat template"}),
    ],
    ids=["weights", "dtype", "pairs", "labels", "truncation", "estimator", "contrastive", "system"],
)
def test_scores_that_depend_on_something_else_are_refused_and_the_parts_named(change, fields, model, tmp_path):
    out = score(model, tiny_tokenizer(), PAIRS, tmp_path / "s").path
    before = parts(out)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = change.pop("template", "") + tokenizer.chat_template
    other = change.pop("model", lambda: model)()
    with pytest.raises(BdpoError) as refused:
        score(other, tokenizer, change.pop("pairs", PAIRS), out, **change)
    message = str(refused.value)
    named = message.split("differs in ")[1].split(": choose another --out, or remove the folder.")[0]
    assert {line.split(" (")[0] for line in named.split("; ")} == fields
    assert not re.search("[0-9a-f]{9,}", named) and "[" not in named, "no hash in full, and no token ids"
    assert len(message) < len(str(out)) + 270 and parts(out) == before


def test_an_occupied_or_unwritable_out_is_refused_in_one_sentence(model, tokenizer, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("full", "file"):
        with pytest.raises(BdpoError, match="is not an empty folder and holds no scores"):
            score(model, tokenizer, PAIRS, tmp_path / name)
    with pytest.raises(BdpoError, match=r"Cannot write in .*file/s \(Not a directory\)"):
        score(model, tokenizer, PAIRS, tmp_path / "file" / "s")
    (tmp_path / "full" / "manifest.json").write_text("{")
    with pytest.raises(BdpoError, match=r"manifest.json is not JSON"):
        open_scores(tmp_path / "full")
    with pytest.raises(BdpoError, match="is not a scored folder"):
        open_scores(tmp_path / "nowhere")


def test_a_full_disk_is_one_sentence_and_what_was_written_is_kept(model, tokenizer, tmp_path, monkeypatch):
    out = tmp_path / "s"
    write_bytes = Path.write_bytes

    def until_full(path, data):
        if "part-00001" in path.name:
            write_bytes(path, data[:100])
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(BdpoError, match=r"Cannot write .*part-00001.parquet \(No space left on device\)"):
        score(model, tokenizer, PAIRS, out)
    assert sorted(path.name for path in (out / "data").iterdir()) == [".part-00000.sha256", "part-00000.parquet"]
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert len(score(model, tokenizer, PAIRS, out).rows) == 12
