"""Scoring: the numbers against slow references, and what is said."""

import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reference import PAIRS, SIDES, numbers, parts, slow

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair
from bdpo.score import ESTIMATORS, score, scoring
from bdpo.score.folder import open_scores
from bdpo.tokens import tokenize_pairs
from tiny import tiny_model

MEASURING = [name for name, how in ESTIMATORS.items() if how.measure]

# --- the numbers -----------------------------------------------------------------------------------------------


def test_pmi_equals_the_slow_reference(model, tokenizer, tmp_path):
    rows = score(model, tokenizer, PAIRS, tmp_path / "s").rows
    null = tokenize_pairs(tokenizer, PAIRS).null_ids
    assert len(rows) == 12
    for pair, row in zip(PAIRS, rows, strict=True):
        assert (row["id"], tuple(row["category"]), row["source"]) == (pair.id, pair.category, "tiny")
        assert (row["chosen_safe"], row["rejected_safe"]) == (True, pair.rejected_safe)
        for side in SIDES:
            ids = row[f"{side}_ids"]
            cond, marg = slow(model, row["prompt_ids"], ids)[0], slow(model, null, ids)[0]
            assert row[f"ref_{side}_logps"] == pytest.approx(cond, abs=1e-4)
            assert row[f"{side}_marginal_logps"] == pytest.approx(marg, abs=1e-4)
            assert row[f"{side}_mi"] == pytest.approx((cond - marg) / len(ids), abs=1e-5)
    assert numbers(open_scores(tmp_path / "s")).std(0).min() > 0.01  # not all alike


def test_entropy_equals_the_slow_reference(model, tokenizer, tmp_path):
    rows = score(model, tokenizer, PAIRS, tmp_path / "s", estimator="entropy").rows
    null = tokenize_pairs(tokenizer, PAIRS).null_ids
    for row in rows:
        for side in SIDES:
            ids = row[f"{side}_ids"]
            (cond, with_prompt), (marg, without) = slow(model, row["prompt_ids"], ids), slow(model, null, ids)
            assert row[f"ref_{side}_logps"] == pytest.approx(cond, abs=1e-4)
            assert row[f"{side}_marginal_logps"] == pytest.approx(marg, abs=1e-4)
            assert row[f"{side}_mi"] == pytest.approx((without - with_prompt) / len(ids), abs=1e-5)


def test_contrastive_equals_the_slow_reference_over_eight_prompts_of_other_pairs(model, tokenizer, tmp_path):
    pairs = [*PAIRS, *(replace(pair, id=f"again-{pair.id}") for pair in PAIRS)]  # every prompt twice
    data = score(model, tokenizer, pairs, tmp_path / "s", estimator="contrastive", seed=3)
    drawn = data.manifest["key"]["contrastive_prompts"]
    assert len(drawn) == 9 and all(drawn.count(prompt) == 1 for prompt in drawn)
    assert all(prompt in [row["prompt_ids"] for row in data.rows] for prompt in drawn)
    own_was_drawn = 0
    for row in list(data.rows)[::5]:
        others = [prompt for prompt in drawn if prompt != row["prompt_ids"]][:8]
        own_was_drawn += row["prompt_ids"] in drawn[:8]
        assert len(others) == 8
        for side in SIDES:
            ids = row[f"{side}_ids"]
            logps = torch.tensor([slow(model, prompt, ids)[0] for prompt in others], dtype=torch.float64)
            marg = math.log(torch.exp(logps - logps.max()).mean()) + logps.max().item()
            cond = slow(model, row["prompt_ids"], ids)[0]
            assert row[f"{side}_marginal_logps"] == pytest.approx(marg, abs=1e-4)
            assert row[f"{side}_mi"] == pytest.approx((cond - marg) / len(ids), abs=1e-5)
    assert own_was_drawn


def test_contrastive_prompts_are_seeded(model, tokenizer, tmp_path):
    def drawn(seed, out):
        data = score(model, tokenizer, PAIRS, tmp_path / out, estimator="contrastive", seed=seed)
        return data.manifest["key"]["contrastive_prompts"]

    first = drawn(0, "a")
    assert drawn(0, "b") == first != drawn(1, "c")
    assert parts(tmp_path / "a") == parts(tmp_path / "b") != parts(tmp_path / "c")


def test_contrastive_never_uses_the_own_text_where_truncation_cut_it_in_two_ways(model, tokenizer, tmp_path):
    """One prompt text with a long and with a short reply is cut to two lists of ids; it is its own all the same."""
    asked = [({"role": "user", "content": f"Tell me about number {i}"},) for i in range(9)]
    long = [PreferencePair(f"long-{i}", prompt, "I would ask. " * 9, "No") for i, prompt in enumerate(asked)]
    short = [PreferencePair(f"short-{i}", prompt, "Yes", "No") for i, prompt in enumerate(asked)]
    data = score(model, tokenizer, [*long, *short], tmp_path / "s", estimator="contrastive", max_length=60)
    drawn = data.manifest["key"]["contrastive_prompts"]
    assert len(drawn) == 9  # the texts, each once
    rows = list(data.rows)
    for cut, whole in zip(rows[:9], rows[9:], strict=True):
        assert (len(cut["prompt_ids"]), len(whole["prompt_ids"])) == (30, 37)
        others = [prompt for prompt in drawn if prompt[-30:] != cut["prompt_ids"]]
        assert len(others) == 8
        for row in (cut, whole):
            logps = torch.tensor([slow(model, prompt, row["chosen_ids"])[0] for prompt in others], dtype=torch.float64)
            expected = logps.logsumexp(0).item() - math.log(8)
            assert row["chosen_marginal_logps"] == pytest.approx(expected, abs=1e-4)


