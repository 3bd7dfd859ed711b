"""The data check: each finding on data made for it, the report, control tokens, overlap and refusals."""

import doctest
import importlib
import io
import json
import random

import pytest
from rich.console import Console

from bdpo.pairs import (
    LoadedPairs,
    PreferencePair,
    check_pairs,
    control_tokens,
    load_pairs,
    pairs_from_rows,
    strip_control_tokens,
)
from bdpo.pairs.overlap import near_matches, normalised
from bdpo.pairs.refusals import opens_as_refusal

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}{# <think> <b>7 #}"
)


@pytest.fixture(scope="module")
def tokenizer():
    """A token a word; <|im_start|> and <|im_end|> special, <think> only in the template, <b> and 7 just added."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("<html>", special=False)])
    made.add_tokens([AddedToken("\n\n", special=False), AddedToken("7", special=False)])
    made.chat_template = CHATML
    return made


def pair(name, prompt="Is it raining?", chosen="Take an umbrella.", rejected="No idea, sorry.", **labels):
    return PreferencePair(name, ({"role": "user", "content": prompt},), chosen, rejected, **labels)


def loaded(*pairs):
    return LoadedPairs(list(pairs), source="test", format="canonical", n_rows=len(pairs))


def found(report):
    """{name: (severity, count, examples)} of all that is not a statistic on good data."""
    statistics = ("refusals", "length_bias", "boilerplate")
    return {f.name: (f.severity, f.count, f.examples) for f in report.findings if f.name not in statistics}


# --- findings --------------------------------------------------------------------------------------------


def test_good_data_passes():
    pairs = [pair(f"p{i}", f"Question number {i}?", chosen_safe=True, rejected_safe=i % 2 == 0) for i in range(4)]
    report = check_pairs(loaded(*pairs))
    assert not report.has_errors and found(report) == {}
    assert [finding.severity for finding in report.findings] == ["info", "info", "info"]
    assert report.passed == [
        "schema_errors", "mixed_prompts", "empty_responses", "identical_responses", "duplicate_pairs",
        "duplicate_prompts", "conflicting_labels", "unsafe_chosen", "both_unsafe",
    ]  # fmt: skip
    assert report.skipped == {
        "control_tokens_in_text": "tokenizer",
        "plain_text_marks": "tokenizer",
        "refused_by_template": "tokenizer",
        "text_prompts": "tokenizer",
        "over_max_length": "max_length",
        "overlap": "against",
        "near_overlap": "against",
    }


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([pair("a", chosen=" "), pair("b", "other")], {"empty_responses": ("error", 1, ["a"])}),
        ([pair("a", chosen="Same. ", rejected="Same.")], {"identical_responses": ("error", 1, ["a"])}),
        ([pair("a", chosen="", rejected=" ")], {"empty_responses": ("error", 1, ["a"])}),
        ([pair("a"), pair("b", "is it  RAINING")], {"duplicate_pairs": ("warning", 1, ["b"])}),
        ([pair("a"), pair("b", chosen="Look out of the window.")], {"duplicate_prompts": ("info", 1, ["b"])}),
        (
            [pair("a", chosen="x", rejected="y"), pair("b", chosen="y", rejected="x")],
            {"conflicting_labels": ("error", 2, ["a", "b"]), "duplicate_prompts": ("info", 1, ["b"])},
        ),
        ([pair("a", chosen_safe=False, rejected_safe=True)], {"unsafe_chosen": ("error", 1, ["a"])}),
        ([pair("a", chosen_safe=False)], {"unsafe_chosen": ("error", 1, ["a"])}),
        ([pair("a", chosen_safe=False, rejected_safe=False)], {"both_unsafe": ("warning", 1, ["a"])}),
        ([pair("a"), PreferencePair("b", "Plain", "x", "y z")], {"mixed_prompts": ("error", 1, ["b"])}),
        ([PreferencePair("b", "Plain", "x", "y z")], {}),
    ],
)
def test_findings(pairs, expected):
    report = check_pairs(loaded(*pairs))
    assert found(report) == expected
    assert report.has_errors == any(severity == "error" for severity, _, _ in expected.values())


def test_schema_errors_show_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a"}\nnonsense\n')
    report = check_pairs(load_pairs(path, on_error="collect"))
    severity, count, examples = found(report)["schema_errors"]
    assert (severity, count, report.n_rows, report.n_pairs) == ("error", 2, 3, 1)
    assert [example.split(":")[0] for example in examples] == [f"{path}, line 2", f"{path}, line 3"]


def test_errors_come_first_and_examples_are_few():
    pairs = [pair(f"p{i}", f"q{i}", chosen_safe=False, rejected_safe=i > 2) for i in range(12)]
    report = check_pairs(loaded(*pairs))
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert found(report)["unsafe_chosen"] == ("error", 9, ["p3", "p4", "p5", "p6", "p7"])


def test_no_pairs_at_all_are_only_their_errors():
    report = check_pairs(LoadedPairs([], "x", "canonical", 1, errors=["x, line 1: broken"]))
    assert [finding.name for finding in report.findings] == ["schema_errors"]


def test_length_bias_counts_words_or_tokens(tokenizer):
    long = [pair(f"l{i}", f"q{i}", "one two three four", "one two") for i in range(8)]
    short = [pair(f"s{i}", f"r{i}", "one", "one two") for i in range(2)]
    even = [pair("e", "s", "one", "two")]
    (finding,) = [f for f in check_pairs(loaded(*long, *short, *even)).findings if f.name == "length_bias"]
    assert (finding.severity, finding.count) == ("warning", 8)  # 8 of 10 pairs that differ
    assert "Chosen replies have 3.2 words on average, rejected ones 1.9" in finding.explanation
    assert "longer in 80%" in finding.explanation
    (finding,) = [
        f for f in check_pairs(loaded(*long[:2], *short), tokenizer=tokenizer).findings if f.name == "length_bias"
    ]
    assert finding.severity == "info" and "2.5 tokens" in finding.explanation


def test_refusals_are_shared_out_by_side():
    refusal = "I'm sorry, but I can't help with that."
    pairs = [pair(f"p{i}", f"q{i}", refusal if i < 3 else "Sure.", refusal if i == 3 else "Yes.") for i in range(4)]
    (finding,) = [f for f in check_pairs(loaded(*pairs)).findings if f.name == "refusals"]
    assert (finding.severity, finding.count) == ("info", 4)
    assert "75% of the chosen and 25% of the rejected" in finding.explanation
    (finding,) = [f for f in check_pairs(loaded(*pairs[:3])).findings if f.name == "refusals"]
    assert (finding.severity, finding.count) == ("warning", 3) and "100% of the chosen and 0%" in finding.explanation


def boilerplate(*chosen):
    found = check_pairs(loaded(*(pair(f"p{i}", f"q{i}", text) for i, text in enumerate(chosen)))).findings
    return next(((f.severity, f.count, f.explanation) for f in found if f.name == "boilerplate"), None)


def test_boilerplate_is_the_most_frequent_openings_and_their_share():
    stock = ["I'm sorry, but I can't help with that.", "I’m sorry but I can't do it", "I´M SORRY, BUT I CAN`T."]
    said = 'openings of the chosen replies (5 words): "i\'m sorry but i can\'t" 37.5%, "sure" 25.0%.'
    others = ["Sure!", "Sure.", "Take the first road on the left.", "Take the first road at the right.", "No."]
    severity, count, explanation = boilerplate(*stock, *others)
    assert (severity, count) == ("info", 3) and explanation.endswith(said)
    assert boilerplate("Sure!", "No.", "", "") is None
    many = [f"Answer {i}, for all that I know of it." for i in range(40)]
    severity, count, explanation = boilerplate(*stock * 4, *many)
    assert (severity, count) == ("warning", 12) and "23.1%" in explanation and "refuse harmless" in explanation
    assert boilerplate(*stock * 3, *many[:9])[0] == "info"


def test_max_length_is_prompt_and_longer_reply(tokenizer):
    # ChatML here: <|im_start|> user a b <|im_end|> <|im_start|> assistant c d e <|im_end|> = 11 tokens
    pairs = [pair("a", "a b", "c", "c d e"), pair("b", "a b", "c d", "c")]
    assert "over_max_length" not in found(check_pairs(loaded(*pairs), tokenizer=tokenizer, max_length=11))
    report = check_pairs(loaded(*pairs), tokenizer=tokenizer, max_length=10)
    assert found(report)["over_max_length"] == ("warning", 1, ["a"])
    assert check_pairs(loaded(*pairs), max_length=10).skipped["over_max_length"] == "tokenizer"
    plain = loaded(PreferencePair("p", "a b ", "c d", "c"))
    assert "over_max_length" in found(check_pairs(plain, tokenizer=tokenizer, max_length=3))
    assert "over_max_length" not in found(check_pairs(plain, tokenizer=tokenizer, max_length=4))


# --- control tokens --------------------------------------------------------------------------------------


def test_control_tokens_are_special_or_of_the_template(tokenizer):
    assert control_tokens(tokenizer) == ("<|im_start|>", "<|im_end|>", "<think>", "<eos>", "<unk>")


def test_control_tokens_in_text_are_an_error(tokenizer):
    pairs = [
        pair("a", "Close<|im_end|>it"),
        pair("b", "q2", rejected="I <think> so"),
        pair("c", "q3", "Bold <b> and <html> are just text"),
        PreferencePair("d", ({"role": "system", "content": "<eos>"}, {"role": "user", "content": "q"}), "x", "y"),
    ]
    report = check_pairs(loaded(*pairs), tokenizer=tokenizer)
    expected = ["a <|im_end|>", "b <think>", "d <eos>"]
    assert found(report)["control_tokens_in_text"] == ("error", 3, expected)


def test_stripping_leaves_none_behind(tokenizer):
    tokens = control_tokens(tokenizer)
    nested = "<|im_<|im_end|>end|>" * 2 + "<th<eos>ink>"
    dirty = pair("a", f"x{nested}y", f"<|im_start|>{nested}", "clean 7\n\n<html>")
    clean = strip_control_tokens(dirty, tokens)
    assert (clean.prompt[0], clean.chosen, clean.rejected) == (
        {"role": "user", "content": "xy"},
        "",
        "clean 7\n\n<html>",
    )
    assert strip_control_tokens(PreferencePair("p", "a<eos>b", "c", "d"), tokens).prompt == "ab"
    assert strip_control_tokens(dirty, ()) == dirty == strip_control_tokens(dirty, ("",))


def test_stripping_any_mixture_leaves_none_behind():
    draw = random.Random(0)
    tokens = ("<s>", "</s>", "<ss>", "s>s")
    for _ in range(300):
        text = "".join(draw.choice(["<", "s", ">", "/", "<s>"]) for _ in range(30))
        clean = strip_control_tokens(PreferencePair("p", "q", text, "r"), tokens).chosen
        assert not any(token in clean for token in tokens)


def test_loading_strips_and_counts(tokenizer):
    rows = [
        {"prompt": "Say<eos> hi", "chosen": "hi", "rejected": "ho"},
        {"prompt": "Say ho", "chosen": "ho", "rejected": "hi"},
    ]
    data = pairs_from_rows(rows, strip_control_tokens=control_tokens(tokenizer))
    assert [p.prompt for p in data.pairs] == ["Say hi", "Say ho"]
    assert data.counts == {"changed: control tokens stripped": 1}


# --- overlap ---------------------------------------------------------------------------------------------


def test_overlap_with_another_data_set():
    asked = "How many tiles do I need for a kitchen floor of three by four metres in all"
    data = loaded(
        pair("same", "what is   the capital of peru"),
        pair("near", asked + " please"),
        pair("new", "Tell me a story about a lighthouse keeper."),
    )
    other = LoadedPairs(
        [pair("t1", asked + "?"), pair("t2", "What is the capital of Peru?")], "held-out", "canonical", 2
    )
    report = check_pairs(data, against=other)
    assert found(report)["overlap"] == ("error", 1, ["same = t2"])
    assert found(report)["near_overlap"] == ("warning", 1, ["near ~ t1"])
    assert "held-out" in report.findings[0].explanation


def test_a_common_system_message_is_no_overlap():
    system = {"role": "system", "content": "You are a patient assistant who answers in one short sentence. " * 3}
    one = PreferencePair("a", (system, {"role": "user", "content": "Why is the sea salty?"}), "x", "y")
    two = PreferencePair("b", (system, {"role": "user", "content": "Who painted it?"}), "x", "y")
    report = check_pairs(loaded(one), against=loaded(two))
    assert {"overlap", "near_overlap"} <= set(report.passed)


def test_normalised_text():
    assert normalised("  Ｗhat\tIs 3+4?! ") == "what is 3+4"
    assert normalised("What is 3-4?") != normalised("What is 3+4?")
    assert normalised("?!") == "?!"


def test_near_matches_are_all_that_brute_force_finds():
    draw = random.Random(1)
    words = [f"w{i}" for i in range(12)]

    def text():
        return " ".join(draw.choice(words) for _ in range(draw.randint(0, 9)))

    def varied(original):
        parts = original.split()
        if parts:
            parts[draw.randrange(len(parts))] = draw.choice(words)
        return " ".join(parts)

    def similarity(a, b):
        sets = []
        for t in (a, b):
            parts = t.split()
            sets.append({tuple(parts[i : i + 2]) for i in range(len(parts) - 1)} or set(parts))
        union = len(sets[0] | sets[1])
        return len(sets[0] & sets[1]) / union if union else 0.0

    others = [text() for _ in range(200)]
    texts = [varied(draw.choice(others)) for _ in range(200)]
    for threshold in (0.4, 0.5, 0.7, 1.0):
        expected = {}
        for i, t in enumerate(texts):
            best = max(range(len(others)), key=lambda j: similarity(t, others[j]))
            if similarity(t, others[best]) >= threshold:
                expected[i] = best
        assert near_matches(texts, others, threshold) == expected
        assert expected


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "I can't help with that.",
        "I’m sorry, but I can’t assist with this request.",
        "I´m sorry, but I can´t assist with this request.",
        "I`m sorry, I can`t do that.",
        "I&#39;m sorry, but I can&#39;t help.",
        "I can\u02bct help with that.",
        "I\u00a0cant help you with that.",
        "Sorry, I won't write that for you.",
        "I am unable to provide instructions for this.",
        "That's not something I can support.",
        "I must decline. Let's talk about something else.",
        "Oh dear. I'd rather not get into that.",
        "As an AI, I will not engage in that.",
    ],
)
def test_refusals(reply):
    assert opens_as_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I'm sorry to hear that. What happened?",
        "Sure! First, you can't forget the salt.",
        "I can help you with that.",
        "I can't believe how good this soup is!",
        "Sorry, I didn't understand the question.",
        "Mix flour and water. " * 20 + "I can't help with more.",
    ],
)
def test_no_refusals(reply):
    assert not opens_as_refusal(reply)


@pytest.mark.parametrize("module", ["control", "overlap", "refusals"])
def test_examples_in_docstrings(module):
    failed, tried = doctest.testmod(importlib.import_module(f"bdpo.pairs.{module}"))
    assert failed == 0 < tried


# --- the report ------------------------------------------------------------------------------------------


def test_the_report_is_json_and_fits_80_columns(tokenizer):
    data = loaded(
        pair("a[bold]", chosen="Same", rejected="Same"), pair("b", "q", chosen_safe=False), pair("c", "r <eos>")
    )
    data.counts = {"dropped: the last Assistant turn is empty": 4}
    report = check_pairs(data, tokenizer=tokenizer)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["has_errors"] is True and plain["counts"] == data.counts
    assert [finding["name"] for finding in plain["findings"]][:3] == [
        "identical_responses", "control_tokens_in_text", "unsafe_chosen",
    ]  # fmt: skip
    assert set(plain["findings"][0]) == {"name", "severity", "count", "examples", "explanation"}

    out = io.StringIO()
    report.render(Console(file=out, width=80, force_terminal=False))
    lines = out.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert lines[0] == "test (canonical): 3 pairs of 3 rows"
    assert lines[1] == "  4 rows dropped: the last Assistant turn is empty"
    assert "a[bold]" in out.getvalue() and "identical" in out.getvalue()
    assert "Nothing found: schema errors, mixed prompts" in out.getvalue()
    assert "overlap (needs against)" in out.getvalue().replace("\n", " ")
