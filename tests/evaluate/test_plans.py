"""What is to be asked: prompts drawn and digested, tasks of transforms, what a judge or a server leaves out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from first_word import FirstWord

from bdpo.errors import BdpoError
from bdpo.evaluate.evaluation import endpoint_models
from bdpo.evaluate.judges import make_judge
from bdpo.evaluate.named import named_models
from bdpo.evaluate.plan import Plan, plan_tasks


def test_a_plan_draws_the_same_prompts_and_keeps_the_digest_of_what_is_asked() -> None:
    tasks, missing = plan_tasks(Plan("starter", limit=6), FirstWord())
    assert [(t.name, t.record.suite, len(t.items)) for t in tasks] == [
        ("starter-unsafe", "safety", 6),
        ("starter-safe", "over-refusal", 6),
    ]
    assert missing == {} and tasks == plan_tasks(Plan("starter", limit=6), FirstWord())[0]
    settings = tasks[0].record.settings
    assert settings["judge"] == "first-word 1" and settings["max_new_tokens"] == 256 and settings["samples"] == 1
    other = plan_tasks(Plan("starter", limit=6, seed=1), FirstWord())[0][0].record.settings
    assert settings["prompts"].startswith("6 (") and settings["prompts"] != other["prompts"]


def test_under_the_rules_judge_safety_is_called_a_refusal_rate() -> None:
    unsafe, safe = plan_tasks(Plan("starter", limit=2), make_judge("rules"))[0]
    assert unsafe.record.measure.startswith("refusal rate")
    assert safe.record.measure == "harmless prompts answered"


def test_a_judge_that_knows_only_harm_leaves_over_refusal_out_before_anything_is_asked() -> None:
    judge = FirstWord()
    judge.knows_answers = False
    tasks, missing = plan_tasks(Plan("starter", limit=4), judge)
    assert [task.name for task in tasks] == ["starter-unsafe"]
    assert missing == {
        "starter-safe": "starter-safe: first-word knows only safe and unsafe; take the judge rules or llm."
    }
    with pytest.raises(BdpoError, match="starter-safe: first-word knows only"):
        plan_tasks(Plan("starter-safe", limit=4), judge)


def test_two_files_of_paraphrases_are_two_tasks(tmp_path: Path) -> None:
    prompts = [item.request for item in plan_tasks(Plan("starter-unsafe", limit=3), FirstWord())[0][0].items]
    for language in ("es", "fr"):
        lines = [json.dumps({"prompt": prompt, "paraphrase": f"{language}: {prompt}"}) for prompt in prompts]
        (tmp_path / f"{language}.jsonl").write_text("\n".join(lines))
    transforms = tuple(f"paraphrase={tmp_path}/{language}.jsonl" for language in ("es", "fr"))
    tasks, _ = plan_tasks(Plan("starter-unsafe", limit=3, transforms=transforms), FirstWord())
    assert [task.name for task in tasks] == ["starter-unsafe+paraphrase-es", "starter-unsafe+paraphrase-fr"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(pairs_kind="kind"), "--pairs-kind is about the data of --pairs: name them, or leave it out."),
        (Plan(pairs_split="test"), "--pairs-split is about the data of --pairs: name them, or leave it out."),
        (Plan(prefer="safer"), "--prefer is about the data of --pairs: name them, or leave it out."),
        (
            Plan("", pairs="starter", transforms=("base64",)),
            "--transform words the prompts of benchmarks, not --pairs: name benchmarks with --suite.",
        ),
        (
            Plan("starter-safe", transforms=("rot13", "rot13")),
            "--transform: two of them would be starter-safe+rot13; leave one out, or give its file another name.",
        ),
    ],
)
def test_what_would_change_nothing_or_mix_two_tasks_is_refused(plan: Plan, said: str) -> None:
    with pytest.raises(BdpoError) as caught:
        plan_tasks(plan, FirstWord())
    assert str(caught.value) == said


def test_transforms_are_tasks_of_their_own() -> None:
    tasks, _ = plan_tasks(Plan("starter-unsafe", limit=2, transforms=("rot13", "base64")), FirstWord())
    assert [t.name for t in tasks] == ["starter-unsafe+rot13", "starter-unsafe+base64"]
    assert tasks[0].items[0].request == tasks[1].items[0].request
    assert tasks[0].record.settings["prompts"] != tasks[1].record.settings["prompts"]


def test_an_endpoint_leaves_out_what_needs_log_probabilities(tmp_path: Path) -> None:
    rows = {"input": "Hi?", "targets": {"choices": ["Yes.", "No."], "labels": [1, 0]}}
    for part in ("harmless", "helpful", "honest", "other"):
        (tmp_path / f"hhh_alignment_{part}.jsonl").write_text(json.dumps(rows) + "\n")
    plan = Plan("starter-safe,hhh", tmp_path, limit=2)
    tasks, missing = plan_tasks(plan, FirstWord(), logps=False)
    assert [t.name for t in tasks] == ["starter-safe"]
    assert missing == {"hhh": "hhh: an endpoint gives no log-probabilities; load the model itself."}
    with pytest.raises(BdpoError, match="--pairs needs log-probabilities, which an endpoint does not give"):
        plan_tasks(replace(plan, pairs="starter"), FirstWord(), logps=False)
    (subject,) = endpoint_models([("DPO", "served")], "http://localhost:1/v1")
    assert (subject.name, subject.key) == ("DPO", {"endpoint": "http://localhost:1/v1", "model": "served"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["=runs/x"], "'=runs/x': write MODEL, or NAME=MODEL."),
        (["x="], "'x=': write MODEL, or NAME=MODEL."),
        (["starter", "starter"], "'starter' is given twice: take one of them out."),
    ],
)
def test_models_that_are_not_named_well(arguments: list[str], said: str) -> None:
    with pytest.raises(BdpoError) as caught:
        named_models(arguments)
    assert str(caught.value) == said