def test_too_few_prompts_for_contrastive_and_an_unknown_estimator_are_refused(model, tokenizer, tmp_path):
    with pytest.raises(BdpoError, match="needs 9 different prompts and the data has 8"):
        score(model, tokenizer, PAIRS[:8], tmp_path / "s", estimator="contrastive")
    with pytest.raises(BdpoError, match="Unknown estimator 'mutual': use one of pmi, entropy, contrastive, none"):
        score(model, tokenizer, PAIRS, tmp_path / "s", estimator="mutual")
    assert not (tmp_path / "s").exists()


def test_a_marginal_is_the_same_hung_with_others_or_alone(model, tokenizer, tmp_path):
    together = score(model, tokenizer, PAIRS, tmp_path / "all").rows
    for i in (0, 7):
        alone = score(model, tokenizer, [PAIRS[i]], tmp_path / str(i)).rows[0]
        for side in SIDES:
            name = f"{side}_marginal_logps"
            assert alone[name] == pytest.approx(together[i][name], abs=1e-4)


@pytest.mark.parametrize("estimator", MEASURING)
def test_the_numbers_do_not_depend_on_batches_or_layout(estimator, model, tokenizer, tmp_path, use):
    def run(name, **how):
        return numbers(score(model, tokenizer, PAIRS, tmp_path / name, estimator=estimator, **how))

    expected = run("default")
    assert torch.allclose(run("one tree a batch", batch_tokens=1), expected, atol=1e-4, rtol=0)
    use("padded")
    assert torch.allclose(run("padded"), expected, atol=1e-4, rtol=0)
    assert torch.allclose(run("padded, small", batch_tokens=300), expected, atol=1e-4, rtol=0)


def test_padded_batches_keep_to_the_budget(model, tokenizer, tmp_path, use):
    use("padded")
    sizes = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    score(model, tokenizer, PAIRS, tmp_path / "s", batch_tokens=500)
    handle.remove()
    assert max(sizes) <= 500  # padding included


def test_an_adapter_that_came_with_the_model_stays_on(model, tokenizer, tmp_path):
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(tiny_model(), config)
    row = score(adapted, tokenizer, PAIRS[:1], tmp_path / "s").rows[0]
    adapted.eval()
    assert row["ref_chosen_logps"] == pytest.approx(slow(adapted, row["prompt_ids"], row["chosen_ids"])[0], abs=1e-4)
    assert abs(row["ref_chosen_logps"] - slow(model, row["prompt_ids"], row["chosen_ids"])[0]) > 0.1


def test_scoring_leaves_dropout_off_and_the_mode_as_it_was(tokenizer, tmp_path):
    noisy = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    first = score(noisy, tokenizer, PAIRS[:2], tmp_path / "a")
    assert noisy.training
    assert torch.equal(numbers(first), numbers(score(noisy, tokenizer, PAIRS[:2], tmp_path / "b")))


def test_non_finite_log_probabilities_are_refused_and_name_the_pairs(tokenizer, tmp_path):
    broken = tiny_model()
    with torch.no_grad():
        broken.lm_head.weight[tokenizer("x")["input_ids"]] = float("nan")
    with pytest.raises(BdpoError, match=r"non-finite log-probabilities to pairs pair-0, .*float32"):
        score(broken, tokenizer, PAIRS, tmp_path / "s")
    assert parts(tmp_path / "s") == {}


# --- what is said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "shared", "padded"])
@pytest.mark.parametrize("estimator", MEASURING)
def test_the_progress_bar_ends_at_its_total(estimator, layout, model, tokenizer, tmp_path, monkeypatch, use):
    use(layout)
    bars = []
    bar = scoring.bar
    monkeypatch.setattr(scoring, "bar", lambda *how: bars.append(bar(*how)) or bars[0])
    score(model, tokenizer, PAIRS, tmp_path / "s", estimator=estimator)
    replies = sum(len(p.chosen_ids) + len(p.rejected_ids) for p in tokenize_pairs(tokenizer, PAIRS).pairs)
    passes = {"pmi": 2, "entropy": 2, "contrastive": 10}[estimator]
    assert (bars[0].n, bars[0].total) == (passes * replies, passes * replies)


def test_the_padded_layout_is_said_once_and_the_shared_one_never(model, tokenizer, tmp_path, capsys):
    score(model, tokenizer, PAIRS, tmp_path / "a")
    assert capsys.readouterr().out == ""
    score(tiny_model("mistral-windowed"), tokenizer, PAIRS, tmp_path / "b")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("Layout: padded, one reply a sequence, because the sliding window of 8 tokens")
