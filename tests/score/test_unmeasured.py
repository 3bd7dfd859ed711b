"""Scores without comprehension: one pass, nulls, and what serves what."""

import pytest
import torch
from reference import PAIRS, SIDES, slow

from bdpo.errors import BdpoError
from bdpo.score import ESTIMATORS, NONE, score, scoring
from bdpo.score.folder import MEASURED, REFERENCE, open_scores, write_manifest
from bdpo.score.summary import summarise_scores
from bdpo.tokens import tokenize_pairs


def reply_tokens(tokenizer, pairs):
    return sum(len(p.chosen_ids) + len(p.rejected_ids) for p in tokenize_pairs(tokenizer, pairs).pairs)


def columns(data, names):
    return {name: list(data.rows[name]) for name in names}


def test_half_the_tokens_are_computed_and_the_reference_is_the_slow_one(model, tokenizer, tmp_path, counted):
    data = score(model, tokenizer, PAIRS, tmp_path / "none", estimator=NONE)
    assert sum(counted) == reply_tokens(tokenizer, PAIRS)
    counted.clear()
    measured = score(model, tokenizer, PAIRS, tmp_path / "pmi")
    assert sum(counted) == 2 * reply_tokens(tokenizer, PAIRS)
    assert columns(data, REFERENCE) == columns(measured, REFERENCE)
    assert {value for name in MEASURED for value in data.rows[name]} == {None}
    for row in data.rows:
        for side in SIDES:
            cond = slow(model, row["prompt_ids"], row[f"{side}_ids"])[0]
            assert row[f"ref_{side}_logps"] == pytest.approx(cond, abs=1e-4)
    assert not data.measured and measured.measured
    differing = {name for name, value in data.manifest["key"].items() if value != measured.manifest["key"][name]}
    assert differing == {"estimator", "null_prompt"} and data.manifest["key"]["estimator"] == "none"
    with pytest.raises(BdpoError, match="These scores are without comprehension"):
        summarise_scores(data.rows)


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != NONE])
@pytest.mark.parametrize("named", [False, True], ids=["cache", "named"])
def test_scores_of_any_estimator_serve_where_none_is_asked_for(model, tokenizer, tmp_path, counted, estimator, named):
    out = tmp_path / "s" if named else None
    there = score(model, tokenizer, PAIRS, out, estimator=estimator, seed=3)
    counted.clear()
    found = score(model, tokenizer, PAIRS, out, estimator=NONE)  # with another seed
    assert counted == [] and found.path == there.path and found.manifest == there.manifest


def test_of_several_the_first_estimator_of_the_table_serves(model, tokenizer):
    alone = score(model, tokenizer, PAIRS, estimator=NONE)
    entropy = score(model, tokenizer, PAIRS, estimator="entropy")
    assert score(model, tokenizer, PAIRS, estimator=NONE).path == entropy.path != alone.path
    pmi = score(model, tokenizer, PAIRS)
    assert score(model, tokenizer, PAIRS, estimator=NONE).path == pmi.path
    (pmi.path / "data" / "part-00001.parquet").unlink()  # what is not whole is passed by in the cache
    assert score(model, tokenizer, PAIRS, estimator=NONE).path == entropy.path
    assert score(model, tokenizer, PAIRS[:11], estimator=NONE).manifest["key"]["estimator"] == "none"


def test_an_estimator_of_a_later_version_is_passed_by(model, tokenizer, tmp_path):
    there = score(model, tokenizer, PAIRS)
    manifest = {name: value for name, value in there.manifest.items() if name != "checksum"}
    write_manifest(there.path, manifest | {"key": manifest["key"] | {"estimator": "mutual"}})
    assert score(model, tokenizer, PAIRS, estimator=NONE).manifest["key"]["estimator"] == "none"
    with pytest.raises(BdpoError, match=r"it differs in the estimator \(mutual there, none now\)"):
        score(model, tokenizer, PAIRS, there.path, estimator=NONE)


@pytest.mark.parametrize("estimator", ["pmi", "contrastive"])
def test_a_named_folder_that_was_begun_with_an_estimator_is_completed_with_it(
    model, tokenizer, tmp_path, counted, estimator
):
    whole = score(model, tokenizer, PAIRS, tmp_path / "s", estimator=estimator, seed=3)
    part = whole.path / "data" / "part-00001.parquet"
    before = part.read_bytes()
    part.unlink()
    counted.clear()
    again = score(model, tokenizer, PAIRS, tmp_path / "s", estimator=NONE)
    assert sum(counted) == ESTIMATORS[estimator].passes * reply_tokens(tokenizer, PAIRS[4:8])
    assert part.read_bytes() == before and again.manifest == whole.manifest


def test_a_folder_without_comprehension_becomes_one_with_it(model, tokenizer, tmp_path):
    fresh = score(model, tokenizer, PAIRS, tmp_path / "fresh")
    score(model, tokenizer, PAIRS, tmp_path / "s", estimator=NONE)
    data = score(model, tokenizer, PAIRS, tmp_path / "s")
    assert data.manifest == fresh.manifest and open_scores(tmp_path / "s").measured
    assert columns(data, REFERENCE) == columns(fresh, REFERENCE)
    for name in MEASURED:
        assert torch.allclose(torch.tensor(data.rows[name]), torch.tensor(fresh.rows[name]), atol=1e-5, rtol=0)


def test_similarities_are_measured_without_comprehension_too(model, tokenizer, tmp_path):
    both = [score(model, tokenizer, PAIRS, tmp_path / name, estimator=name, ches=True) for name in ("none", "pmi")]
    assert columns(both[0], ("ches", "ches_normalised")) == columns(both[1], ("ches", "ches_normalised"))


def test_the_progress_bar_ends_at_its_total(model, tokenizer, tmp_path, monkeypatch):
    bars = []
    bar = scoring.bar
    monkeypatch.setattr(scoring, "bar", lambda *how: bars.append(bar(*how)) or bars[0])
    score(model, tokenizer, PAIRS, tmp_path / "s", estimator=NONE)
    assert (bars[0].n, bars[0].total) == (reply_tokens(tokenizer, PAIRS),) * 2
