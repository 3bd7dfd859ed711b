"""Scores by pair: pairs that folders beside each other hold are not computed again, and nothing else is taken."""

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from reference import PAIRS, numbers, parts, slow

from bdpo.score import NONE, folder, known, score, scoring
from bdpo.score.folder import HASH, MEASURED, REFERENCE, open_scores
from bdpo.tokens import TokenizedPair, tokenize_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

MORE = make_pairs(20)  # whose first twelve are PAIRS


@pytest.fixture
def alone():
    """In place of the one that keeps folders apart."""


def reply_tokens(pairs):
    return sum(len(p.chosen_ids) + len(p.rejected_ids) for p in tokenize_pairs(tiny_tokenizer(), pairs).pairs)


def apart(tmp_path, name):
    return tmp_path / f"root-{name}" / "s"


@pytest.mark.parametrize("estimator", ["pmi", "entropy", NONE])
@pytest.mark.parametrize("named", [False, True], ids=["cache", "named"])
def test_only_what_is_new_is_computed(model, tokenizer, tmp_path, counted, capsys, estimator, named):
    first = score(model, tokenizer, PAIRS, tmp_path / "a" if named else None, estimator=estimator)
    counted.clear()
    more = score(model, tokenizer, MORE, tmp_path / "b" if named else None, estimator=estimator)
    assert sum(counted) == (1 if estimator == NONE else 2) * reply_tokens(MORE[12:])
    assert capsys.readouterr().out == f"12 of 20 pairs were scored before (in {first.path}).\n"
    counted.clear()
    fresh = score(model, tokenizer, MORE, apart(tmp_path, estimator), estimator=estimator)
    assert sum(counted) == (1 if estimator == NONE else 2) * reply_tokens(MORE)
    assert capsys.readouterr().out == ""
    assert torch.allclose(numbers(more), numbers(fresh), atol=1e-5, rtol=1e-6)
    assert more.manifest == fresh.manifest, "the key does not say which numbers were read"
    assert list(more.rows[HASH]) == list(fresh.rows[HASH]) and len(set(more.rows[HASH])) == 20


def test_another_order_split_and_labels_compute_nothing(model, tokenizer, tmp_path, counted):
    first = score(model, tokenizer, MORE, tmp_path / "all")
    counted.clear()
    mixed = [replace(pair, id=f"new-{pair.id}", chosen_safe=None) for pair in random.Random(0).sample(MORE, 20)]
    for name, some in (("train", mixed[:15]), ("eval", mixed[15:])):
        data = score(model, tokenizer, some, tmp_path / name)
        places = [MORE.index(next(p for p in MORE if f"new-{p.id}" == pair.id)) for pair in some]
        assert torch.equal(numbers(data), numbers(first)[places])
        assert list(data.rows["id"]) == [pair.id for pair in some] and set(data.rows["chosen_safe"]) == {None}
    assert counted == []


def test_pairs_are_gathered_from_several_folders(model, tokenizer, tmp_path, counted, capsys):
    for name, some in (("a", MORE[:4]), ("b", MORE[4:7]), ("c", MORE[7:9])):
        score(model, tokenizer, some, tmp_path / name)
    counted.clear()
    capsys.readouterr()
    score(model, tokenizer, MORE, tmp_path / "d")
    assert sum(counted) == 2 * reply_tokens(MORE[9:])
    assert capsys.readouterr().out == f"9 of 20 pairs were scored before (in {tmp_path}).\n"


@pytest.mark.parametrize(
    "other",
    [
        {"model": lambda: tiny_model(seed=1)}, {"model": lambda: tiny_model(dtype=torch.bfloat16)},
        {"pairs": [replace(pair, chosen=f"{pair.chosen} Yes.", rejected=f"{pair.rejected} No.") for pair in PAIRS]},
        {"template": "Be kind."}, {"damaged": True}, {"max_length": 30},
    ],
    ids=["weights", "dtype", "replies", "template", "damaged", "cut"],
)  # fmt: skip
def test_nothing_of_another_kind_is_taken(model, tokenizer, tmp_path, counted, other):
    there = tiny_tokenizer()
    there.chat_template = other.get("template", "") + there.chat_template
    length = {name: other[name] for name in ("max_length",) if name in other}
    out = score(other.get("model", lambda: model)(), there, other.get("pairs", PAIRS), tmp_path / "a", **length).path
    if "damaged" in other:
        part = out / "data" / "part-00002.parquet"
        part.write_bytes(part.read_bytes()[:-1] + b"x")
    counted.clear()
    data = score(model, tokenizer, PAIRS, tmp_path / "b")
    assert sum(counted) == 2 * reply_tokens(PAIRS)
    assert parts(data.path) == parts(score(model, tokenizer, PAIRS, apart(tmp_path, "b")).path)


@pytest.mark.parametrize(
    ("before", "now", "passes"),
    [
        (NONE, "pmi", 1), ("contrastive", "pmi", 1), ("entropy", "pmi", 1), (NONE, "entropy", 2), ("pmi", "entropy", 2),
        ("pmi", "contrastive", 9), ("contrastive", "contrastive", 9),
    ],
)  # fmt: skip
def test_the_reference_serves_every_estimator(model, tokenizer, tmp_path, counted, capsys, before, now, passes):
    """Two estimators share the pass on the pairs' own prompts; entropy needs more of it than is kept."""
    score(model, tokenizer, PAIRS, tmp_path / "a", estimator=before)
    counted.clear()
    capsys.readouterr()
    data = score(model, tokenizer, PAIRS, tmp_path / "b", estimator=now, seed=1)
    assert sum(counted) == passes * reply_tokens(PAIRS)
    said = f"12 of 12 pairs were scored before (in {tmp_path / 'a'}), 12 of them without comprehension.\n"
    assert capsys.readouterr().out == ("" if now == "entropy" else said)
    fresh = score(model, tokenizer, PAIRS, apart(tmp_path, "b"), estimator=now, seed=1)
    assert torch.allclose(numbers(data), numbers(fresh), atol=1e-5, rtol=1e-6)


