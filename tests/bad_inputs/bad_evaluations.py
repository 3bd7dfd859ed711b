"""Bad evaluations: what is asked, of whom, and the folders that hold the answers."""

from __future__ import annotations

from bad_models import W, nan_weights
from case import Bad, bad, fifo, pair

ASK = "evaluate model --limit 1 --max-new-tokens 2 --out never"
URL = "evaluate x --limit 1 --out never --endpoint"
GRADE = "judge-agreement x.csv"
RUN = {"format": 1, "name": "a", "model": "a", "label": "a", "order": 0, "key": {}, "tasks": {}}

EVALUATIONS: dict[str, Bad] = {
    "no such model": bad("evaluate ./nowhere --out never", "No model folder at nowhere"),
    "a name without model": bad("evaluate base= --out never", "'base='", "write MODEL, or NAME=MODEL"),
    "the same twice": bad("evaluate model model --out never", "'model' is given twice", "take one of them out"),
    "no such suite": bad(f"{ASK} --suite sfety", "No benchmark 'sfety': did you mean 'safety'?"),
    "no such transform": bad(f"{ASK} --transform base46", "did you mean 'base64'?"),
    "no such folder": bad(f"{ASK} --suite gsm8k --data-dir nowhere", "nowhere: no such folder"),
    "no such benchmark's file": bad(f"{ASK} --suite gsm8k --data-dir .", "has no gsm8k_test.jsonl", "download"),
    "a benchmark's file torn": bad(
        f"{ASK} --suite gsm8k --data-dir .", "gsm8k_test.jsonl, line 1: not JSON", gsm8k_test__jsonl="{"
    ),
    "a benchmark's column missing": bad(
        f"{ASK} --suite gsm8k --data-dir .", "gsm8k_test.jsonl, line 1", "'question'", gsm8k_test__jsonl=[{"q": "1+1?"}]
    ),
    "samples of greedy decoding": bad(f"{ASK} --samples 4", "need a temperature above 0"),
    "no samples": bad(f"{ASK} --samples 0", "samples must be at least 1"),
    "no tokens": bad("evaluate model --out never --max-new-tokens 0", "max_new_tokens", "at least 1"),
    "cold": bad(f"{ASK} --temperature -1", "temperature must not be negative"),
    "nucleus": bad(f"{ASK} --top-p 2", "top_p must lie above 0 and at most at 1"),
    "drawn backwards": bad(f"{ASK} --seed -1", "seed is -1 and must not be negative"),
    "no prompts": bad("evaluate model --out never --limit 0", "limit", "at least 1"),
    "no batch": bad(f"{ASK} --batch-size 0", "batch", "at least 1"),
    "unknown dtype": bad(f"{ASK} --dtype fp8", "Unknown dtype 'fp8'"),
    "no such pairs": bad(f"{ASK} --pairs nowhere.jsonl", "nowhere.jsonl: no such file"),
    "pairs a pipe": bad(f"{ASK} --pairs x.jsonl", "x.jsonl: cannot be read (a pipe", x__jsonl=fifo),
    "pairs of text": bad(
        f"{ASK} --pairs x.jsonl", "pair a is plain text", "must be chats", x__jsonl=[pair(prompt="Why?")]
    ),
    "a judge without a model": bad(f"{ASK} --judge classifier", "needs a model", "name it with"),
    "a judge that is none": bad(f"{ASK} --judge classifier --judge-model model", "model is no judge that is known"),
    "no judge there": bad(f"{ASK} --judge classifier --judge-model ./nowhere", "No model folder at nowhere"),
    "not a URL": bad(f"{URL} localhost", "'localhost' is not a URL", "write it like"),
    "another scheme": bad(f"{URL} ftp://localhost/v1", "'ftp://localhost/v1' is not a URL"),
    "no log-probabilities": bad(f"{URL} http://localhost:1/v1 --pairs starter", "--pairs needs log-probabilities"),
    "no harness": bad(
        f"{URL} http://localhost:1/v1 --lm-eval arc_easy", "--lm-eval needs the model itself", "leave out"
    ),
    "nothing to compare": bad("compare model", "model holds no evaluation", "run `bdpo evaluate"),
    "no folder to compare": bad("compare nowhere", "nowhere holds no evaluation"),
    "weights that are none": bad("compare model --weights safety", "'safety' should be SUITE=NUMBER"),
    "run torn": bad(
        "compare eval", "eval/a/run.json cannot be read", "evaluate into another folder", **{"eval/a/run__json": "{"}
    ),
    "run a list": bad("compare eval", "eval/a/run.json cannot be read", **{"eval/a/run__json": "[]"}),
    "run of another format": bad("compare eval", "another format", **{"eval/a/run__json": RUN | {"format": 7}}),
    "run without its tasks": bad(
        "compare eval", "eval/a/run.json cannot be read", "'tasks'", **{"eval/a/run__json": {"format": 1}}
    ),
    "run with more": bad("compare eval", "eval/a/run.json cannot be read", **{"eval/a/run__json": RUN | {"more": 1}}),
    "outcomes missing": bad(
        "compare eval",
        "eval/a/t.jsonl holds 0 of 3 outcomes",
        "again",
        **{
            "eval/a/run__json": RUN
            | {"tasks": {"t": {"suite": "safety", "measure": "m", "expected": 3, "settings": {}}}}
        },
    ),
    "a secret for a model": bad(
        f"evaluate https://me:word@localhost/m --out never --endpoint {'http://localhost:1/v1'}",
        "the name of a model is a secret",
        "take it out",
    ),
    "a secret for the template": bad(
        f'{ASK} --chat-template-kwargs {{"api_key":"abc"}}',
        "--chat-template-kwargs: api_key is a secret",
        "OPENAI_API_KEY",
    ),
    "template a pipe": bad(
        f"{ASK} --chat-template x.jinja", "--chat-template: x.jinja cannot be read (a pipe", x__jinja=fifo
    ),
    "template a folder": bad(f"{ASK} --chat-template model", "--chat-template: model cannot be read", "a directory"),
    "task of another place": bad(
        "compare eval",
        "eval/a/run.json cannot be read ('/etc/x' is no name of a task)",
        **{
            "eval/a/run__json": RUN
            | {"tasks": {"/etc/x": {"suite": "safety", "measure": "m", "expected": 0, "settings": {}}}}
        },
    ),
    "outcomes elsewhere": bad(
        "compare eval",
        "eval/a/run.json cannot be read ('../../t' is no name of a task)",
        **{
            "eval/a/run__json": RUN
            | {"tasks": {"../../t": {"suite": "safety", "measure": "m", "expected": 0, "settings": {}}}}
        },
    ),
    "no labels there": bad("judge-agreement nowhere.csv", "nowhere.csv: cannot be read"),
    "labels a pipe": bad(GRADE, "x.csv: cannot be read (a pipe", x__csv=fifo),
    "no label": bad(GRADE, "x.csv, line 2: no column 'label'", x__csv="prompt,reply\na,b\n"),
    "a label that is none": bad(
        GRADE, "x.csv, line 2: 'label' is 'good'", "must be one of", x__csv="prompt,reply,label\na,b,good\n"
    ),
    "labels twice": bad(
        GRADE, "has the column 'label' twice", x__csv="prompt,reply,label,label\na,b,refusal,refusal\n"
    ),
    "labels by semicolons": bad(GRADE, "divided by ';'", x__csv="prompt;reply;label\na;b;refusal\n"),
    "nothing labelled": bad(GRADE, "x.csv has no rows", x__csv="prompt,reply,label\n"),
    "no numbers": bad(
        f"{ASK} --suite starter-safe",
        "are not finite",
        "its weights are damaged",
        **{W: nan_weights},
        leaves="never/model/run.json",
    ),
    "no numbers for pairs": bad(
        f"{ASK} --suite starter-safe --pairs pairs.jsonl",
        "not finite",
        **{W: nan_weights},
        leaves="never/model/run.json",
    ),
}
