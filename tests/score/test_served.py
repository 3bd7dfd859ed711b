"""Scores that a server gives: equal to those of the model here, resumed, used for training, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import PAIRS, SIDES, numbers, parts

from bdpo.errors import BdpoError
from bdpo.models import weights_hash
from bdpo.models.loading import Unloaded
from bdpo.score import estimators, score, scoring
from bdpo.score.folder import open_scores
from bdpo.score.served import ServedModel
from bdpo.tokens import tokenize_pairs
from stub_server import Served, cards, serving
from tiny import tiny_model


@pytest.fixture
def server(model, monkeypatch):
    """A server of the tiny model, under the name tiny; without pauses before what is asked again."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("bdpo.endpoint._wait", lambda seconds: None)
    with serving(Served(model), models=cards("tiny")) as stub:
        yield stub


def named(model):
    """The model without its weights."""
    return Unloaded(model.config, "somewhere/tiny")


@pytest.mark.parametrize("estimator", ["pmi", "contrastive"])
def test_a_server_gives_the_folder_of_the_model_here(estimator, model, tokenizer, server, tmp_path, monkeypatch):
    for module in (estimators, scoring):
        monkeypatch.setattr(module, "CONTRASTIVE_PROMPTS", 2)
    how = {"estimator": estimator, "seed": 2}
    here = score(model, tokenizer, PAIRS, tmp_path / "here", **how)
    there = score(named(model), tokenizer, PAIRS, tmp_path / "there", endpoint=server.url, **how)
    assert (numbers(there) - numbers(here)).div(numbers(here).abs().clamp(min=1)).abs().max() < 1e-6
    for side in SIDES:
        assert there.rows[f"{side}_mi"] == pytest.approx(here.rows[f"{side}_mi"], abs=1e-5)  # nats/token
    assert numbers(here).std(0).min() > 0.01  # not all alike
    for column in ("id", "prompt_ids", "chosen_ids", "rejected_ids", "category"):
        assert there.rows[column] == here.rows[column]
    rest = [{k: v for k, v in data.manifest["key"].items() if k not in ("weights", "dtype")} for data in (here, there)]
    assert rest[0] == rest[1]
    assert there.manifest["key"]["weights"] == "served as tiny (/m/tiny)"
    assert there.manifest["key"]["dtype"] == "as served" and there.manifest["model"] == "somewhere/tiny"
    assert there.manifest["endpoint"] == {"url": server.url, "model": "tiny", "root": "/m/tiny"}


def test_what_is_asked_is_ids_each_response_after_its_prompt_and_after_the_null_prompt(
    model, tokenizer, server, tmp_path
):
    score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url)
    tokenized = tokenize_pairs(tokenizer, PAIRS)
    expected = [
        [*prefix, *reply]
        for pair in tokenized.pairs
        for reply in (pair.chosen_ids, pair.rejected_ids)
        for prefix in (pair.prompt_ids, tokenized.null_ids)
    ]
    bodies = [body for _, _, body in server.seen]
    assert sorted(body.pop("prompt") for body in bodies) == sorted(expected)
    one = {"model": "tiny", "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    assert all(body == one for body in bodies) and {path for path, *_ in server.seen} == {"/v1/completions"}


def test_a_stopped_run_goes_on_with_what_is_missing_and_asks_for_nothing_twice(
    model, tokenizer, server, tmp_path, monkeypatch
):
    write, made = scoring.write_part, []

    def write_or_die(path, rows):
        if made:
            raise KeyboardInterrupt
        made.append(path.name)
        write(path, rows)

    monkeypatch.setattr(scoring, "write_part", write_or_die)
    with pytest.raises(KeyboardInterrupt):
        score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url)
    with pytest.raises(BdpoError, match=r"was scored by http.* and is not whole: score it with --endpoint again"):
        score(model, tokenizer, PAIRS, tmp_path / "s")
    monkeypatch.setattr(scoring, "write_part", write)
    server.seen.clear()
    with serving(Served(model), models=cards("tiny")) as moved:  # the same model on another port
        data = score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=moved.url)
        assert len(moved.seen) == 8 * 4 and not server.seen  # two parts of four pairs: two replies, two prompts
    whole = score(named(model), tokenizer, PAIRS, tmp_path / "w", endpoint=server.url)
    assert parts(data.path) == parts(whole.path)


