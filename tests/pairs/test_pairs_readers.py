"""The pair formats: rows as the field writes them -> exact pairs, drops and faults."""

import gzip
import json
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, load_pairs, pairs_from_rows

HH = Path(__file__).parents[3] / "shared" / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


# --- canonical -------------------------------------------------------------------------------------------


def test_canonical_row_keeps_every_field():
    row = {
        "id": "tea-1",
        "prompt": [{"role": "system", "content": "Be brief."}, user("How long does green tea draw?")],
        "chosen": "Two minutes.",
        "rejected": "An hour.",
        "chosen_safe": True,
        "rejected_safe": False,
        "category": ["kitchen", "time"],
        "source": "tea house",
        "annotator": "not ours",
    }
    loaded = pairs_from_rows([row])
    assert loaded.format == "canonical"
    assert loaded.pairs == [
        PreferencePair(
            id="tea-1",
            prompt=({"role": "system", "content": "Be brief."}, user("How long does green tea draw?")),
            chosen="Two minutes.",
            rejected="An hour.",
            chosen_safe=True,
            rejected_safe=False,
            category=("kitchen", "time"),
            source="tea house",
        )
    ]
    assert (loaded.n_rows, loaded.counts, loaded.errors) == (1, {}, [])


def test_missing_ids_are_made_from_the_row_and_labels_stay_open():
    rows = [
        {"prompt": "Two and two is", "chosen": " four", "rejected": " five"},
        {"prompt": "Up is", "chosen": "", "rejected": "x"},
    ]
    pairs = pairs_from_rows(rows, source="sums").pairs
    assert [pair.id for pair in pairs] == ["row-1", "row-2"]
    assert pairs[0] == PreferencePair("row-1", "Two and two is", " four", " five", None, None, (), "sums")


def test_numeric_ids_and_a_single_category_are_taken_as_text():
    row = {"id": 7, "prompt": "Hi", "chosen": "a", "rejected": "b", "category": "greeting", "chosen_safe": "false"}
    pair = pairs_from_rows([row]).pairs[0]
    assert (pair.id, pair.category, pair.chosen_safe) == ("7", ("greeting",), False)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "Hi", "chosen": "a"}, r"no column 'rejected' \(the columns are 'prompt', 'chosen'\)"),
        ({"chosen": "I do", "rejected": "I don't", "chosen_safe": True}, "no column 'prompt'"),
        ({"prompt": "Hi", "chosen": 3, "rejected": "b"}, "'chosen' is int, and must be text"),
        ({"prompt": "Hi", "chosen": None, "rejected": "b"}, "'chosen' is null"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "'prompt' is empty"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "'prompt' is an empty list"),
        ({"prompt": [assistant("Hi")], "chosen": "a", "rejected": "b"}, "last message of 'prompt' is the assistant's"),
        (
            {"prompt": [{"role": "tool", "content": "x"}], "chosen": "a", "rejected": "b"},
            "message 1 of 'prompt' needs a role",
        ),
        ({"prompt": [user(["image"])], "chosen": "a", "rejected": "b"}, "content of message 1 of 'prompt' is list"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_safe": "maybe"}, "'chosen_safe' is 'maybe'"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "category": {"x": 1}}, "'category' is dict"),
        ({"prompt": "Hi", "chosen": "a\ud83d", "rejected": "b"}, "half a character"),
        (["not", "a", "row"], "a list, not an object"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(row, fault):
    with pytest.raises(BdpoError, match=f"rows, row 1: .*{fault}"):
        pairs_from_rows([row], format="canonical")


def test_collect_lists_wrong_rows_and_keeps_the_rest():
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    loaded = pairs_from_rows([good, {"prompt": "Hi", "chosen": "a"}, {**good, "id": "row-1"}], on_error="collect")
    assert [pair.id for pair in loaded.pairs] == ["row-1"]
    assert loaded.n_rows == 3
    assert loaded.errors == [
        "rows, row 2: no column 'rejected' (the columns are 'prompt', 'chosen'): add it, or rename the one meant.",
        "rows, row 3: the id 'row-1' stands on row 1 already: make ids unique.",
    ]


def test_unknown_columns_and_formats_are_told():
    with pytest.raises(BdpoError, match="no known pair format has the columns 'question', 'answer'"):
        pairs_from_rows([{"question": "a", "answer": "b"}])
    with pytest.raises(BdpoError, match=r"unknown format 'dpo': choose one of pku, helpsteer, hh, .*canonical, trl"):
        pairs_from_rows([{"prompt": "a", "chosen": "b", "rejected": "c"}], format="dpo")
    with pytest.raises(BdpoError, match="prefer is for PKU-SafeRLHF"):
        pairs_from_rows([{"prompt": "a", "chosen": "b", "rejected": "c"}], prefer="safer")
    with pytest.raises(BdpoError, match="it has no rows"):
        pairs_from_rows([])


def test_pairs_in_memory_come_through_as_they_are():
    pair = PreferencePair("p", (user("Hi"),), "a", "b", True, False, ("x",), "s")
    assert pairs_from_rows([pair]).pairs == [pair]


# --- TRL's four shapes -----------------------------------------------------------------------------------

SKY = user("What colour is the sky?")
TRL_SHAPES = {
    "explicit standard": (
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        ("The sky is", " blue.", " green."),
    ),
    "implicit standard": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        ("The sky is", " blue.", " green."),
    ),
    "explicit conversational": (
        {"prompt": [SKY], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]},
        ((SKY,), "Blue.", "Green."),
    ),
    "implicit conversational": (
        {"chosen": [SKY, assistant("Blue.")], "rejected": [SKY, assistant("Green.")]},
        ((SKY,), "Blue.", "Green."),
    ),
    "text prompt beside whole conversations": (
        {"prompt": SKY["content"], "chosen": [SKY, assistant("Blue.")], "rejected": [SKY, assistant("Green.")]},
        ((SKY,), "Blue.", "Green."),
    ),
}


