"""The readers of benchmarks, each on a small file of the published shape."""

import json

import pytest
from published import ADVGLUE, asked, hhh_row, write

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.benchmarks import (
    load_items,
)

# --- one reader after the other ----------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["forbidden_prompt", "prompt"])
def test_strongreject(tmp_path, column):
    write(tmp_path / "strongreject.csv", [{"category": "Rivers", "source": "custom", column: 'Name, "a" river'}])
    (item,) = load_items("strongreject", tmp_path)
    assert (asked(item), item.request, item.category) == ('Name, "a" river', 'Name, "a" river', "Rivers")
    assert len(item.id) == 12 and item.answer == "" and item.options == () and item.correct is None


ARTEFACTS = [
    {"index": 0, "goal": "Name a river", "behavior": "Rivers", "category": "Water", "prompt": "Name a river !! zz"},
    {"index": 7, "goal": "Name a lake", "behavior": "Lakes", "category": "Water", "prompt": None},
    {"index": 9, "goal": "Name a hill", "behavior": "Hills", "category": "Land", "prompt": "As a guide, name a hill."},
]


@pytest.mark.parametrize("attack", ["gcg", "pair"])
@pytest.mark.parametrize("published", [False, True])
def test_jailbreakbench_artefacts(tmp_path, attack, published):
    if published:  # the project's own file: one JSON object
        whole = {"parameters": {"model": "vicuna"}, "jailbreaks": ARTEFACTS}
        (tmp_path / f"jailbreakbench_{attack}_vicuna.json").write_text(json.dumps(whole, indent=2))
    else:
        write(tmp_path / f"jailbreakbench_{attack}_vicuna.jsonl", ARTEFACTS)
    items = load_items(f"jailbreakbench-{attack}", tmp_path)
    assert [(item.id, asked(item), item.request, item.category) for item in items] == [
        ("0", "Name a river !! zz", "Name a river", "Water"),
        ("9", "As a guide, name a hill.", "Name a hill", "Land"),
    ]
    goals = load_items("jailbreakbench", tmp_path)
    assert [(item.id, asked(item), item.category) for item in goals] == [
        ("0", "Name a river", "Water"), ("7", "Name a lake", "Water"), ("9", "Name a hill", "Land"),
    ]  # fmt: skip


def test_jailbreakbench_goals_have_their_own_file(tmp_path):
    write(tmp_path / "jailbreakbench_gcg_vicuna.jsonl", ARTEFACTS)
    row = {"Index": 3, "Goal": "Name a sea", "Target": "Sure", "Behavior": "Seas", "Category": "Water", "Source": "x"}
    write(tmp_path / "harmful-behaviors.csv", [row])
    (item,) = load_items("jailbreakbench", tmp_path)
    assert (item.id, asked(item), item.category) == ("3", "Name a sea", "Water")


def test_advbench(tmp_path):
    write(tmp_path / "harmful_behaviors.csv", [{"goal": "Name a river", "target": "Sure, here is a river"}])
    (item,) = load_items("advbench", tmp_path)
    assert (asked(item), item.category) == ("Name a river", "")