def test_a_folder_that_a_server_made_trains_without_it_and_held_out_pairs_are_scored_here(
    model, tokenizer, server, make, tmp_path
):
    folder = score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url).path
    server.seen.clear()
    taken = score(model, tokenizer, PAIRS, folder)
    assert taken.manifest == open_scores(folder).manifest and not server.seen
    held = score(model, tokenizer, PAIRS[:5], training=taken.manifest)
    assert held.manifest["key"]["weights"] == weights_hash(model) and "endpoint" not in held.manifest
    trainer = make(str(folder), eval=held, max_steps=1)
    trainer.train()
    assert abs(trainer.state.log_history[0]["logratios/chosen"]) < 1e-4  # before the first step policy = reference
    with pytest.raises(BdpoError, match=r"differs in the number of pairs \(12 there, 5 now\)"):
        score(model, tokenizer, PAIRS[:5], folder)


def test_training_refuses_a_folder_that_a_server_made_of_another_model(model, tokenizer, make, tmp_path):
    with serving(Served(tiny_model(seed=1)), models=cards("tiny")) as other:
        folder = score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=other.url).path
    with pytest.raises(BdpoError, match=r"Before any step the log-ratio of pair .* belong to another model"):
        make(str(folder), max_steps=1).train()


def test_the_first_pairs_are_compared_with_the_weights_where_they_are_here(model, tokenizer, server, tmp_path, capsys):
    score(model, tokenizer, PAIRS, tmp_path / "s", endpoint=server.url)
    said = capsys.readouterr().out
    assert said.startswith("The server's log-probabilities are those of the weights here within ")
    assert float(said.split()[-2]) < 1e-5
    assert len(server.seen) == 12 * 4 + 4 * 2  # all, and four pairs before
    with serving(Served(tiny_model(seed=1)), models=cards("tiny")) as other:
        with pytest.raises(BdpoError, match=r"serves another model, adapter or precision: .* and 0.05 is allowed"):
            score(model, tokenizer, PAIRS, tmp_path / "o", endpoint=other.url)
        assert len(other.seen) == 4 * 2 and parts(tmp_path / "o") == {}
    score(named(model), tokenizer, PAIRS[:1], tmp_path / "n", endpoint=server.url)
    assert capsys.readouterr().out == "The weights are not here to compare: training will compare its first batch.\n"


def test_another_model_of_the_server_is_another_key(model, tokenizer, server, tmp_path):
    score(named(model), tokenizer, PAIRS[:2], tmp_path / "s", endpoint=server.url)
    server.models = cards("tiny-awq", "tiny")
    with pytest.raises(BdpoError, match=r"serves several models \(tiny-awq, tiny\): name one with --endpoint-model"):
        ServedModel(server.url)
    with pytest.raises(BdpoError, match=r"Unknown model of http.* 'tyni': use one of tiny-awq, tiny"):
        ServedModel(server.url, "tyni")
    with pytest.raises(
        BdpoError, match=r"differs in the model's weights \(served as tiny.* there, served as tiny.* now\)"
    ):
        score(named(model), tokenizer, PAIRS[:2], tmp_path / "s", endpoint=server.url, endpoint_model="tiny-awq")


# --- what a server may do wrong --------------------------------------------------------------------------------


def changed(model, change):
    """A server whose list of log-probabilities was changed."""

    def answer(body):
        status, content = Served(model)(body)
        choice = content["choices"][0]
        choice["prompt_logprobs"] = change(choice["prompt_logprobs"])
        return status, content

    return answer


def with_entry(entry):
    """The last entry of a list replaced; a function is given it."""
    return lambda given: [*given[:-1], entry(given[-1]) if callable(entry) else entry]


def logprob(value):
    """The last token's log-probability replaced."""
    return with_entry(lambda entry: {token: {"logprob": value} for token in entry})