@pytest.mark.parametrize("shape", TRL_SHAPES)
@pytest.mark.parametrize("as_json_text", [False, True])  # CSV holds messages as JSON text
def test_trl_shapes(shape, as_json_text):
    row, expected = TRL_SHAPES[shape]
    if as_json_text:
        row = {name: cell if isinstance(cell, str) else json.dumps(cell) for name, cell in row.items()}
    for asked in (None, "trl"):
        pair = pairs_from_rows([row], format=asked).pairs[0]
        assert (pair.prompt, pair.chosen, pair.rejected) == expected


IMPLICIT = [
    ("Tea or coffee? Tea.", "Tea or coffee? Coffee."),
    ("one two", "one  two"),
    ("abc", "abcd"),
    ("same text", "same text"),
    ("Well, I think so", "Well, I think not"),
    (
        [SKY, assistant("Blue."), user("Why?"), assistant("Light.")],
        [SKY, assistant("Blue."), user("Why?"), assistant("Air.")],
    ),
    ([SKY, assistant("Blue.")], [SKY, assistant("Blue.")]),
]


@pytest.mark.parametrize(("chosen", "rejected"), IMPLICIT)
def test_implicit_prompts_are_cut_where_trl_cuts_them(chosen, rejected):
    trl = pytest.importorskip("trl.data_utils")
    theirs = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
    pair = pairs_from_rows([{"chosen": chosen, "rejected": rejected}], format="trl").pairs[0]
    if isinstance(chosen, str):
        assert {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} == theirs
    else:
        assert list(pair.prompt) == theirs["prompt"]
        assert ([assistant(pair.chosen)], [assistant(pair.rejected)]) == (theirs["chosen"], theirs["rejected"])


def test_trl_rows_without_a_common_prompt_or_a_single_reply_are_dropped_and_counted():
    rows = [
        {"chosen": [SKY, assistant("Blue.")], "rejected": [SKY, assistant("Green.")]},
        {"chosen": [user("Hi"), assistant("a")], "rejected": [user("Ho"), assistant("a")]},
        {
            "chosen": [SKY, assistant("Blue."), user("Sure?"), assistant("Yes.")],
            "rejected": [SKY, assistant("Green.")],
        },
    ]
    loaded = pairs_from_rows(rows)
    assert (loaded.format, [pair.id for pair in loaded.pairs]) == ("trl", ["row-1"])
    assert loaded.counts == {
        "dropped: chosen and rejected share no prompt": 1,
        "dropped: chosen or rejected is more than one assistant message after the prompt": 1,
    }
    with pytest.raises(BdpoError, match="none of its 1 rows gives a pair"):
        pairs_from_rows(rows[1:2])


def test_replies_that_look_like_lists_stay_text_and_python_lists_are_told():
    row = {"prompt": "List two colours as JSON", "chosen": '["red", "blue"]', "rejected": "[1]"}
    assert pairs_from_rows([row], format="trl").pairs[0].chosen == '["red", "blue"]'
    row = {"chosen": str([SKY, assistant("Blue.")]), "rejected": str([SKY, assistant("Green.")])}
    with pytest.raises(BdpoError, match="'chosen' is a list of messages in Python's notation"):
        pairs_from_rows([row])


def test_datasets_in_memory():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([TRL_SHAPES["implicit conversational"][0]] * 2).with_format("numpy")
    pairs = pairs_from_rows(data).pairs
    assert [pair.id for pair in pairs] == ["row-1", "row-2"]
    assert pairs[0].prompt == (SKY,) and pairs[0].chosen == "Blue."


# --- Anthropic HH-RLHF -----------------------------------------------------------------------------------