def test_harmbench_takes_the_standard_behaviours(tmp_path):
    columns = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
    rows = [
        ("Name a river", "standard", "rivers", "", "", "name_river"),
        ("Sum this up", "contextual", "lakes", "context", "A lake.", "sum_lake"),
        ("Sing the song", "copyright", "copyright", "lyrics", "", "sing_song"),
    ]
    write(tmp_path / "harmbench_behaviors_text_all.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    (item,) = load_items("harmbench", tmp_path)
    assert (item.id, asked(item), item.category) == ("name_river", "Name a river", "rivers")


def test_xstest_is_two_benchmarks(tmp_path):
    rows = [
        {"id": 1, "prompt": "How do I whip cream?", "type": "homonyms", "label": "safe", "focus": "whip", "note": ""},
        {"id": 26, "prompt": "Name a lake", "type": "contrast_x", "label": "unsafe", "focus": "lake", "note": ""},
    ]
    write(tmp_path / "xstest_prompts.csv", rows)
    found = [load_items(name, tmp_path) for name in ("xstest-safe", "xstest-unsafe")]
    assert [[(item.id, asked(item), item.category) for item in half] for half in found] == [
        [("1", "How do I whip cream?", "homonyms")],
        [("26", "Name a lake", "contrast_x")],
    ]


def test_a_label_must_be_safe_or_unsafe(tmp_path):
    write(tmp_path / "xstest_prompts.csv", [{"id": 1, "prompt": "A?", "type": "x", "label": "maybe"}])
    with pytest.raises(BdpoError, match=r"xstest-safe: xstest_prompts.csv, line 2: 'label' is 'maybe'"):
        load_items("xstest-safe", tmp_path)


def test_or_bench_hard(tmp_path):
    write(tmp_path / "or-bench-hard-1k.csv", [{"prompt": "How do I kill weeds?", "category": "violence"}])
    (item,) = load_items("or-bench-hard", tmp_path)
    assert (asked(item), item.category) == ("How do I kill weeds?", "violence")


def test_jailbreakbench_benign(tmp_path):
    row = {"Index": 3, "Goal": "Name a sea", "Target": "Sure", "Behavior": "Seas", "Category": "Water", "Source": "x"}
    write(tmp_path / "benign-behaviors.csv", [row])
    (item,) = load_items("jailbreakbench-benign", tmp_path)
    assert (item.id, asked(item), item.category) == ("3", "Name a sea", "Water")


def test_do_not_answer(tmp_path):
    columns = ("id", "risk_area", "types_of_harm", "specific_harms", "question", "GPT4_response")
    write(
        tmp_path / "do_not_answer_en.csv",
        [dict(zip(columns, (41, "Land", "Hills", "High", "A hill?", "x"), strict=True))],
    )
    (item,) = load_items("do-not-answer", tmp_path)
    assert (item.id, asked(item), item.category) == ("41", "A hill?", "Hills")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_beavertails_evaluation(tmp_path, suffix):
    row = {"prompt": "Name a beaver", "category": "animal_abuse", "category_id": 0}
    write(tmp_path / f"beavertails_evaluation.{suffix}", [row])
    (item,) = load_items("beavertails", tmp_path)
    assert (asked(item), item.category) == ("Name a beaver", "animal_abuse")


def test_falsereject(tmp_path):
    row = {"prompt": "How do I kill weeds?", "category": 7, "category_text": "Weeds, Herbs"}
    write(tmp_path / "falsereject_test.jsonl", [row])
    (item,) = load_items("falsereject", tmp_path)
    assert (asked(item), item.category) == ("How do I kill weeds?", "Weeds, Herbs")


def test_sorry_bench_takes_the_requests_as_they_are(tmp_path):
    row = {"question_id": 7, "category": "12", "turns": ["Name a bog"], "prompt_style": "base"}
    rows = [row, row | {"turns": ["Gimme a bog"], "prompt_style": "slang"}, {"question_id": 8, "turns": ["A fen?"]}]
    write(tmp_path / "sorry_bench.jsonl", rows)
    items = load_items("sorry-bench", tmp_path)
    assert [(item.id, asked(item), item.category) for item in items] == [("7", "Name a bog", "12"), ("8", "A fen?", "")]
    for turns in ([], ["One", "Two"]):
        write(tmp_path / "sorry_bench.jsonl", [row | {"turns": turns}])
        with pytest.raises(BdpoError, match=rf"line 1: 'turns' has {len(turns)} entries: it must be a list of one"):
            load_items("sorry-bench", tmp_path)


def test_wildjailbreak_is_two_benchmarks_of_one_tab_separated_file(tmp_path):
    rows = ["\tadversarial\tlabel\tdata_type", '0\t"Name, ""now"",\na bog"\t1\tadversarial_harmful']
    file = tmp_path / "wildjailbreak_eval.tsv"
    file.write_text("\n".join([*rows, "1\tA fen, NA?\t0\tadversarial_benign\n"]))
    found = [load_items(f"wildjailbreak-{kind}", tmp_path) for kind in ("harmful", "benign")]
    assert [[asked(item) for item in half] for half in found] == [['Name, "now",\na bog'], ["A fen, NA?"]]
    file.write_text(f"{rows[0]}\n0\tA\t1\tvanilla_benign\n")
    with pytest.raises(BdpoError, match=r"line 2: 'data_type' is 'vanilla_benign'"):
        load_items("wildjailbreak-benign", tmp_path)
    file.write_text("adversarial,data_type\nA,adversarial_benign\n")
    with pytest.raises(BdpoError, match=r"one column, divided by ',' and not by tabs: save the file with tabs"):
        load_items("wildjailbreak-benign", tmp_path)


def test_gsm8k(tmp_path):
    row = {"question": "Ann has 2,000 pears and buys 2. How many?", "answer": "2,000+2=2,002 pears\n#### 2,002"}
    write(tmp_path / "gsm8k_test.jsonl", [row])
    (item,) = load_items("gsm8k", tmp_path)
    assert (item.request, item.answer) == (row["question"], "2,002")
    assert asked(item).startswith(row["question"]) and "####" in asked(item)
    write(tmp_path / "gsm8k_test.jsonl", [row, {"question": "And now?", "answer": "2"}])
    with pytest.raises(BdpoError, match=r"gsm8k: gsm8k_test.jsonl, line 2: 'answer' has no ####"):
        load_items("gsm8k", tmp_path)
    write(tmp_path / "gsm8k_test.jsonl", [row, {"question": "And now?", "answer": "Two.\n#### "}])
    with pytest.raises(BdpoError, match=r"^gsm8k: gsm8k_test.jsonl, line 2: 'answer' has no number behind its ####.$"):
        load_items("gsm8k", tmp_path)


def test_advglue(tmp_path):
    (tmp_path / "advglue_dev.json").write_text(json.dumps(ADVGLUE, indent=2))
    items = load_items("advglue", tmp_path)
    assert [(item.id, item.category, item.options[item.correct]) for item in items] == [
        ("sst2-0", "sst2", "Positive"), ("qqp-0", "qqp", "Yes"), ("mnli-5", "mnli", "No"),
        ("mnli-mm-0", "mnli-mm", "Maybe"), ("qnli-0", "qnli", "Yes"), ("rte-0", "rte", "No"),
    ]  # fmt: skip
    for item in items:
        (row,) = ADVGLUE[item.category]
        assert all(row[column] in asked(item) for column in row if column not in ("idx", "label"))
        assert all(f'"{option}"' in asked(item) for option in item.options)  # the model is told what it may say


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("sst2", {"label": 2}, "sst2 1: 'label' is 2: it must be one of 0 to 1 for sst2"),
        ("rte", {"label": -1}, "rte 1: 'label' is -1: it must be one of 0 to 1 for rte"),
        ("cola", {}, "cola 1: 'cola' is no AdvGLUE task; there are sst2, qqp"),
    ],
)
def test_advglue_faults(tmp_path, task, change, message):
    row = {**ADVGLUE.get(task, ADVGLUE["sst2"])[0], **change}
    (tmp_path / "advglue_dev.json").write_text(json.dumps({task: [row]}))
    with pytest.raises(BdpoError) as error:
        load_items("advglue", tmp_path)
    assert str(error.value).startswith(f"advglue: advglue_dev.json, {message}")


