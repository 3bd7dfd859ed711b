"""Prompts in columns of other names: the well-known column sets, the mapping, and what is refused unread."""

import doctest
import importlib
import json

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import PreferencePair, pairs_from_rows
from bdpo.pairs.columns import likely_mapping

C, R = "The answer is 4.", "The answer is 5."
REPLIES = {"chosen": C, "rejected": R}


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def from_value(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


ASKED = said("user", "What is 2 + 2?")
SYSTEM = said("system", "Be brief.")
WHOLE = {"chosen": [ASKED, said("assistant", C)], "rejected": [ASKED, said("assistant", R)]}

COLUMN_SETS = {
    "Intel's Orca pairs": (
        {"system": "Be brief.", "question": "What is 2 + 2?", **REPLIES},
        "orca", (SYSTEM, ASKED),
    ),
    "Orca pairs without a system text": ({"system": "", "question": "What is 2 + 2?", **REPLIES}, "orca", (ASKED,)),
    "argilla's Orca pairs": (
        {"system": "Be brief.", "input": "What is 2 + 2?", **REPLIES, "generations": [C, R], "order": ["a", "b"]},
        "orca", (SYSTEM, ASKED),
    ),
    "LLaMA-Factory, Alpaca": (
        {"instruction": "Add these.", "input": "2 and 2", **REPLIES},
        "alpaca", (said("user", "Add these.\n2 and 2"),),
    ),
    "LLaMA-Factory, Alpaca with all its columns": (
        {"instruction": "What is 2 + 2?", "input": "", "system": "Be brief.", "history": [["Hi", "Hello"]], **REPLIES},
        "alpaca", (SYSTEM, said("user", "Hi"), said("assistant", "Hello"), ASKED),
    ),
    "LLaMA-Factory, ShareGPT": (
        {"conversations": [from_value("system", "Be brief."), from_value("human", "What is 2 + 2?")],
         "chosen": from_value("gpt", C), "rejected": from_value("gpt", R)},
        "sharegpt", (SYSTEM, ASKED),
    ),
    "ShareGPT with texts and a system column": (
        {"conversations": [from_value("human", "What is 2 + 2?")], "system": "Be brief.", **REPLIES},
        "sharegpt", (SYSTEM, ASKED),
    ),
    "UltraInteract": (
        {"task": "Math_CoT", "dataset": "gsm8k", "trajectory": [from_value("user", "What is 2 + 2?")], **REPLIES,
         "id": "0", "parent_id": "7"},
        "sharegpt", (ASKED,),
    ),
    "axolotl": (
        {"messages": [ASKED], "chosen": said("assistant", C), "rejected": said("assistant", R)},
        "sharegpt", (ASKED,),
    ),
    "UltraFeedback binarized": (
        {"prompt": "What is 2 + 2?", "prompt_id": "a1", **WHOLE, "messages": WHOLE["chosen"], "score_chosen": 8.5,
         "score_rejected": 3.0},
        "trl", (ASKED,),
    ),
    "a text prompt beside one message a reply": (
        {"prompt": "What is 2 + 2?", "chosen": [said("assistant", C)], "rejected": [said("assistant", R)]},
        "trl", (ASKED,),
    ),
    "HelpSteer2-Preference, the first response": (
        {"prompt": "What is 2 + 2?", "response_1": C, "response_2": R, "preference_strength": -1,
         "preference_statement": "Response 1 is right."},
        "helpsteer", (ASKED,),
    ),
    "HelpSteer2-Preference, more turns": (
        {"prompt": "Hi\n<extra_id_1>Assistant\nHello\n<extra_id_1>User\nWhat is 2 + 2?", "response_1": R,
         "response_2": C, "preference_strength": 2},
        "helpsteer", (said("user", "Hi"), said("assistant", "Hello"), ASKED),
    ),
    "HelpSteer3": (
        {"domain": "stem", "language": "english", "context": [ASKED], "response1": R, "response2": C,
         "overall_preference": 3, "individual_preference": [{"score": 3, "reasoning": "Right."}]},
        "helpsteer", (ASKED,),
    ),
    "messages under role and value": (
        {"conversations": [{"role": "human", "value": "What is 2 + 2?"}], "chosen": {"role": "gpt", "value": C},
         "rejected": {"role": "gpt", "value": R}},
        "sharegpt", (ASKED,),
    ),
    "other names of the speakers": (
        {"conversations": [from_value("Human", "Hi"), from_value("model", "Hello"),
                           from_value("User", "What is 2 + 2?")],
         "chosen": from_value("bot", C), "rejected": from_value("chatgpt", R)},
        "sharegpt", (said("user", "Hi"), said("assistant", "Hello"), ASKED),
    ),
    "OpenAI's developer": (
        {"prompt": [said("developer", "Be brief."), ASKED], **REPLIES}, "canonical", (SYSTEM, ASKED),
    ),
    "a history of messages": (
        {"instruction": "What is 2 + 2?", "history": [said("user", "Hi"), said("assistant", "Hello")], **REPLIES},
        "alpaca", (said("user", "Hi"), said("assistant", "Hello"), ASKED),
    ),
    "Argilla's Capybara-DPO": (
        {"conversation": [{"input": "What is 2 + 2?", "output": C}], "original_response": R, **WHOLE,
         "raw_generation_responses": [R]},
        "trl", (ASKED,),
    ),
    "a system column beside a text prompt": (
        {"system": "Be brief.", "prompt": "What is 2 + 2?", **REPLIES}, "canonical", (SYSTEM, ASKED),
    ),
    "a system column beside messages": ({"system": "Be brief.", "prompt": [ASKED], **REPLIES}, "canonical",
                                        (SYSTEM, ASKED)),
    "a system column beside whole conversations": ({"system": "Be brief.", **WHOLE}, "trl", (SYSTEM, ASKED)),
    "a system column that repeats the system message": (
        {"system": "Be brief.", "prompt": [SYSTEM, ASKED], **REPLIES}, "canonical", (SYSTEM, ASKED),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMN_SETS)
@pytest.mark.parametrize("as_json_text", [False, True])  # CSV holds messages as JSON text
def test_well_known_column_sets(name: str, as_json_text: bool) -> None:
    row, form, prompt = COLUMN_SETS[name]
    if as_json_text:
        row = {column: json.dumps(cell) if isinstance(cell, list | dict) else cell for column, cell in row.items()}
    loaded = pairs_from_rows([row])
    (pair,) = loaded.pairs
    assert (loaded.format, pair.prompt, pair.chosen, pair.rejected) == (form, prompt, C, R)
    assert loaded.counts == {}
    assert pairs_from_rows([row], format=form).pairs == [pair]


def test_helpsteer_drops_and_faults() -> None:
    row = COLUMN_SETS["HelpSteer3"][0]
    loaded = pairs_from_rows([row, {**row, "overall_preference": 0}, {**row, "overall_preference": None}])
    assert len(loaded.pairs) == 1 and loaded.counts == {"dropped: neither response is preferred": 2}
    for wrong in (4, -100, 0.5, "much better"):
        with pytest.raises(BdpoError, match=r"'overall_preference' is .*: it must be a whole number from -3 to 3"):
            pairs_from_rows([{**row, "overall_preference": wrong}])
    with pytest.raises(BdpoError, match=r"a row has one response .* and a pair needs two to the same prompt"):
        pairs_from_rows([{"prompt": "What is 2 + 2?", "response": C, "helpfulness": 4, "correctness": 4}])


FAULTS = {
    "an empty instruction": ({"instruction": "", "input": None, **REPLIES}, "'instruction' and 'input' are empty"),
    "another speaker": (
        {"conversations": [from_value("observation", "x")], **REPLIES},
        "message 1 of 'conversations' needs a role of system, user, assistant, and has 'observation'",
    ),
    "the reply stands there already": (
        {"conversations": [from_value("human", "Hi"), from_value("gpt", C)], **REPLIES},
        "the last message of 'conversations' is the assistant's",
    ),
    "two system messages": (
        {"system": "Be long.", "prompt": [SYSTEM, ASKED], **REPLIES},
        "'system' and the system message in the prompt differ",
    ),
    "half a history": ({"instruction": "Go on.", "history": [["Hi"]], **REPLIES}, "'history' holds"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_the_column(name: str) -> None:
    row, fault = FAULTS[name]
    with pytest.raises(BdpoError, match=f"rows, row 1: {fault}"):
        pairs_from_rows([row])


# --- columns that nobody reads ------------------------------------------------------------------------------------

UNREAD = {
    "query": ({"query": "What is 2 + 2?", **REPLIES}, {"prompt": "query"}),
    "Question": ({"Question": "What is 2 + 2?", **REPLIES}, {"prompt": "Question"}),
    "user_prompt": ({"user_prompt": "What is 2 + 2?", **REPLIES}, {"prompt": "user_prompt"}),
    "dialogue": ({"dialogue": [ASKED], **REPLIES}, {"prompt": "dialogue"}),
    "system_prompt": (
        {"system_prompt": "Be brief.", "query": "What is 2 + 2?", **REPLIES},
        {"prompt": "query", "system": "system_prompt"},
    ),
    "system_message": (
        {"prompt": "What is 2 + 2?", "system_message": "Be brief.", **REPLIES}, {"system": "system_message"},
    ),
    "context": (
        {"prompt": "What is 2 + 2?", "context": "In base 3.", **REPLIES}, {"instruction": "prompt", "input": "context"},
    ),
    "history": (
        {"prompt": "And 3?", "history": [["What is 2 + 2?", "4"]], **REPLIES},
        {"instruction": "prompt", "history": "history"},
    ),
    "past turns": (
        {"prompt": "And 3?", "previous_turns": [said("user", "What is 2 + 2?"), said("assistant", "4")], **REPLIES},
        {"instruction": "prompt", "history": "previous_turns"},
    ),
    "selftext": ({"selftext": "What is 2 + 2?", **REPLIES}, {"prompt": "selftext"}),
    "passage": (
        {"question": "What is it?", "passage": "It is 4.", **REPLIES}, {"instruction": "question", "input": "passage"},
    ),
    "sys": ({"prompt": "What is 2 + 2?", "sys": "Be brief.", **REPLIES}, {"system": "sys"}),
    "any name at all": ({"zadanie": "What is 2 + 2?", "number": 7, **REPLIES}, {"prompt": "zadanie"}),
    "messages under any name": ({"zadanie": [ASKED], "number": 7, **REPLIES}, {"prompt": "zadanie"}),
    "input": ({"prompt": "Add.", "input": "2 and 2", **REPLIES}, {"instruction": "prompt", "input": "input"}),
    "question": (
        {"instruction": "Answer.", "question": "2 + 2?", **REPLIES},
        {"instruction": "instruction", "input": "question"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_an_unread_prompt_is_refused_and_the_mapping_that_is_named_reads_it(name: str) -> None:
    row, mapping = UNREAD[name]
    shown = ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items())
    with pytest.raises(BdpoError, match=rf"row 1: the column '.*' is not read.*map it \(data.columns: {{{shown}}};"):
        pairs_from_rows([row])
    (pair,) = pairs_from_rows([row], columns=mapping).pairs
    prompt = pair.prompt if isinstance(pair.prompt, str) else " ".join(turn["content"] for turn in pair.prompt)
    texts = [cell for column, cell in row.items() if column not in REPLIES and isinstance(cell, str)]
    assert all(text in prompt for text in texts) and (pair.chosen, pair.rejected) == (C, R)


def test_a_column_that_is_no_part_of_the_prompt_can_be_said_to_be_none() -> None:
    row = {"prompt": "What is 2 + 2?", "context": "Asked on a Monday.", **REPLIES}
    with pytest.raises(BdpoError, match=r"if it is no part of the prompt, say so \(data.columns: {prompt: prompt}\)"):
        pairs_from_rows([row])
    assert pairs_from_rows([row], columns={"prompt": "prompt"}).pairs[0].prompt == "What is 2 + 2?"


@pytest.mark.parametrize(
    "more",
    [
        {"question": "What is  2 + 2?"},  # the prompt has it
        {"context": "", "history": [], "messages": None, "input": 7},  # they say nothing
        {"user": "u-17", "prompt_id": "a1", "task": "sums", "source": "mine"},  # they are no prompts
        {"conversation": [ASKED, said("assistant", C)]},
    ],
)
def test_columns_that_lose_nothing_are_passed_over(more: dict) -> None:
    loaded = pairs_from_rows([{"prompt": "What is 2 + 2?", **REPLIES, **more}])
    assert loaded.pairs[0].prompt == "What is 2 + 2?" and loaded.counts == {}


def test_a_wrong_row_is_collected_like_any_other() -> None:
    rows = [{"prompt": "Why?", **REPLIES}, {"prompt": "And?", "context": "Before.", **REPLIES}]
    loaded = pairs_from_rows(rows, on_error="collect")
    assert len(loaded.pairs) == 1 and loaded.errors[0].startswith("rows, row 2: the column 'context' is not read")


def test_a_prompt_cut_from_two_texts_is_counted() -> None:
    rows = [{"note": "x", "date": "2024-01-01 10:00", "copy": C, **REPLIES}] * 2
    counts = {"changed: no column holds the prompt, so what both texts begin with was taken for it": 2}
    assert pairs_from_rows(rows).counts == counts


# --- the mapping --------------------------------------------------------------------------------------------------


def test_a_mapping_is_checked_against_formats_and_data() -> None:
    rows = [{"ask": "Why?", **REPLIES}]
    with pytest.raises(BdpoError, match=r"data.columns: no format reads a column 'promt': did you mean 'prompt'"):
        pairs_from_rows(rows, columns={"promt": "ask"})
    with pytest.raises(BdpoError, match=r"no row has the column 'asked' that data.columns gives for 'prompt'"):
        pairs_from_rows(rows, columns={"prompt": "asked"})
    mapped = {"prompt": "instruction", "chosen": "chosen_response", "rejected": "rejected_response"}
    rows = [{"instruction": "Why?", "chosen_response": C, "rejected_response": R}]
    shown = "{prompt: instruction, chosen: chosen_response, rejected: rejected_response}"
    with pytest.raises(BdpoError, match=f"no known pair format.*data.columns: {shown}"):
        pairs_from_rows(rows)
    assert pairs_from_rows(rows, columns=mapped).pairs == [PreferencePair("row-1", "Why?", C, R, source="rows")]
    assert likely_mapping(["a", "b"]) == {"prompt": "...", "chosen": "...", "rejected": "..."}
    arena = ["model_a", "conversation_a", "conversation_b", "winner"]
    assert likely_mapping(arena) == {"prompt": "...", "chosen": "...", "rejected": "..."}
    assert likely_mapping(["prompt", "answers", "turns"]) == {"chosen": "...", "rejected": "..."}
    torchtune = ["chosen_conversations", "rejected_conversations"]
    assert likely_mapping(torchtune) == {"chosen": torchtune[0], "rejected": torchtune[1]}


def test_examples_in_docstrings() -> None:
    for module in ("columns", "mend"):
        failed, tried = doctest.testmod(importlib.import_module(f"bdpo.pairs.{module}"))
        assert failed == 0 < tried


# --- text prompts as chat -----------------------------------------------------------------------------------------


def as_chat(rows: list[dict], **how: bool) -> tuple[list, dict[str, int]]:
    loaded = pairs_from_rows(rows, **how)
    return [pair.prompt for pair in loaded.pairs], loaded.counts


def test_as_chat_makes_text_prompts_messages_and_counts_them() -> None:
    rows = [{"prompt": "What is 2 + 2?", **REPLIES}, {"prompt": [ASKED], **REPLIES}]
    became = "changed: the text prompt became a message of the user"
    assert as_chat(rows) == (["What is 2 + 2?", (ASKED,)], {})
    assert as_chat(rows, as_chat=True) == ([(ASKED,), (ASKED,)], {became: 1})


def test_one_system_text_makes_all_text_prompts_messages() -> None:
    rows = [{"system": cell, "prompt": "What is 2 + 2?", **REPLIES} for cell in ("Be brief.", "", None)]
    became = "changed: the text prompt became a message of the user"
    assert as_chat(rows) == ([(SYSTEM, ASKED), (ASKED,), (ASKED,)], {became: 2})
    assert as_chat(rows[1:]) == (["What is 2 + 2?"] * 2, {})