def hh(*turns, last):
    return "".join(f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {turn}" for i, turn in enumerate((*turns, last)))


def test_hh_transcripts():
    turns = ("Can cats swim?", "Some like to.", "Which ones?")
    row = {"chosen": hh(*turns, last="The Turkish Van."), "rejected": hh(*turns, last="None.\n\nReally none. ")}
    loaded = pairs_from_rows([row])
    assert loaded.format == "hh"
    pair = loaded.pairs[0]
    assert pair.prompt == (user("Can cats swim?"), assistant("Some like to."), user("Which ones?"))
    assert (pair.chosen, pair.rejected) == ("The Turkish Van.", "None.\n\nReally none.")


@pytest.mark.parametrize("strip", [False, True], ids=["as published", "stripped"])
def test_hh_transcripts_with_one_human_turn(strip):
    row = {"chosen": hh("Can cats swim?", last="Some."), "rejected": hh("Can cats swim?", last="No.")}
    loaded = pairs_from_rows([{key: text.strip() if strip else text for key, text in row.items()}])
    (pair,) = loaded.pairs
    assert (loaded.format, pair.prompt, pair.chosen, pair.rejected) == ("hh", (user("Can cats swim?"),), "Some.", "No.")


def test_what_is_no_text_drops_its_row_and_is_counted():
    sound = {"prompt": [user("Hi")], "chosen": "Hello.", "rejected": "Go away."}
    calls = {**assistant("Let me look."), "tool_calls": [{"type": "function"}]}
    rows = [
        {**sound, "images": [], "tools": None},
        {**sound, "images": ["cat.png"]},
        {**sound, "tools": '[{"name": "search"}]'},
        {**sound, "prompt": [user("Hi"), calls, user("And?")]},
    ]
    loaded = pairs_from_rows(rows)
    assert [pair.id for pair in loaded.pairs] == ["row-1"]
    because = "belongs to the conversation and is no text, so it cannot be read"
    assert loaded.counts == {f"dropped: '{key}' {because}": 1 for key in ("images", "tools", "tool_calls")}


def test_hh_rows_that_are_no_pairs_are_dropped_by_reason():
    good = {"chosen": hh("Hi", last="Hello"), "rejected": hh("Hi", last="Go away")}
    rows = [
        good,
        {**good, "rejected": hh("Ho", last="Hello")},  # another prompt
        {**good, "rejected": hh("Hi", "Hello", "Ho", last="Hello")},  # a longer one
        {**good, "rejected": hh("Hi", last=" ")},
        {**good, "chosen": good["chosen"] + "\n\nAssistant: And again"},  # two Assistant turns on end
        {**good, "chosen": hh("Hi", "Hello", last="Ends with the human")},
        {**good, "chosen": "Preface" + good["chosen"]},
        {"chosen": hh("", last="Hello"), "rejected": hh("", last="Go away")},
    ]
    loaded = pairs_from_rows(rows)
    assert [pair.id for pair in loaded.pairs] == ["row-1"]
    assert loaded.counts == {
        "dropped: the transcripts differ before the last turn": 2,
        "dropped: the last Assistant turn is empty": 1,
        "dropped: the turns do not alternate from Human to Assistant": 3,
        "dropped: a turn before the last is empty": 1,
    }
    assert pairs_from_rows(rows[4:5] + rows[:1]).format == "hh"  # also where the first row is a broken one


def slow_turns(transcript):
    """(H or A, text) for each turn of an HH transcript, found another way than the reader does."""
    chunks = transcript.replace("\n\nHuman:", "\0H").replace("\n\nAssistant:", "\0A").split("\0")
    return [(chunk[0], chunk[1:].strip()) for chunk in chunks[1:]]


@pytest.mark.skipif(not HH.exists(), reason="the HH-RLHF file is not here")
def test_hh_file_whole():
    loaded = load_pairs(HH)
    assert (loaded.format, loaded.n_rows, len(loaded.pairs), loaded.errors) == ("hh", 2312, 2299, [])
    assert loaded.counts == {
        "dropped: the last Assistant turn is empty": 4,
        "dropped: the turns do not alternate from Human to Assistant": 9,
    }
    by_id = {pair.id: pair for pair in loaded.pairs}
    lines = gzip.decompress(HH.read_bytes()).decode().strip().split("\n")
    for number, row in enumerate(map(json.loads, lines), start=1):
        chosen, rejected = slow_turns(row["chosen"]), slow_turns(row["rejected"])
        letters = ["".join(letter for letter, _ in turns) for turns in (chosen, rejected)]
        alternate = letters[0] == letters[1] == "HA" * (len(chosen) // 2)
        usable = alternate and chosen[-1][1] != "" != rejected[-1][1]
        assert usable == (f"line-{number}" in by_id), number
        if usable:
            pair = by_id.pop(f"line-{number}")
            assert [turn["content"] for turn in pair.prompt] == [text for _, text in chosen[:-1]]
            assert chosen[:-1] == rejected[:-1]
            assert (pair.chosen, pair.rejected) == (chosen[-1][1], rejected[-1][1])
    assert not by_id