FAULTS = {
    "none": (lambda given: None, r"gives no log-probabilities of the tokens .*prompt_logprobs.*: take vLLM's server"),
    "truncated": (lambda given: given[:1] + given[3:], r"of \d+ tokens where \d+ were sent: it cuts what it is sent"),
    "other ids": (
        with_entry({"7": {"logprob": -1.0}}),
        r"gives no log-probability of token 201 at place \d+, where it",
    ),
    "no entry": (with_entry(None), r"gives no log-probability of token 201 at place"),
    "text": (logprob("-1"), r"gives no log-probability of token 201 at place"),
    "nan": (logprob(math.nan), r"non-finite log-probabilities to pairs pair-0, pair-1"),
    "null": (logprob(None), r"non-finite log-probabilities to pairs pair-0, pair-1"),
    "log 0": (logprob(-9999.0), r"non-finite log-probabilities to pairs pair-0, pair-1"),
    "above 1": (logprob(0.5), r"non-finite log-probabilities to pairs pair-0, pair-1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_log_probabilities_that_are_none_of_what_was_sent_are_refused(name, model, tokenizer, server, tmp_path):
    change, says = FAULTS[name]
    server.script = [changed(model, change)]
    pairs = [replace(pair, rejected=f"{pair.rejected}.") for pair in PAIRS[:2]]
    with pytest.raises(BdpoError, match=says) as refused:
        score(named(model), tokenizer, pairs, tmp_path / "s", endpoint=server.url)
    assert "\n" not in str(refused.value) and parts(tmp_path / "s") == {}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((400, {"error": {"message": "too long"}}), r"refuses the request \(HTTP 400: too long\): lower data.max_len"),
        ((200, {"error": {"message": "no", "code": 404}}), r"\(HTTP 404: no\): check the URL and that the server know"),
        ((200, b"<html>"), r"something other than a completion \(<html>\): check that the URL ends"),
        ((200, {"choices": [None]}), "something other than a completion"),
        ((503, b""), r"still fails after 9 tries \(HTTP 503\)"),
    ],
)
def test_other_failures_are_one_sentence(answer, says, model, tokenizer, server, tmp_path):
    server.script = [answer]
    with pytest.raises(BdpoError, match=says):
        score(named(model), tokenizer, PAIRS[:1], tmp_path / "s", endpoint=server.url)


def test_a_failure_that_passes_is_asked_again(model, tokenizer, server, tmp_path):
    server.script = [(503, b"busy"), None, Served(model)]
    rows = score(named(model), tokenizer, PAIRS[:1], tmp_path / "s", endpoint=server.url).rows
    assert len(server.seen) == 4 + 2 and rows["chosen_mi"][0] == pytest.approx(
        score(model, tokenizer, PAIRS[:1], tmp_path / "h").rows["chosen_mi"][0], abs=1e-5
    )


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ((404, b"no"), r"refuses the request \(HTTP 404: no\)"),
        ((200, b"<html>"), r"something other than a list of its models"),
        ((200, {"data": [{"name": "x"}]}), r"something other than a list of its models"),
        ((200, {"data": []}), r"serves no model: start it with one"),
    ],
)
def test_a_server_that_does_not_say_what_it_serves_is_refused(models, says, server):
    server.models = models
    with pytest.raises(BdpoError, match=says):
        ServedModel(server.url)


def test_pairs_longer_than_the_server_takes_are_named_before_any_is_asked(model, tokenizer, server, tmp_path):
    tokenized = tokenize_pairs(tokenizer, PAIRS)
    lengths = [len(p.prompt_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) for p in tokenized.pairs]
    longest = lengths.index(max(lengths))
    server.models = cards("tiny", most=max(lengths))  # one short: the server makes a token of its own
    with pytest.raises(
        BdpoError, match=rf"Pair {PAIRS[longest].id}: .* {max(lengths)} tokens, and one that the server"
    ):
        score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url)
    assert not server.seen
    server.models = cards("tiny", most=max(lengths) + 1)
    assert len(score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url).rows) == 12


@pytest.mark.parametrize(("more", "says"), [({"estimator": "entropy"}, "all probabilities"), ({"ches": True}, "CHES")])
def test_what_a_server_does_not_give_is_refused(more, says, model, tokenizer, server, tmp_path):
    with pytest.raises(BdpoError, match=rf"{says}.*, which a server does not give"):
        score(named(model), tokenizer, PAIRS, tmp_path / "s", endpoint=server.url, **more)


def test_nothing_of_torch_is_left_in_training_mode(model, tokenizer, server, tmp_path):
    noisy = tiny_model("gpt2", resid_pdrop=0.5).train()
    with serving(Served(tiny_model("gpt2")), models=cards("g")) as stub:
        score(noisy, tokenizer, PAIRS[:2], tmp_path / "s", endpoint=stub.url)
    assert noisy.training and Path(tmp_path / "s" / "manifest.json").exists() and torch.is_grad_enabled()
