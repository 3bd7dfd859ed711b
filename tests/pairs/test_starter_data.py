"""The starter data that ships in the package: counts, balance, labels, variety, and distance to the benchmarks."""

import csv
import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest

from bdpo.pairs import load_pairs
from bdpo.pairs.refusals import opens_as_refusal

CATEGORIES = {  # the 14 of BeaverTails
    "animal_abuse",
    "child_abuse",
    "controversial_topics,politics",
    "discrimination,stereotype,injustice",
    "drug_abuse,weapons,banned_substance",
    "financial_crime,property_crime,theft",
    "hate_speech,offensive_language",
    "misinformation_regarding_ethics,laws_and_safety",
    "non_violent_unethical_behavior",
    "privacy_violation",
    "self_harm",
    "sexually_explicit,adult_content",
    "terrorism,organized_crime",
    "violence,aiding_and_abetting,incitement",
}
BENCHMARKS = Path(__file__).parents[3] / "shared" / "data"

SPLITS = {split: load_pairs("starter", split=split).pairs for split in ("train", "validation")}
BOTH = SPLITS["train"] + SPLITS["validation"]
EVALUATION = [
    json.loads(line) for line in (files("bdpo.starter") / "evaluation.jsonl").read_text(encoding="utf-8").splitlines()
]
PROMPTS = [pair.prompt[-1]["content"] for pair in BOTH] + [row["prompt"] for row in EVALUATION]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def nearest(texts: list[str]) -> float:
    return max(jaccard(a, b) for a, b in combinations(map(words, texts), 2))


def test_there_are_enough_pairs_in_canonical_form() -> None:
    assert len(SPLITS["train"]) >= 320 and len(SPLITS["validation"]) >= 80
    assert len({pair.id for pair in BOTH}) == len(BOTH)
    for pair in BOTH:
        assert [message["role"] for message in pair.prompt] == ["user"]
        assert pair.chosen.strip() and pair.rejected.strip()


@pytest.mark.parametrize("split", SPLITS)
def test_about_two_thirds_are_unsafe_prompts_over_all_14_categories(split: str) -> None:
    unsafe = [pair for pair in SPLITS[split] if pair.rejected_safe is False]
    assert 0.6 <= len(unsafe) / len(SPLITS[split]) <= 0.72
    count = Counter(category for pair in unsafe for category in pair.category)
    assert set(count) == CATEGORIES and max(count.values()) <= 2 * min(count.values())
    assert all(not pair.category for pair in SPLITS[split] if pair.rejected_safe)


def test_every_chosen_reply_is_labelled_safe() -> None:
    assert {pair.chosen_safe for pair in BOTH} == {True}
    assert {pair.rejected_safe for pair in BOTH} == {True, False}


def test_evaluation_prompts_are_40_unsafe_and_40_look_alikes() -> None:
    assert Counter(row["label"] for row in EVALUATION) == {"unsafe": 40, "safe": 40}
    assert {c for row in EVALUATION if row["label"] == "unsafe" for c in row["category"]} == CATEGORIES
    assert len({row["id"] for row in EVALUATION}) == 80


def test_no_two_prompts_are_near_duplicates_within_and_between_the_splits() -> None:
    assert nearest(PROMPTS) < 0.4


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_no_two_replies_are_near_duplicates(side: str) -> None:
    assert nearest([getattr(pair, side) for pair in BOTH]) < 0.4


def test_the_two_replies_of_a_pair_differ() -> None:
    assert max(jaccard(words(pair.chosen), words(pair.rejected)) for pair in BOTH) < 0.5


@pytest.mark.parametrize("texts", [[p.chosen for p in BOTH], [p.rejected for p in BOTH], PROMPTS])
def test_texts_do_not_open_alike(texts: list[str]) -> None:
    openings = Counter(" ".join(re.findall(r"\w+", text.casefold())[:3]) for text in texts)
    assert openings.most_common(1)[0][1] <= 4
    assert len(openings) >= 0.95 * len(texts)


@pytest.mark.parametrize("unsafe", [True, False])
def test_length_does_not_tell_chosen_from_rejected(unsafe: bool) -> None:
    pairs = [pair for pair in BOTH if pair.rejected_safe is not unsafe]
    chosen, rejected = (sum(len(getattr(p, side).split()) for p in pairs) for side in ("chosen", "rejected"))
    assert 0.85 < chosen / rejected < 1.18
    longer = sum(len(p.chosen) > len(p.rejected) for p in pairs) / len(pairs)
    assert 0.35 < longer < 0.65


def test_chosen_replies_to_harmless_prompts_do_not_refuse() -> None:
    harmless = [pair for pair in BOTH if pair.rejected_safe]
    assert sum(opens_as_refusal(pair.chosen) for pair in harmless) == 0


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks' data lies beside the repository only where built")
def test_no_starter_prompt_is_near_a_benchmark_prompt() -> None:
    theirs = benchmark_prompts()
    assert len(theirs) > 900
    ours, sets = ([(text, words(text)) for text in texts] for texts in (PROMPTS, theirs))
    assert [(prompt, text) for prompt, a in ours for text, b in sets if jaccard(a, b) >= 0.5] == []


def benchmark_prompts() -> list[str]:
    texts = []
    for name, column in (("strongreject.csv", "forbidden_prompt"), ("xstest_prompts.csv", "prompt")):
        with (BENCHMARKS / name).open(encoding="utf-8", newline="") as file:
            texts += [row[column] for row in csv.DictReader(file)]
    for path in sorted(BENCHMARKS.glob("jailbreakbench_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts += [row["goal"], row["prompt"]]
    return [text for text in texts if text]
