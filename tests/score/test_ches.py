"""CHES: against sums over all pairs of tokens in float64, what it leaves as it is, and how it goes with d."""

from dataclasses import replace

import pytest
import torch
from reference import PAIRS, SIDES, numbers
from scipy.stats import spearmanr

from bdpo.errors import BdpoError
from bdpo.method.ches import ches
from bdpo.score import score
from bdpo.score.folder import CHES, open_scores
from bdpo.score.summary import spearman, summarise_scores


@torch.no_grad()
def states(model, prefix, reply):
    """The states that predict the reply's tokens, of one plain forward (T, D)."""
    ids = torch.tensor([[*prefix, *reply]])
    return model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, len(prefix) - 1 : -1].double()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_it_is_the_sum_over_all_pairs_of_tokens(model, tokenizer, tmp_path, use, layout):
    use(layout)
    rows = score(model, tokenizer, PAIRS, tmp_path / "s", ches=True).rows
    for row in rows:
        chosen, rejected = (states(model, row["prompt_ids"], row[f"{side}_ids"]) for side in SIDES)
        between, within = chosen @ rejected.T, chosen @ chosen.T  # <h_k, h_k'> of every two tokens
        assert row["ches"] == pytest.approx((between.sum() - within.sum()).item(), rel=1e-5, abs=1e-2)
        assert row["ches_normalised"] == pytest.approx((between.mean() - within.mean()).item(), rel=1e-5, abs=1e-4)
    assert torch.tensor(rows["ches"]).std() > 1  # not all alike


def test_a_pair_of_like_responses_has_none(model, tokenizer, tmp_path):
    same = [replace(pair, rejected=pair.chosen) for pair in PAIRS[:2]]
    rows = score(model, tokenizer, same, tmp_path / "s", ches=True).rows
    for row in rows:
        size = states(model, row["prompt_ids"], row["chosen_ids"]).sum(0).square().sum().item()
        assert size > 100 and row["ches"] == pytest.approx(0, abs=1e-5 * size)


def test_all_else_is_what_it_was_and_the_key_says_that_it_is_there(model, tokenizer, tmp_path):
    plain, more = (score(model, tokenizer, PAIRS, tmp_path / str(ask), ches=ask) for ask in (False, True))
    assert torch.equal(numbers(plain), numbers(more))
    assert {value for name in CHES for value in plain.rows[name]} == {None}
    assert more.manifest["key"] == plain.manifest["key"] | {"ches": True}
    assert summarise_scores(plain.rows).ches == ()
    with pytest.raises(BdpoError, match=r"differs in CHES measured \(False there, True now\)"):
        score(model, tokenizer, PAIRS, tmp_path / "False", ches=True)


def test_the_summary_says_how_it_goes_with_the_imbalance(model, tokenizer, tmp_path):
    score(model, tokenizer, PAIRS, tmp_path / "s", ches=True)
    rows = open_scores(tmp_path / "s").rows
    d = [c - r for c, r in zip(rows["chosen_mi"], rows["rejected_mi"], strict=True)]
    found = summarise_scores(rows).ches
    assert [r.value for r in found] == pytest.approx([spearmanr(list(rows[name]), d).statistic for name in CHES])
    assert all(-1 < r.low < r.value < r.high < 1 for r in found)


def test_ranks_of_ties_are_those_of_scipy_and_few_or_equal_values_have_no_correlation():
    one, other = [1.0, 1.0, 2.0, 5.0, 3.0, 3.0], [2.0, 1.0, 1.0, 9.0, 4.0, 3.0]
    assert spearman(one, other).value == pytest.approx(spearmanr(one, other).statistic)
    assert spearman([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert spearman([1.0, None, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]) is None
    perfect = spearman([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((-1, -1, -1))


def test_shapes_that_differ_are_refused():
    with pytest.raises(BdpoError, match=r"two tensors \(N, D\), not \(2, 3\) and \(2, 4\)"):
        ches(torch.zeros(2, 3), torch.zeros(2, 4))