def test_a_folder_without_comprehension_is_measured_in_place_and_survives_a_stop(
    model, tokenizer, tmp_path, counted, monkeypatch
):
    fresh = score(model, tokenizer, PAIRS, apart(tmp_path, "fresh"))
    score(model, tokenizer, PAIRS, tmp_path / "s", estimator=NONE)
    counted.clear()
    write = folder.write_part

    def write_or_die(path, rows):
        if "00001" in path.name:
            raise KeyboardInterrupt
        write(path, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scoring, "write_part", write_or_die)
        score(model, tokenizer, PAIRS, tmp_path / "s")
    counted.clear()
    data = score(model, tokenizer, PAIRS, tmp_path / "s")
    assert sum(counted) == reply_tokens(PAIRS[4:]), "the first part is there, of the others the reference"
    assert data.manifest == fresh.manifest and parts(data.path) == parts(fresh.path)


def test_similarities_are_taken_where_they_are_asked_for(model, tokenizer, tmp_path, counted):
    score(model, tokenizer, PAIRS[:4], tmp_path / "a", ches=True)
    score(model, tokenizer, PAIRS[4:6], tmp_path / "b")
    counted.clear()
    data = score(model, tokenizer, PAIRS, tmp_path / "c", ches=True)
    assert sum(counted) == reply_tokens(PAIRS[4:]) + reply_tokens(PAIRS[6:]), "b knows all but CHES"
    fresh = score(model, tokenizer, PAIRS, apart(tmp_path, "c"), ches=True)
    assert list(data.rows["ches"]) == pytest.approx(list(fresh.rows["ches"]), rel=1e-5, abs=1e-3)
    assert torch.allclose(numbers(data), numbers(fresh), atol=1e-5, rtol=1e-6)


def test_contrastive_leaves_the_own_prompt_out_of_what_is_measured_anew(model, tokenizer, tmp_path):
    score(model, tokenizer, PAIRS[::2], tmp_path / "a")
    data = score(model, tokenizer, PAIRS, tmp_path / "b", estimator="contrastive")
    drawn = data.manifest["key"]["contrastive_prompts"]
    for row in data.rows:
        others = [prompt for prompt in drawn if prompt != row["prompt_ids"]][:8]
        logps = torch.tensor([slow(model, prompt, row["chosen_ids"])[0] for prompt in others], dtype=torch.float64)
        expected = logps.logsumexp(0).item() - np.log(8)
        assert row["chosen_marginal_logps"] == pytest.approx(expected, abs=1e-4)


def test_a_folder_that_is_being_made_or_of_something_else_is_passed_by(model, tokenizer, tmp_path, counted):
    begun = score(model, tokenizer, PAIRS, tmp_path / "a").path
    (begun / "data" / "part-00002.parquet").unlink()
    for name, text in (("b", "{}"), ("c", '{"key": 3}'), ("d", "[" * 10000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    counted.clear()
    score(model, tokenizer, PAIRS, tmp_path / "e")
    assert sum(counted) == 2 * reply_tokens(PAIRS)


def test_the_hash_parts_prompt_and_replies():
    hashes = {
        known.ids_hash(TokenizedPair(*ids)) for ids in (([1, 2], [3], [4]), ([1], [2, 3], [4]), ([1], [2], [3, 4]))
    }
    assert len(hashes) == 3 and {len(found) for found in hashes} == {32}
    assert known.ids_hash(TokenizedPair([1, 2], [3], [4])) in hashes


def test_of_many_pairs_every_second_is_found_by_its_hash_alone(tmp_path, monkeypatch):
    n = 200_000
    hashes = [f"{i:032x}" for i in range(n)]
    columns = {name: pa.array(np.arange(n, dtype=np.float64)[::-2] + place) for place, name in enumerate(REFERENCE)}
    columns |= {name: pa.nulls(n // 2, pa.float64()) for name in MEASURED}
    table = pa.table({HASH: hashes[::-2], **columns})
    key = {"estimator": "pmi", "null_prompt": [1]}
    monkeypatch.setattr(known, "_tables", lambda out, manifest: iter([(tmp_path, key, table)]))
    values, folders = known.known_values(tmp_path / "s", {"key": key}, hashes, (*REFERENCE, *MEASURED))
    assert folders == [tmp_path] and np.isnan(values[:, 2:]).all() and np.isnan(values[::2]).all()
    assert (values[1::2, 0] == np.arange(1, n, 2)).all() and (values[1::2, 1] == np.arange(2, n + 1, 2)).all()


def test_scores_of_before_the_hash_was_kept_are_passed_by(model, tokenizer, tmp_path, counted, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "ids_hash", lambda pair: None)
        score(model, tokenizer, PAIRS, tmp_path / "a")
    assert set(open_scores(tmp_path / "a").rows[HASH]) == {None}
    counted.clear()
    score(model, tokenizer, PAIRS, tmp_path / "b")
    assert sum(counted) == 2 * reply_tokens(PAIRS)
