"""Records on disk and the cache: what is kept, what is made again, and what never answers for something else."""

import json
import multiprocessing

import pytest
import torch

from bdpo.errors import BdpoError
from bdpo.evaluate.replies.collect import RecordFile, Reply, Sampling, collect
from bdpo.evaluate.replies.generate import LocalGenerator
from tiny import tiny_model, tiny_tokenizer

PROMPTS = {f"p{i}": [{"role": "user", "content": f"number {i}"}] for i in range(4)}
HOW = Sampling(max_new_tokens=4)


class Counted:
    """A generator that says the prompt back, and counts what it is asked."""

    def __init__(self, key="a", may_cache=True):
        self.key, self.may_cache, self.asked = {"weights": key}, may_cache, []

    def fingerprint(self, messages, where):
        return messages[0]["content"]

    def replies(self, prompts, sampling, on_batch=None):
        self.asked += prompts
        made = {}
        for id, messages in prompts.items():
            text = f"{self.key['weights']}: {messages[0]['content']}"
            made[id] = [Reply(id, i, text, "end", 3, 2) for i in range(sampling.samples)]
            if on_batch:
                on_batch(made[id])
        return made


class Killed(Counted):
    """Stops after two prompts."""

    def replies(self, prompts, sampling, on_batch=None):
        super().replies(dict(list(prompts.items())[:2]), sampling, on_batch)
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "replies"


# --- record files ----------------------------------------------------------------------------------------------


def test_records_come_back_as_they_were(tmp_path):
    file = RecordFile(tmp_path / "new" / "r.jsonl")
    records = [{"text": "a\nb\u2028\ud800 é", "n": 1, "x": None}, {}, {"nested": {"list": [1.5, True]}}]
    assert file.read() == []
    file.append(records[:1])
    file.append(records[1:])
    assert file.read() == records
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [list(line)[-1] for line in lines] == ["checksum"] * 3
    # of {"n": 1} by hand: printf '{"n": 1}' | sha256sum
    file.append([{"n": 1}])
    assert file.path.read_text().splitlines()[-1] == '{"n": 1, "checksum": "e5d5f7c1d225fd6b"}'


@pytest.mark.parametrize("kept", range(1, 30))
def test_a_torn_last_line_is_dropped_and_does_not_swallow_the_next(tmp_path, kept, capsys):
    file = RecordFile(tmp_path / "r.jsonl")
    file.append([{"n": 1}, {"n": 2}])
    whole = file.path.read_bytes()
    first = whole.index(b"\n") + 1
    file.path.write_bytes(whole[: first + kept])
    assert file.read() == [{"n": 1}]
    assert capsys.readouterr().err == ""
    file.append([{"n": 3}])
    assert file.read() == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize(("old", "new"), [(b'"n": 1', b'"n": 7'), (b'{"n": 1', b"\xff"), (b'"checksum": ', b'"sum": ')])
def test_a_damaged_line_elsewhere_is_dropped_and_said(tmp_path, old, new, capsys):
    file = RecordFile(tmp_path / "r.jsonl")
    file.append([{"n": 0}, {"n": 1}, {"n": 2}])
    file.path.write_bytes(file.path.read_bytes().replace(old, new, 2 if b"sum" in old else 1))
    assert file.read() == ([{"n": 2}] if b"sum" in old else [{"n": 0}, {"n": 2}])
    number = "1, 2" if b"sum" in old else "2"
    assert capsys.readouterr().err == f"{file.path}: line {number} is damaged; what it held is made again.\n"


def test_files_that_cannot_be_written_or_read_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BdpoError, match=r"Cannot write .*r.jsonl \(.+\): make room, or choose another place"):
        RecordFile(tmp_path / "file" / "r.jsonl").append([{}])
    with pytest.raises(BdpoError, match=r"Cannot read .* check the path"):
        RecordFile(tmp_path).read()


def _append_many(path, writer):
    for i in range(200):
        RecordFile(path).append([{"writer": writer, "i": i, "text": "x" * 500}])


def test_several_processes_append_to_one_file(tmp_path, capsys):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(tmp_path / "r.jsonl", w)) for w in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    records = RecordFile(tmp_path / "r.jsonl").read()
    assert sorted((r["writer"], r["i"]) for r in records) == [(w, i) for w in range(3) for i in range(200)]
    assert capsys.readouterr().err == ""


# --- sampling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"samples": 2}, "2 samples a prompt need a temperature above 0"),
        ({"max_new_tokens": 0}, "max_new_tokens and samples must be at least 1"),
        ({"samples": 0}, "max_new_tokens and samples must be at least 1"),
        ({"temperature": -1.0}, "temperature must not be negative"),
        ({"temperature": float("nan")}, "temperature must not be negative"),
        ({"top_p": 0.0}, "top_p must lie above 0"),
    ],
)
def test_settings_out_of_range(settings, says):
    with pytest.raises(BdpoError, match=says):
        Sampling(**settings)


def test_greedy_replies_depend_on_no_seed_and_no_reply_on_the_number_of_samples():
    assert Sampling(seed=1).key == Sampling(seed=2, top_p=0.5).key == {"max_new_tokens": 256, "temperature": 0.0}
    assert Sampling(temperature=1, samples=2).key == Sampling(temperature=1.0).key
    assert Sampling(temperature=1.0, seed=1).key != Sampling(temperature=1.0, seed=2).key


