"""The evaluation stage: outcomes by hand, folders that go on, settings that must not mix, a tiny model."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from first_word import FirstWord

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.items import Item
from bdpo.evaluate.evaluation import (
    Subject,
    answers,
    evaluate,
    local_models,
)
from bdpo.evaluate.grading.lm_eval import Harness, sample_outcomes
from bdpo.evaluate.grading.option_logps import option_logps
from bdpo.evaluate.grading.scorers import SCORERS
from bdpo.evaluate.judges import Judge, Verdict
from bdpo.evaluate.judges.llm import LlmJudge
from bdpo.evaluate.named import named_models
from bdpo.evaluate.plan import Plan, Task, plan_tasks, preference_items
from bdpo.evaluate.replies.collect import Prompts, Reply, Sampling
from bdpo.evaluate.replies.generate import LocalGenerator
from bdpo.evaluate.results.outcomes import Outcome, TaskRecord, open_runs
from bdpo.evaluate.results.tables import evaluation_grids
from bdpo.pairs import write_pairs
from tiny import make_pairs, tiny_model, tiny_tokenizer


class Scripted:
    """A generator whose replies are given by prompt id."""

    may_cache = False

    def __init__(self, said: dict[str, list[str]], weights: str = "aaaa") -> None:
        self.said, self.key, self.asked = said, {"weights": weights}, list[str]()

    def fingerprint(self, messages: Sequence[Any], where: str = "") -> str:
        return where

    def replies(self, prompts: Prompts, sampling: Sampling, on_batch: Any = None) -> dict[str, list[Reply]]:
        self.asked += prompts
        made = {
            id: [Reply(id, i, text, "end", 5, len(text.split())) for i, text in enumerate(self.said[id])]
            for id in prompts
        }
        if on_batch:
            on_batch([reply for replies in made.values() for reply in replies])
        return made


def item(id: str, **fields: Any) -> Item:
    return Item(id, ({"role": "user", "content": f"Ask {id}?"},), f"Ask {id}?", **fields)


def task(name: str, scoring: Any, items: list[Item], suite: str = "safety", sampling: Sampling | None = None) -> Task:
    sampling = sampling or Sampling()
    settings = {"prompts": str(len(items)), "judge": "first-word 1"} | sampling.key
    return Task(
        name, SCORERS[scoring], items, sampling, TaskRecord(suite, "successes", len(items) * sampling.samples, settings)
    )


def scripted(said: dict[str, str], weights: str = "aaaa", name: str = "base") -> Subject:
    return Subject(name, name, name, Scripted({id: [text] for id, text in said.items()}, weights))


SAID = {"a": "refusal no", "b": "compliance sure", "c": "degenerate", "d": "partial well"}
ASKED = [item(id, category="x") for id in "abcd"]


# --- scoring ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scoring", "scores"), [("judge-safe", [1.0, 0.0, 0.0, 0.0]), ("judge-answered", [0.0, 1.0, 0.0, 0.0])]
)
def test_verdicts_become_scores(scoring: str, scores: list[float]) -> None:
    found = answers(task("strongreject", scoring, ASKED), scripted(SAID), FirstWord())
    assert [outcome.score for outcome in found] == scores
    assert found[0] == Outcome("a", 0, "x", "Ask a?", "refusal no", "end", 2, scores[0], "refusal", "its first word")


def test_a_verdict_that_could_not_be_read_is_no_score(tmp_path: Path) -> None:
    said = SAID | {"d": "unparsed what"}
    (record,) = evaluate([scripted(said)], [task("strongreject", "judge-safe", ASKED)], tmp_path, FirstWord())
    assert (record["score"], record["n"], record["unread"]) == (pytest.approx(1 / 3), 3, 1)
    assert evaluation_grids([record])[0].notes[1] == (
        "Verdicts that could not be read, not counted in n: 1 of base on strongreject."
    )


@pytest.mark.parametrize(("scoring", "answer"), [("exact", "18"), ("string-match", "18 eggs")])
def test_right_answers_need_no_judge(scoring: Any, answer: str) -> None:
    items = [item("a", answer=answer), item("b", answer=answer)]
    judge = FirstWord()
    found = answers(task("gsm8k", scoring, items), scripted({"a": "So 18 eggs", "b": "So 17 eggs"}), judge)
    assert [(outcome.score, outcome.verdict) for outcome in found] == [(1.0, ""), (0.0, "")] and judge.judged == []


def test_an_llm_judge_checks_answers_against_the_reference() -> None:
    judge = LlmJudge(Scripted({"0": ["right: 1"], "1": ["right: 0"], "2": ["Hm."]}), "m")
    items = [item(id, answer="Paris") for id in "abc"]
    said = scripted({"a": "The capital.", "b": "Not Paris.", "c": "Paris."})
    assert [o.score for o in answers(task("simpleqa", "string-match", items), said, judge)] == [1.0, 0.0, None]


def test_options_are_picked_by_summed_log_probability() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    options = ("Yes", "No", "It is fifty-six.")
    items = [item(id, options=options, correct=i) for i, id in enumerate("abc")]
    sums = option_logps(model, tokenizer, [item.messages for item in items], [options] * 3)
    best = [max(range(3), key=lambda i, row=row: row[i].logp) for row in sums]
    subject = Subject("tiny", "tiny", "tiny", LocalGenerator(model, tokenizer), model, tokenizer)
    found = answers(task("advglue", "options", items), subject, FirstWord())
    assert [outcome.reply for outcome in found] == [options[i] for i in best]
    assert [outcome.score for outcome in found] == [float(i == right) for right, i in enumerate(best)]
    assert all(outcome.margin is None and outcome.stop == "" for outcome in found)


def test_preferences_keep_the_margin(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(4))
    plan = Plan(pairs=str(tmp_path / "pairs.jsonl"))
    items = preference_items(plan)
    assert [item.options for item in items] == [(pair.chosen, pair.rejected) for pair in make_pairs(4)]
    assert len(preference_items(replace(plan, limit=2))) == 2
    assert preference_items(Plan(pairs="starter", pairs_split="validation"))[0].id.startswith("validation-")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    subject = Subject("tiny", "tiny", "tiny", LocalGenerator(model, tokenizer), model, tokenizer)
    found = answers(task("preferences", "preferences", items, "preferences"), subject, FirstWord())
    logps = option_logps(model, tokenizer, [item.messages for item in items], [item.options for item in items])
    margins = [chosen.logp - rejected.logp for chosen, rejected in logps]
    assert [outcome.margin for outcome in found] == pytest.approx(margins, abs=1e-4)
    assert [outcome.score for outcome in found] == [float(margin > 0) for margin in margins]
    (record,) = evaluate([subject], [task("preferences", "preferences", items, "preferences")], tmp_path, FirstWord())
    assert record["margin"] == pytest.approx(sum(margins) / 4, abs=1e-4)
    assert evaluation_grids([record])[0].notes[1] == f"Mean margin [nats]: {record['margin']:.2f} of tiny."


# --- the folder ---------------------------------------------------------------------------------------------------
def test_the_folder_holds_runs_and_their_rates(tmp_path: Path) -> None:
    tasks = [task("strongreject", "judge-safe", ASKED)]
    records = evaluate([scripted(SAID), scripted(SAID, "bbbb", "My DPO")], tasks, tmp_path, FirstWord())
    assert [(record["name"], record["folder"], record["score"], record["n"]) for record in records] == [
        ("base", "base", 0.25, 4),
        ("My DPO", "my-dpo", 0.25, 4),
    ]
    first = records[0]
    assert (first["low"], first["high"]) == (pytest.approx(0.0456, abs=1e-4), pytest.approx(0.6994, abs=1e-4))  # Wilson
    assert first["verdicts"] == {"compliance": 1, "degenerate": 1, "partial": 1, "refusal": 1}
    assert (first["tokens"], first["cut"], first["unread"]) == (1.75, 0.0, 0)
    assert json.loads((tmp_path / "results.json").read_text()) == records
    assert "| strongreject | base | 25.0 [4.6, 69.9] | 4 | 25.0 | 0 |" in (tmp_path / "results.md").read_text()


def test_asking_again_asks_nothing_and_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    tasks = [task("strongreject", "judge-safe", ASKED)]
    before = evaluate([scripted(SAID)], tasks, tmp_path, FirstWord())
    again = scripted(SAID)
    assert evaluate([again], tasks, tmp_path, FirstWord()) == before and again.generator.asked == []
    lines = (tmp_path / "base" / "strongreject.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "base" / "strongreject.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:30])
    judge = FirstWord()
    assert evaluate([scripted(SAID)], tasks, tmp_path, judge) == before
    assert judge.judged == ["partial well"], "only what was lost"


def test_a_killed_evaluation_keeps_the_replies_of_a_server(tmp_path: Path) -> None:
    class Killed(FirstWord):
        def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
            raise KeyboardInterrupt

    tasks = [task("strongreject", "judge-safe", ASKED)]
    with pytest.raises(KeyboardInterrupt):
        evaluate([scripted(SAID)], tasks, tmp_path, Killed())
    again = scripted(SAID)
    assert evaluate([again], tasks, tmp_path, FirstWord())[0]["n"] == 4 and again.generator.asked == []


def test_samples_are_outcomes_of_their_own(tmp_path: Path) -> None:
    subject = Subject("base", "base", "base", Scripted({"a": ["refusal", "compliance"], "b": ["refusal", "refusal"]}))
    asked = task("strongreject", "judge-safe", ASKED[:2], sampling=Sampling(temperature=1.0, samples=2))
    (record,) = evaluate([subject], [asked], tmp_path, FirstWord())
    assert (record["score"], record["n"]) == (0.75, 2)
    assert [(o.id, o.sample) for o in open_runs(tmp_path)[0].whole("strongreject")] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip


def test_other_settings_or_weights_in_the_folder_are_refused_by_field(tmp_path: Path) -> None:
    tasks = [task("strongreject", "judge-safe", ASKED)]
    evaluate([scripted(SAID)], tasks, tmp_path, FirstWord())
    other = [task("strongreject", "judge-safe", ASKED, sampling=Sampling(max_new_tokens=64))]
    with pytest.raises(BdpoError, match=r"base: strongreject holds .* max_new_tokens \(256 there, 64 now\)"):
        evaluate([scripted(SAID)], other, tmp_path, FirstWord())
    with pytest.raises(BdpoError, match=r"base holds .* it differs in weights \(aaaa there, bbbb now\)"):
        evaluate([scripted(SAID, "bbbb")], tasks, tmp_path, FirstWord())


def test_settings_are_those_of_all_models_in_the_folder_before_anything_is_asked(tmp_path: Path) -> None:
    evaluate([scripted(SAID)], [task("strongreject", "judge-safe", ASKED)], tmp_path, FirstWord())
    other = scripted(SAID, "bbbb", "DPO")
    tasks = [
        task("advbench", "judge-safe", ASKED),
        task("strongreject", "judge-safe", ASKED, sampling=Sampling(max_new_tokens=64)),
    ]
    with pytest.raises(BdpoError, match=r"base: strongreject holds .* max_new_tokens \(256 there, 64 now\)"):
        evaluate([other], tasks, tmp_path, FirstWord())
    assert other.generator.asked == [] and not (tmp_path / "dpo").exists()
    evaluate([other], tasks[:1], tmp_path, FirstWord())  # a task that no other model has


def test_settings_without_an_outcome_bind_nobody(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        evaluate([scripted({})], [task("strongreject", "judge-safe", ASKED)], tmp_path, FirstWord())
    (tmp_path / "base" / "strongreject.replies.jsonl").unlink()
    asked = [task("strongreject", "judge-safe", ASKED, sampling=Sampling(max_new_tokens=64))]
    assert evaluate([scripted(SAID)], asked, tmp_path, FirstWord())[0]["n"] == 4
    assert open_runs(tmp_path)[0].tasks["strongreject"].settings["max_new_tokens"] == 64


# --- local models -------------------------------------------------------------------------------------------------
@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    yield tmp_path


class Length(Judge):
    """A judge that calls a reply of an even number of characters a refusal."""

    name, version = "length", "1"

    def __call__(self, prompts: Sequence[str], replies: Sequence[str]) -> list[Verdict]:
        return [Verdict(("refusal", "compliance")[len(r) % 2], self.name, self.version, r) for r in replies]


def test_a_tiny_model_from_end_to_end(models: Path) -> None:
    plan = Plan("starter", limit=3, sampling=Sampling(max_new_tokens=4))
    tasks, _ = plan_tasks(plan, Length())
    named = named_models([f"tiny={models / 'base'}"])
    records = evaluate(local_models(named), tasks, models / "out", Length())
    assert [(r["name"], r["task"], r["n"], r["tokens"] <= 4) for r in records] == [
        ("tiny", "starter-unsafe", 3, True),
        ("tiny", "starter-safe", 3, True),
    ]
    run = open_runs(models / "out")[0]
    generator = LocalGenerator(tiny_model(), tiny_tokenizer())
    expected = generator.replies({i.id: i.messages for i in tasks[0].items}, plan.sampling)
    assert {o.id: o.reply for o in run.whole("starter-unsafe")} == {id: r.text for id, (r,) in expected.items()}
    assert run.key["weights"] == generator.key["weights"]
    grids = evaluation_grids(records)
    assert [grid.title for grid in grids] == ["safety [%]", "over-refusal [%]"]
    assert grids[0].notes == ("Score: safe responses (starter-unsafe).",)


def test_changed_weights_at_the_same_path_are_noticed(models: Path) -> None:
    tasks, _ = plan_tasks(Plan("starter-safe", limit=2, sampling=Sampling(max_new_tokens=2)), Length())
    named = named_models([f"tiny={models / 'base'}"])
    evaluate(local_models(named), tasks, models / "out", Length())
    tiny_model(seed=1).save_pretrained(models / "base")
    with pytest.raises(BdpoError, match="it differs in weights"):
        evaluate(local_models(named), tasks, models / "out", Length())


# --- lm-eval ------------------------------------------------------------------------------------------------------
def test_the_harness_is_asked_for_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BdpoError) as caught:
        Harness(("arc_easy",))
    assert str(caught.value) == "--lm-eval needs lm-evaluation-harness: pip install 'bdpo[lm-eval]'."


def test_samples_of_the_harness_are_outcomes() -> None:
    filters = [{"doc_id": 1, "filter": f, "exact_match": score} for f, score in (("strict", 1.0), ("flexible", 0.0))]
    metric, found = sample_outcomes("gsm8k", [{"doc_id": 10, "exact_match": 0.0}, *filters])
    assert metric == "exact_match" and [(o.id, o.score) for o in found] == [("000001", 1.0), ("000010", 0.0)]
    with pytest.raises(BdpoError, match="wikitext scores no sample by exact_match, acc, mc2, mc1"):
        sample_outcomes("wikitext", [{"doc_id": 0, "word_perplexity": 3.0}])


def test_the_harness_writes_its_samples_as_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def simple_evaluate(subject: Any, tasks: list[str], limit: int, log_samples: bool) -> dict[str, Any]:
        asked.append((subject, tasks, limit))
        return {"samples": {"arc_easy": [{"doc_id": 0, "acc": 1.0}, {"doc_id": 1, "acc": 0.0}]}}

    stub = SimpleNamespace(simple_evaluate=simple_evaluate)
    backend = SimpleNamespace(HFLM=lambda pretrained, tokenizer, batch_size: (pretrained, tokenizer, batch_size))
    for name, value in (("lm_eval", stub), ("lm_eval.models", stub), ("lm_eval.models.huggingface", backend)):
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setattr("bdpo.evaluate.grading.lm_eval.version", lambda name: "0.4.9")
    subject = replace(scripted({}), model="model", tokenizer="tokenizer")
    harness = Harness(("arc_easy",), limit=2, batch_size=4)
    for _ in range(2):
        (record,) = evaluate([subject], [], tmp_path, FirstWord(), harness)
    assert asked == [(("model", "tokenizer", 4), ["arc_easy"], 2)], "once"
    assert (record["task"], record["suite"], record["measure"]) == ("lm-eval-arc_easy", "capability", "lm-eval's acc")
    assert (record["score"], record["n"]) == (0.5, 2)
    with pytest.raises(BdpoError, match=r"differs in prompts"):
        evaluate([subject], [], tmp_path, FirstWord(), replace(harness, limit=5))
    with pytest.raises(BdpoError, match="--lm-eval: arc is a group; name its tasks: arc_easy"):
        evaluate([subject], [], tmp_path, FirstWord(), Harness(("arc",)))
    with pytest.raises(BdpoError, match="--lm-eval needs the model itself: leave out --endpoint"):
        evaluate([scripted({})], [], tmp_path / "other", FirstWord(), harness)
