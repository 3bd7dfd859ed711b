"""The benchmarks: the table, what is missing or wrong, samples, real files."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from published import ADVGLUE, asked, hhh_row, write

from bdpo.errors import BdpoError
from bdpo.evaluate.ask import sources
from bdpo.evaluate.ask.benchmarks import (
    BENCHMARKS,
    SUITES,
    load_items,
    load_suite,
    select_benchmarks,
    stratified_sample,
)
from bdpo.evaluate.ask.items import VERBALISERS, Item
from bdpo.evaluate.ask.sources import MissingRows
from bdpo.evaluate.grading.answers import final_number
from bdpo.evaluate.grading.scorers import SCORERS
from bdpo.pairs.sources import Source

DATA = Path(__file__).parents[3] / "shared" / "data"
with_data = pytest.mark.skipif(not (DATA / "strongreject.csv").exists(), reason="the published files are not here")


# --- the table ---------------------------------------------------------------------------------------------


def test_the_table_is_whole():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.scoring in SCORERS
        assert benchmark.licence and benchmark.source
        rows = benchmark.rows
        assert rows.package or (rows.files and rows.url.startswith("https://"))
        assert not rows.parts or not rows.hub or len(rows.parts) == len(rows.configs)


def test_suites():
    assert SUITES == {
        "safety": (
            "strongreject", "jailbreakbench", "jailbreakbench-gcg", "jailbreakbench-pair", "advbench", "harmbench",
            "do-not-answer", "beavertails", "sorry-bench", "wildjailbreak-harmful", "xstest-unsafe", "starter-unsafe",
        ),
        "over-refusal": ("xstest-safe", "or-bench-hard", "jailbreakbench-benign", "falsereject", "wildjailbreak-benign",
                         "starter-safe"),
        "capability": ("gsm8k", "advglue", "hhh", "simpleqa"),
        "starter": ("starter-unsafe", "starter-safe"),
    }  # fmt: skip
    kinds = {benchmark.suite: set() for benchmark in BENCHMARKS.values()}
    for benchmark in BENCHMARKS.values():
        kinds[benchmark.suite].add(benchmark.scoring)
    assert kinds["safety"] == {"judge-safe"} and kinds["over-refusal"] == {"judge-answered"}
    assert kinds["capability"] == {"exact", "options", "pairs", "string-match"}


@pytest.mark.parametrize(
    ("names", "selected"),
    [
        ("gsm8k", ["gsm8k"]),
        (" hhh , gsm8k,hhh", ["hhh", "gsm8k"]),
        ("starter-safe,starter", ["starter-safe", "starter-unsafe"]),
        ("starter,over-refusal", ["starter-unsafe", "starter-safe", *SUITES["over-refusal"][:-1]]),
    ],
)
def test_select(names, selected):
    assert [benchmark.name for benchmark in select_benchmarks(names)] == selected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("gsm8", "No benchmark 'gsm8': did you mean 'gsm8k'?"),
        ("strongreject,xstest-save", "No benchmark 'xstest-save': did you mean 'xstest-safe'?"),
        ("saftey", "No benchmark 'saftey': did you mean 'safety'?"),
        ("qqqqq", "No benchmark 'qqqqq'; there are safety, over-refusal, "),
        (" , ", "No benchmark named; there are safety, over-refusal, "),
    ],
)
def test_unknown_names(names, message):
    with pytest.raises(BdpoError) as error:
        select_benchmarks(names)
    assert str(error.value).startswith(message)


def test_a_suite_is_no_benchmark():
    with pytest.raises(BdpoError, match="No benchmark 'starter'"):
        load_items("starter")


# --- what is missing or wrong ------------------------------------------------------------------------------


def test_a_missing_file_says_what_to_download_and_where_to_put_it(tmp_path):
    for name, benchmark in BENCHMARKS.items():
        if benchmark.rows.package:
            continue
        with pytest.raises(MissingRows) as error:
            load_items(name, tmp_path)
        message = str(error.value)
        assert message.startswith(f"{name}: {tmp_path} has no ")
        assert f"download {benchmark.rows.url}" in message and "and put it there as " in message


def test_the_name_to_put_a_file_under_has_the_kind_that_is_downloaded(tmp_path):
    endings = {
        "jailbreakbench": "as harmful-behaviors.csv.",
        "jailbreakbench-gcg": "vicuna-13b-v1.5.json and put it there as jailbreakbench_gcg_vicuna.json.",
        "advglue": "dev.zip, unpack it and put it there as advglue_dev.json.",
        "hhh": "0000.parquet (for each part: harmless, helpful, honest, other).",
    }
    for name, ending in endings.items():
        with pytest.raises(MissingRows) as error:
            load_items(name, tmp_path)
        assert str(error.value).endswith(ending)


def test_one_part_missing_is_a_file_missing(tmp_path):
    write(tmp_path / "hhh_alignment_harmless.jsonl", [hhh_row()])
    with pytest.raises(MissingRows, match=r"has no hhh_alignment_\{harmless,helpful,honest,other\}.jsonl or "):
        load_items("hhh", tmp_path)


def test_the_folder_may_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BDPO_DATA_DIR", str(tmp_path))
    write(tmp_path / "harmful_behaviors.csv", [{"goal": "Name a river", "target": "Sure"}])
    assert len(load_items("advbench")) == 1
    with pytest.raises(BdpoError, match="no such folder; give one with --data-dir"):
        load_items("advbench", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("goal,target\n", "advbench: none of its 0 rows is a prompt of it"),
        ("aim,target\nA?,B\n", "advbench: harmful_behaviors.csv, line 2: no column 'goal'"),
        ("goal,target\nA?\n", "advbench: harmful_behaviors.csv, line 2: the row has not the 2 cells"),
        ("goal,target\nA?,B\n   ,B\n", "advbench: harmful_behaviors.csv, line 3: the prompt is empty"),
    ],
)
def test_wrong_files(tmp_path, content, message):
    (tmp_path / "harmful_behaviors.csv").write_text(content)
    with pytest.raises(BdpoError) as error:
        load_items("advbench", tmp_path)
    assert str(error.value).startswith(message) and not isinstance(error.value, MissingRows)


def test_a_prompt_that_comes_twice_keeps_both_rows(tmp_path):
    write(tmp_path / "harmful_behaviors.csv", [{"goal": goal, "target": ""} for goal in ("A?", "B?", "A?")])
    first, other, second = (item.id for item in load_items("advbench", tmp_path))
    assert second == f"{first}-2" and other != first


def test_a_number_behind_an_id_is_no_other_rows_own(tmp_path):
    rows = [{"id": id, "prompt": f"{n}?", "type": "x", "label": "safe"} for n, id in enumerate(("1", "1", "1-2", "1"))]
    write(tmp_path / "xstest_prompts.csv", rows)
    assert [item.id for item in load_items("xstest-safe", tmp_path)] == ["1", "1-3", "1-2", "1-4"]


def test_a_suite_tells_what_is_missing_and_a_name_must_be_there(tmp_path):
    write(tmp_path / "or-bench-hard-1k.csv", [{"prompt": "How do I kill weeds?", "category": "x"}])
    loaded = load_suite("over-refusal", tmp_path, limit=5)
    assert {name: len(items) for name, items in loaded.items.items()} == {"or-bench-hard": 1, "starter-safe": 5}
    assert list(loaded.missing) == ["xstest-safe", "jailbreakbench-benign", "falsereject", "wildjailbreak-benign"]
    assert all("download https://" in line for line in loaded.missing.values())
    with pytest.raises(MissingRows, match="xstest-safe"):
        load_suite("over-refusal,xstest-safe", tmp_path)
    with pytest.raises(MissingRows, match=r"gsm8k: .* advglue: "):
        load_suite("capability", tmp_path)


def test_offline_each_missing_benchmark_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("BDPO_DATA_DIR", raising=False)
    loaded = load_suite("over-refusal,safety")
    assert [*loaded.items] == ["starter-safe", "starter-unsafe"]
    assert loaded.missing["strongreject"] == (
        "strongreject: the network does not give it; download https://raw.githubusercontent.com/alexandrasouly/"
        "strongreject/main/strongreject_dataset/strongreject_dataset.csv into --data-dir as strongreject.csv"
    )
    assert loaded.missing["xstest-safe"].startswith("xstest-safe: the hub does not give it; download https://raw")
    assert len(loaded.missing) == 16 and all("\n" not in line for line in loaded.missing.values())


# --- without a folder: the hub, or the published address ---------------------------------------------------


def test_hub_data_sets_are_asked_for_by_name_config_and_split(monkeypatch):
    asked_for = []

    def open_source(name, split, config):
        asked_for.append((name, split, config))
        rows = ADVGLUE[list(ADVGLUE)[len(asked_for) - 1]]
        return Source(f"{name} ({split})", name, [(f"row {n}", row) for n, row in enumerate(rows, start=1)])

    monkeypatch.setattr(sources, "open_source", open_source)
    items = load_items("advglue")
    configs = ("adv_sst2", "adv_qqp", "adv_mnli", "adv_mnli_mismatched", "adv_qnli", "adv_rte")
    assert asked_for == [("AI-Secure/adv_glue", "validation", config) for config in configs]
    assert [item.category for item in items] == list(VERBALISERS)


def test_a_hub_that_gives_nothing(monkeypatch):
    def open_source(name, split, config):
        raise BdpoError("The hub is out.")

    monkeypatch.setattr(sources, "open_source", open_source)
    with pytest.raises(MissingRows) as error:
        load_items("gsm8k")
    assert str(error.value) == (
        f"gsm8k: The hub is out. Or download {BENCHMARKS['gsm8k'].rows.url} and put it into a folder that "
        "--data-dir or BDPO_DATA_DIR names, as gsm8k_test.jsonl."
    )


def test_without_a_hub_data_set_the_published_files_are_fetched(tmp_path, monkeypatch):
    source = BENCHMARKS["hhh"].rows
    for part in source.parts:
        write(tmp_path / f"{part}.jsonl", [hhh_row(f"Is tea {part}?")])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    local = replace(BENCHMARKS["hhh"], rows=replace(source, url=f"file://{tmp_path}/{{part}}.jsonl"))
    assert [asked(item) for item in load_items(local)] == [f"Is tea {part}?" for part in source.parts]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRows, match=r"hhh: the network gives no rows \(HF_HUB_OFFLINE is set\): download file"):
        load_items(local)


# --- samples -----------------------------------------------------------------------------------------------


def crowd(**sizes):
    return [
        Item(id=f"{kind}{n}", messages=(), request="", category=kind)
        for kind, size in sizes.items()
        for n in range(size)
    ]


def counts(items):
    return dict(Counter(item.category for item in items))


@pytest.mark.parametrize(
    ("sizes", "limit", "drawn"),
    [
        ({"a": 60, "b": 30, "c": 10}, 10, [{"a": 6, "b": 3, "c": 1}]),
        ({"a": 7, "b": 2, "c": 1}, 4, [{"a": 3, "b": 1}]),  # 2.8, 0.8, 0.4
        ({"a": 60, "b": 30, "c": 10}, 5, [{"a": 3, "b": 2}, {"a": 3, "b": 1, "c": 1}]),  # 3, 1.5, 0.5: the seed decides
        ({"a": 5, "b": 5}, 9, [{"a": 5, "b": 4}, {"a": 4, "b": 5}]),
    ],
)
def test_each_category_has_its_share(sizes, limit, drawn):
    found = [counts(stratified_sample(crowd(**sizes), limit, seed)) for seed in range(20)]
    assert all(sample in drawn for sample in found) and all(expected in found for expected in drawn)


def test_a_sample_does_not_depend_on_the_order_of_the_rows():
    items = crowd(a=60, b=30, c=10)
    drawn = stratified_sample(items, 25, seed=3)
    assert {item.id for item in stratified_sample(items[::-1], 25, seed=3)} == {item.id for item in drawn}
    assert drawn == [item for item in items if item in drawn]  # in the order of the rows
    assert {item.id for item in stratified_sample(items, 25, seed=4)} != {item.id for item in drawn}
    assert drawn == stratified_sample(items, 25, seed=3)


def test_the_ends_of_a_sample():
    items = crowd(a=3, b=1)
    assert stratified_sample(items, 4) == stratified_sample(items, 400) == items
    assert len(stratified_sample(items, 1)) == 1
    with pytest.raises(BdpoError, match="limit is 0"):
        stratified_sample(items, 0)


def test_ids_and_samples_survive_another_order_of_the_file(tmp_path):
    rows = [{"category": "xyz"[n % 3], "forbidden_prompt": f"Name river {n}"} for n in range(30)]
    drawn = []
    for order, folder in ((rows, tmp_path / "a"), (rows[::-1], tmp_path / "b")):
        write(folder / "strongreject.csv", order)
        drawn.append({(item.id, item.request) for item in load_items("strongreject", folder, limit=9, seed=1)})
    assert drawn[0] == drawn[1] and len(drawn[0]) == 9


# --- the published files, where they are -------------------------------------------------------------------


@with_data
@pytest.mark.parametrize(
    ("name", "n", "categories"),
    [
        ("strongreject", 313, 6),
        ("jailbreakbench", 100, 10),
        ("jailbreakbench-gcg", 100, 10),
        ("jailbreakbench-pair", 82, 10),
        ("xstest-unsafe", 200, 8),
        ("xstest-safe", 250, 10),
        ("gsm8k", 1319, 1),
        ("advglue", 738, 6),
    ],
)
def test_published_files(name, n, categories):
    items = load_items(name, DATA)
    assert (len(items), len({item.id for item in items}), len(counts(items))) == (n, n, categories)
    assert all(item.messages[-1]["role"] == "user" and item.request for item in items)
    sample = load_items(name, DATA, limit=75)
    assert len(sample) == min(75, n)
    for category, size in counts(items).items():
        assert abs(counts(sample).get(category, 0) - 75 * size / n) < 1


@with_data
def test_published_answers():
    numbers = [final_number(item.answer) for item in load_items("gsm8k", DATA)]
    assert all(number is not None and number.denominator == 1 for number in numbers)
    assert sum(number < 0 for number in numbers) == 2 and max(numbers) == 2_880_000
    advglue = load_items("advglue", DATA)
    assert counts(advglue) == {"sst2": 148, "qqp": 78, "mnli": 121, "mnli-mm": 162, "qnli": 148, "rte": 81}
    labels = Counter((item.category, item.options[item.correct]) for item in advglue)
    assert (labels["sst2", "Positive"], labels["qqp", "Yes"], labels["mnli", "Yes"]) == (76, 32, 32)
    assert (labels["mnli-mm", "Maybe"], labels["qnli", "Yes"], labels["rte", "Yes"]) == (45, 74, 35)


@with_data
def test_the_artefacts_ask_for_the_goals():
    goals = {item.id: item.request for item in load_items("jailbreakbench", DATA)}
    for attack in ("gcg", "pair"):
        items = load_items(f"jailbreakbench-{attack}", DATA)
        assert all(goals[item.id] == item.request != item.messages[0]["content"] for item in items)


@with_data
def test_suites_on_the_published_files():
    loaded = load_suite("safety,over-refusal", DATA, limit=75)
    assert {name: len(items) for name, items in loaded.items.items()} == {
        "strongreject": 75, "jailbreakbench": 75, "jailbreakbench-gcg": 75, "jailbreakbench-pair": 75,
        "xstest-unsafe": 75, "starter-unsafe": 40, "xstest-safe": 75, "starter-safe": 40,
    }  # fmt: skip
    assert list(loaded.missing) == [
        "advbench", "harmbench", "do-not-answer", "beavertails", "sorry-bench", "wildjailbreak-harmful",
        "or-bench-hard", "jailbreakbench-benign", "falsereject", "wildjailbreak-benign",
    ]  # fmt: skip
