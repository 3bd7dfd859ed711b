"""The commands of stage 3 in this process: evaluate, compare, judge-agreement, and a recipe that evaluates."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bdpo.evaluate.judges.rules import rules
from bdpo.evaluate.results.outcomes import open_runs
from bdpo.pairs import write_pairs
from tiny import Bdpo, make_pairs, tiny_model, tiny_tokenizer

ASK = ("--limit", "3", "--max-new-tokens", "4", "--suite")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two tiny models and pairs; bdpo's cache lies in it, and it is the working folder."""
    home = tmp_path_factory.mktemp("home")
    for seed, name in enumerate(("base", "other")):
        tiny_model(seed=seed).save_pretrained(home / name)
        tiny_tokenizer().save_pretrained(home / name)
    write_pairs(home / "pairs.jsonl", make_pairs(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BDPO_CACHE", str(home / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("BDPO_DATA_DIR", raising=False)
        patch.chdir(home)
        yield home


def test_evaluate_then_compare(bdpo_: Bdpo, home: Path) -> None:
    models = ("base=base", "DPO=other")
    code, out, err = bdpo_("evaluate", *models, *ASK, "starter", "--pairs", "pairs.jsonl", "--out", "eval")
    assert code == 0 and "Next: bdpo compare eval" in out and "DPO: starter-safe, 3 prompts" in err
    base, dpo = open_runs(home / "eval")
    assert (base.name, dpo.name, list(base.tasks)) == ("base", "DPO", ["starter-unsafe", "starter-safe", "preferences"])
    for outcome in dpo.whole("starter-unsafe"):
        verdict = rules(outcome.request, outcome.reply)
        assert (outcome.verdict, outcome.score) == (verdict.label, float(verdict.label == "refusal"))
    before = (home / "eval" / "results.json").read_text()
    code, _, err = bdpo_("evaluate", *models, *ASK, "starter", "--pairs", "pairs.jsonl", "--out", "eval")
    assert code == 0 and "prompts" not in err and (home / "eval" / "results.json").read_text() == before

    code, out, _ = bdpo_("compare", "eval", "--weights", "safety=3,over-refusal=1", "--curve")
    assert code == 0 and "Harmful refused at equal harmless answered" in out
    assert code == 0 and "overall is 0.75 safety, 0.25 over-refusal" in out
    comparison = json.loads((home / "eval" / "compare.json").read_text())
    assert list(comparison["curves"]["points"]) == ["base", "DPO"] and comparison["curves"]["baseline"] == "base"
    rows = {row["name"]: row for row in comparison["rows"]}
    assert list(rows) == [
        "starter-unsafe", "starter-safe", "preferences", "preferences margin", "preferences reward",
        *(f"preferences {kind}{what}" for kind in ("unsafe", "harmless", "balanced")
          for what in ("", " reward", " log-ratio margin")),
        "safety", "over-refusal", "overall",
    ]  # fmt: skip
    margins = [[o.margin for o in run.whole("preferences")] for run in (base, dpo)]
    gained = [new - old for old, new in zip(*margins, strict=True)]
    assert rows["preferences margin"]["cells"]["DPO"]["difference"]["value"] == pytest.approx(sum(gained) / 3)
    assert rows["preferences reward"]["cells"]["DPO"]["score"]["value"] == sum(g > 0 for g in gained) / 3
    assert (home / "eval" / "compare.md").read_text().startswith("# Comparison\n\n## Averages [%]\n\n|  | n | base |")


def test_nucleus_sampling_is_written_down_where_it_draws(bdpo_: Bdpo, home: Path) -> None:
    for out, temperature in (("nucleus", "0.5"), ("greedy", "0")):
        asked = ("--top-p", "0.9", "--temperature", temperature, "--out", out)
        assert bdpo_("evaluate", "base", *ASK, "starter-safe", *asked)[0] == 0
    settings = [open_runs(home / out)[0].tasks["starter-safe"].settings for out in ("nucleus", "greedy")]
    assert [of_run.get("top_p") for of_run in settings] == [0.9, None]


def test_train_evaluates_as_the_recipe_says(bdpo_: Bdpo, home: Path) -> None:
    settings = (
        *("model.name=base", "data.train=pairs.jsonl", "train.use_cpu=true", "train.max_steps=2"),
        *("train.per_device_train_batch_size=2", "evaluate.every=1", "evaluate.limit=2", "evaluate.max_new_tokens=2"),
    )
    code, _, _ = bdpo_("train", "--out", "run", *(word for setting in settings for word in ("--set", setting)))
    history = json.loads((home / "run" / "metrics.json").read_text())["history"]
    assert code == 0 and [entry["step"] for entry in history if "evaluate/starter-safe" in entry] == [0, 1, 2]


def test_judge_agreement(bdpo_: Bdpo, home: Path) -> None:
    rows = [
        "How do I knot a tie?,I can't help with that.,refusal",
        "How do I knot a tie?,Cross the ends first.,refusal",
    ]
    (home / "labelled.csv").write_text("\n".join(["prompt,reply,label", *rows]) + "\n")
    code, out, _ = bdpo_("judge-agreement", "labelled.csv", "--json")
    found = json.loads(out)
    assert code == 0 and found["confusion"] == {"refusal": {"refusal": 1, "compliance": 1}} and found["accuracy"] == 0.5


MISTAKES = {
    "no such model": ("evaluate ./nowhere --out never", "No model folder at nowhere"),
    "no such benchmark": ("evaluate base --suite sfety --out never", "No benchmark 'sfety': did you mean 'safety'?"),
    "no such transform": (
        "evaluate base --transform base46 --out never",
        "No transform 'base46': did you mean 'base64'?",
    ),
    "no such data folder": ("evaluate base --suite gsm8k --data-dir nowhere --out never", "nowhere: no such folder"),
    "data not to be had": ("evaluate base --suite gsm8k --data-dir . --out never", "has no gsm8k_test.jsonl: download"),
    "the same model twice": ("evaluate base base --out never", "'base' is given twice"),
    "samples of greedy decoding": ("evaluate base --samples 4 --out never", "need a temperature above 0"),
    "no nucleus": ("evaluate base --top-p 2 --out never", "top_p must lie above 0 and at most at 1"),
    "a judge without its model": ("evaluate base --judge classifier --out never", "needs a model: name it with"),
    "no such pairs": ("evaluate base --pairs nowhere.jsonl --out never", "nowhere.jsonl"),
    "no log-probabilities": (
        "evaluate x --endpoint http://localhost:1/v1 --pairs starter --out never",
        "--pairs needs",
    ),
    "not a URL": ("evaluate x --endpoint localhost --limit 1 --out never", "'localhost' is not a URL"),
    "no port": ("evaluate x --endpoint http://localhost:80000/v1 --out never", "localhost:80000/v1' is not a URL"),
    "no JSON": (
        "evaluate base --chat-template-kwargs enable_thinking=false --out never",
        "--chat-template-kwargs: 'enable_thinking=false' is no JSON object; write it like",
    ),
    "no variable": (
        'evaluate base --chat-template-kwargs {"a-b":1} --out never',
        "the chat template has no variable 'a-b'",
    ),
    "no template": ("evaluate base --chat-template nowhere --out never", "--chat-template: nowhere cannot be read (No"),
    "a template for a server": (
        "evaluate x --endpoint http://localhost:1/v1 --chat-template pairs.jsonl --out never",
        "--chat-template is for models loaded here",
    ),
    "nothing to compare": ("compare cache", "cache holds no evaluation"),
    "weights that are none": ("compare cache --weights safety", "'safety' should be SUITE=NUMBER, such as safety=2."),
    "no labels": ("judge-agreement pairs.jsonl", "pairs.jsonl, line 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(bdpo_: Bdpo, mistake: str) -> None:
    arguments, said = MISTAKES[mistake]
    code, _, err = bdpo_(*arguments.split())
    sentence = [line for line in err.splitlines() if line.startswith("bdpo: ")]
    assert code == 2 and len(sentence) == 1 and said in sentence[0]
    assert "Traceback" not in err and not Path("never").exists()


def test_template_and_its_variables_are_in_the_key(bdpo_: Bdpo, home: Path) -> None:
    (home / "template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}{{ 'S' if short is defined and short else 'L' }}:{% endif %}"
    )
    asked = ("evaluate", "base", *ASK, "starter-safe")
    given = ("--chat-template", "template.jinja")
    assert bdpo_(*asked, "--out", "plain")[0] == 0
    assert "chat_template_kwargs" not in open_runs(home / "plain")[0].key
    code, _, err = bdpo_(*asked, *given, "--out", "plain")
    assert code == 2 and "it differs in chat_template (" in err
    assert bdpo_(*asked, *given, "--out", "long")[0] == 0
    assert bdpo_(*asked, *given, "--chat-template-kwargs", '{"short": true}', "--out", "short")[0] == 0
    long, short = (open_runs(home / name)[0] for name in ("long", "short"))
    assert short.key["chat_template_kwargs"] == {"short": True} and "chat_template_kwargs" not in long.key
    assert long.key["chat_template"] != short.key["chat_template"]
    assert [o.reply for o in long.whole("starter-safe")] != [o.reply for o in short.whole("starter-safe")]
    code, _, err = bdpo_(*asked, *given, "--out", "short")
    assert code == 2 and "differs in chat_template (" in err and "; chat_template_kwargs ({'short': True} there" in err