# --- collecting ------------------------------------------------------------------------------------------------


def test_the_same_again_costs_nothing():
    first, second = Counted(), Counted()
    made = collect(first, PROMPTS, HOW)
    assert list(made) == first.asked == list(PROMPTS)
    assert made["p2"] == [Reply("p2", 0, "a: number 2", "end", 3, 2)]
    assert collect(second, PROMPTS, HOW) == made and second.asked == []
    renamed = {f"other-{id}": messages for id, messages in PROMPTS.items()}  # the same prompts under other ids
    assert collect(second, renamed, HOW)["other-p2"] == [Reply("other-p2", 0, "a: number 2", "end", 3, 2)]
    assert second.asked == []


@pytest.mark.parametrize(
    ("generator", "how", "prompts"),
    [
        (Counted("b"), HOW, PROMPTS),
        (Counted(), Sampling(max_new_tokens=5), PROMPTS),
        (Counted(), Sampling(max_new_tokens=4, temperature=0.5), PROMPTS),
        (Counted(), HOW, {id: [{"role": "user", "content": f"{id}?"}] for id in PROMPTS}),
        (Counted(may_cache=False), HOW, PROMPTS),
    ],
)
def test_what_depends_on_something_else_is_made_anew(generator, how, prompts):
    collect(Counted(), PROMPTS, HOW)
    made = collect(generator, prompts, how)
    assert generator.asked == list(prompts)
    assert made["p1"][0].text == f"{generator.key['weights']}: {prompts['p1'][0]['content']}"


def test_without_a_key_to_trust_nothing_is_cached(cache):
    collect(Counted(may_cache=False), PROMPTS, HOW)
    assert not cache.exists()


def test_more_samples_make_only_what_is_missing():
    some, more = Sampling(4, temperature=1.0), Sampling(4, temperature=1.0, samples=2)
    collect(Counted(), {"p0": PROMPTS["p0"]}, more)
    generator = Counted()
    collect(generator, PROMPTS, some)
    assert generator.asked == ["p1", "p2", "p3"]
    made = collect(generator, {"p0": PROMPTS["p0"], "p1": PROMPTS["p1"]}, more)
    assert generator.asked[3:] == ["p1"] and [len(replies) for replies in made.values()] == [2, 2]


@pytest.mark.parametrize("may_cache", [True, False])
def test_a_killed_run_goes_on(tmp_path, may_cache):
    path = tmp_path / "replies.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collect(Killed(may_cache=may_cache), PROMPTS, HOW, path)
    path.write_bytes(path.read_bytes()[:-5])  # torn while the second reply was written
    generator = Counted(may_cache=may_cache)
    made = collect(generator, PROMPTS, HOW, path)
    assert generator.asked == (["p2", "p3"] if may_cache else ["p1", "p2", "p3"])
    assert made == collect(Counted("a", False), PROMPTS, HOW)
    assert {r["id"]: r["text"] for r in RecordFile(path).read() if "id" in r} == {
        id: replies[0].text for id, replies in made.items()
    }


def test_what_the_cache_has_is_written_to_the_runs_file_too(tmp_path):
    collect(Counted(), PROMPTS, HOW)
    collect(Counted(), PROMPTS, HOW, tmp_path / "r.jsonl")
    assert sorted(r["id"] for r in RecordFile(tmp_path / "r.jsonl").read() if "id" in r) == list(PROMPTS)


def test_a_file_with_replies_of_something_else_is_refused_by_field(tmp_path):
    path = tmp_path / "r.jsonl"
    collect(Counted(may_cache=False), PROMPTS, HOW, path)
    with pytest.raises(BdpoError, match=r"differs in weights \(a there, b now\)\. Choose another --out, or remove"):
        collect(Counted("b"), PROMPTS, HOW, path)
    with pytest.raises(BdpoError, match=r"differs in max_new_tokens \(4 there, 5 now\)\."):
        collect(Counted(), PROMPTS, Sampling(max_new_tokens=5), path)
    # where the line that says so is damaged, the replies are not taken for others all the same
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"z"', 1))
    generator = Counted("b", may_cache=False)
    assert collect(generator, PROMPTS, HOW, path)["p0"][0].text == "b: number 0"


def test_a_changed_prompt_of_the_same_id_is_asked_again(tmp_path):
    path, changed = tmp_path / "r.jsonl", PROMPTS | {"p1": [{"role": "user", "content": "changed"}]}
    collect(Counted(may_cache=False), PROMPTS, HOW, path)
    generator = Counted(may_cache=False)
    assert collect(generator, changed, HOW, path)["p1"][0].text == "a: changed"
    assert generator.asked == ["p1"]


def test_changed_weights_at_the_same_path_never_return_old_replies(monkeypatch):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    first = collect(LocalGenerator(model, tokenizer), PROMPTS, HOW)
    again = LocalGenerator(model, tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(model, "generate", None)  # nothing is generated
        assert collect(again, PROMPTS, HOW) == first
    with torch.no_grad():
        model.model.embed_tokens.weight.neg_()
    changed = collect(LocalGenerator(model, tokenizer), PROMPTS, HOW)
    assert changed == LocalGenerator(model, tokenizer).replies(PROMPTS, HOW) != first