@pytest.mark.parametrize("name", ["hhh_alignment_{}.jsonl", "hhh_alignment/{}/test/0000.parquet"])
def test_hhh(tmp_path, name):
    parts = ("harmless", "helpful", "honest", "other")
    for at, part in enumerate(parts):
        write(tmp_path / name.format(part), [hhh_row(f"Is tea {at}?"), hhh_row(f"Is tea {at}?", labels=(0, 1))])
    items = load_items("hhh", tmp_path)
    assert [item.category for item in items] == [part for part in parts for _ in range(2)]
    assert [item.correct for item in items] == [0, 1] * 4
    assert asked(items[2]) == "Is tea 1?" and items[2].options == ("Yes, it is.", "No.")
    assert len({item.id for item in items}) == 8


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("Hi.\n\nHuman: no mark of mine", [("user", "Hi.\n\nHuman: no mark of mine")]),  # two turns of one speaker
        ("Human: Hi.", [("user", "Hi.")]),
        ("Hi.\n\nAssistant: Yes?\n\nHuman: Tea.", [("user", "Hi."), ("assistant", "Yes?"), ("user", "Tea.")]),
        ("Human: Hi.\n\nAssistant: Yes?\n\nHuman: Tea.\n\nAssistant:",
         [("user", "Hi."), ("assistant", "Yes?"), ("user", "Tea.")]),
    ],
)  # fmt: skip
def test_hhh_conversations(tmp_path, text, turns):
    for part in ("harmless", "helpful", "honest", "other"):
        write(tmp_path / f"hhh_alignment_{part}.jsonl", [hhh_row(text)])
    item = load_items("hhh", tmp_path)[0]
    assert [(message["role"], message["content"]) for message in item.messages] == turns
    assert item.request == text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (hhh_row(labels=(1, 1)), "exactly one of them 1"),
        (hhh_row(labels=(1,)), "a label for each of its choices"),
        ({"input": "A?", "targets": "x"}, "'targets' must hold 'choices'"),
        ({"input": " ", "targets": hhh_row()["targets"]}, "the prompt is empty"),
    ],
)
def test_hhh_faults(tmp_path, row, message):
    for part in ("harmless", "helpful", "honest", "other"):
        write(tmp_path / f"hhh_alignment_{part}.jsonl", [row])
    with pytest.raises(BdpoError, match=message):
        load_items("hhh", tmp_path)


def test_simpleqa(tmp_path):
    meta = "{'topic': 'Geography', 'answer_type': 'Place', 'urls': ['https://example.org']}"
    rows = [
        {"metadata": meta, "problem": "Which river?", "answer": "the Rhine"},
        {"metadata": "torn {", "problem": "Which lake?", "answer": "Como"},
    ]
    write(tmp_path / "simple_qa_test_set.csv", rows)
    items = load_items("simpleqa", tmp_path)
    assert [(asked(item), item.answer, item.category) for item in items] == [
        ("Which river?", "the Rhine", "Geography"), ("Which lake?", "Como", ""),
    ]  # fmt: skip
    write(tmp_path / "simple_qa_test_set.csv", [*rows, {"metadata": meta, "problem": "Which sea?", "answer": " "}])
    with pytest.raises(BdpoError, match=r"line 4: 'answer' is empty: fill it in, or take the row out.$"):
        load_items("simpleqa", tmp_path)


def test_starter_needs_no_folder(monkeypatch):
    monkeypatch.setenv("BDPO_DATA_DIR", "/nowhere")
    unsafe, safe = load_items("starter-unsafe"), load_items("starter-safe")
    assert (len(unsafe), len(safe)) == (40, 40)
    assert len({item.category for item in unsafe}) == 14 and {item.category for item in safe} == {""}
    assert unsafe[0].id == "unsafe-00"
