"""Scoring: the numbers against slow references, and the folder: what it holds, what it refuses, what it makes again."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from peft import LoraConfig, get_peft_model

from bdpo.errors import BdpoError
from bdpo.forward import passes
from bdpo.pairs import PreferencePair
from bdpo.score import ESTIMATORS, folder, score, scoring
from bdpo.score.folder import COLUMNS, open_scores
from bdpo.tokens import tokenize_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer

PAIRS = make_pairs(12)
SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch, tmp_path):
    """Three parts for twelve pairs, and a cache of the test's own."""
    monkeypatch.setattr(scoring, "PART_SIZE", 4)
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@torch.no_grad()
def slow(model, prefix, reply):
    """Reference: log-probability and summed entropy of one reply after one prefix, in float64, one plain forward."""
    logits = model(input_ids=torch.tensor([[*prefix, *reply]])).logits[0, len(prefix) - 1 : -1].double()
    every = torch.log_softmax(logits, -1)
    return every.gather(1, torch.tensor(reply)[:, None]).sum().item(), -(every.exp() * every).sum().item()


def numbers(data):
    """(rows, 6) of the numeric columns."""
    names = [c for c in data.rows.column_names if c.endswith(("logps", "_mi"))]
    return torch.tensor([[row[name] for name in names] for row in data.rows], dtype=torch.float64)


def parts(out):
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "data").glob("*.parquet"))}


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
    with pytest.raises(BdpoError, match="Unknown estimator 'mutual': use one of pmi, entropy, contrastive"):
        score(model, tokenizer, PAIRS, tmp_path / "s", estimator="mutual")
    assert not (tmp_path / "s").exists()


def test_a_marginal_is_the_same_hung_with_others_or_alone(model, tokenizer, tmp_path):
    together = score(model, tokenizer, PAIRS, tmp_path / "all").rows
    for i in (0, 7):
        alone = score(model, tokenizer, [PAIRS[i]], tmp_path / str(i)).rows[0]
        for side in SIDES:
            name = f"{side}_marginal_logps"
            assert alone[name] == pytest.approx(together[i][name], abs=1e-4)


@pytest.fixture
def use(monkeypatch):
    """Choose a layout by name in place of the model's own."""
    return lambda layout: monkeypatch.setattr(scoring, "choose_layout", lambda *_: (layout, "the test says so"))


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
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


def test_scoring_again_computes_nothing(model, tokenizer, tmp_path, monkeypatch):
    first = numbers(score(model, tokenizer, PAIRS, tmp_path / "s"))
    monkeypatch.setattr(passes, "branch_logps", _fail)
    monkeypatch.setattr(scoring, "choose_layout", _fail)
    for how in ({}, {"batch_tokens": 64}, {"seed": 9}, {"max_length": 2048}):
        assert torch.equal(numbers(score(model, tokenizer, PAIRS, tmp_path / "s", **how)), first)


def test_a_template_that_renders_the_same_ids_computes_nothing_anew(model, tmp_path, monkeypatch):
    first = numbers(score(model, tiny_tokenizer(), PAIRS, tmp_path / "s"))
    monkeypatch.setattr(passes, "branch_logps", _fail)
    reworded = tiny_tokenizer(chat_template="{{ '' }}" + tiny_tokenizer().chat_template)
    assert torch.equal(numbers(score(model, reworded, PAIRS, tmp_path / "s")), first)


def test_held_out_pairs_are_contrasted_with_the_training_prompts(model, tokenizer, tmp_path, monkeypatch):
    training = score(model, tokenizer, PAIRS, tmp_path / "s", estimator="contrastive", seed=1).manifest
    monkeypatch.setattr(scoring, "weights_hash", _fail)
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
        ({"model": lambda: tiny_model(seed=1)}, {"weights"}),
        ({"model": lambda: tiny_model(dtype=torch.bfloat16)}, {"weights", "dtype"}),
        ({"pairs": PAIRS[:11]}, {"rows"}),
        ({"pairs": [replace(PAIRS[0], chosen_safe=False), *PAIRS[1:]]}, {"rows"}),
        ({"max_length": 70}, {"rows", "truncation"}),
        ({"estimator": "entropy"}, {"estimator"}),
        ({"estimator": "contrastive"}, {"estimator", "contrastive_prompts"}),
        ({"template": "Be kind."}, {"rows", "null_prompt"}),
    ],
    ids=["weights", "dtype", "pairs", "labels", "truncation", "estimator", "contrastive", "system"],
)
def test_scores_that_depend_on_something_else_are_refused_and_the_fields_named(change, fields, model, tmp_path):
    out = score(model, tiny_tokenizer(), PAIRS, tmp_path / "s").path
    before = parts(out)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = change.pop("template", "") + tokenizer.chat_template
    other = change.pop("model", lambda: model)()
    with pytest.raises(BdpoError) as refused:
        score(other, tokenizer, change.pop("pairs", PAIRS), out, **change)
    message = str(refused.value)
    named = message.split("differs in ")[1].split("Choose another")[0]
    assert {line.split(" (")[0] for line in named.split("; ")} == fields
    assert len(message) < 600 and parts(out) == before


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


# --- what is said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "shared", "padded"])
@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_the_progress_bar_ends_at_its_total(estimator, layout, model, tokenizer, tmp_path, monkeypatch, use):
    use(layout)
    bars = []
    tqdm = scoring.tqdm
    monkeypatch.setattr(scoring, "tqdm", lambda **how: bars.append(tqdm(**how)) or bars[0])
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


# --- several processes -----------------------------------------------------------------------------------------

SCRIPT = """
import sys
import torch
from torch.nn.parallel import DistributedDataParallel
from tiny import make_pairs, tiny_model, tiny_tokenizer
from bdpo.score import scoring
from bdpo.forward.layout import Tree, lay_out
from bdpo.forward.logprobs import branch_logps

torch.set_num_threads(1)
scoring.PART_SIZE = 4
model = tiny_model()
written = []
write = scoring.write_part
scoring.write_part = lambda path, rows: (written.append(path.name), write(path, rows))
data = scoring.score(model, tiny_tokenizer(), make_pairs(12), sys.argv[1])
wrapped = DistributedDataParallel(model)
batch = lay_out([Tree([5, 6, 7], [[8, 9], [10]])])
gap = (branch_logps(wrapped, batch).logps - branch_logps(model, batch).logps).abs().max()
print(f"wrote {len(written)} of {len(data.rows)} gap {gap:.0e}\\n", end="")
"""


def test_two_processes_write_the_same_bytes_as_one_and_share_the_parts(model, tokenizer, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    here = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launched = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), str(out)],
        env={**os.environ, **here},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stderr[-2000:]
    assert sorted(launched.stdout.split("\n")) == ["", "wrote 1 of 12 gap 0e+00", "wrote 2 of 12 gap 0e+00"]
    assert launched.stderr.count("scoring:   0%") == 1  # one bar
    one = score(model, tokenizer, PAIRS, tmp_path / "one")
    assert parts(out) == parts(one.path)
    assert open_scores(out).manifest == one.manifest
