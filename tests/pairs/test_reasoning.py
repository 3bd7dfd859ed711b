"""Reasoning in replies: how templates of each kind write it, what counts among the reply's tokens, what drop leaves."""

import doctest
import json
from dataclasses import replace

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import LoadedPairs, PreferencePair, check_pairs, control_tokens, load_pairs, reasoning
from bdpo.pairs.control import strip_control_tokens
from bdpo.pairs.reasoning import drop_reasoning, split_reasoning, with_reasoning
from bdpo.pairs.rendering import render, set_template_kwargs
from bdpo.tokens import tokenize_pair, tokenize_pairs
from families import CHATML, DEEPSEEK, FAMILIES, QWEN3, byte_level

HI = {"role": "user", "content": "Hi"}
THOUGHT = "<think>\nIs it so?\nYes.\n</think>\n\nHello"
PAIR = PreferencePair("p1", (HI,), THOUGHT, "Go away")
KEYED = (  # a template that knows reasoning by a key of its own, as gpt-oss does
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}"
    "<|im_end|><|im_start|>{{ m.role }}{% endif %}<|message|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def texts(tokenizer, pair=PAIR):
    ids = tokenize_pair(tokenizer, pair)
    return tuple(tokenizer.decode(part) for part in (ids.prompt_ids, ids.chosen_ids, ids.rejected_ids))


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(reasoning).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THOUGHT, ("Is it so?\nYes.", "Hello")),
        ("<think>a</think>b", ("a", "b")),
        (" \n<think>\na\n</think>\n b", ("a", " b")),
        ("<think>\n\n</think>\n\nb", ("", "b")),
        ("a\n</think>\n\nb", ("a", "b")),  # the prompt opened it
        ("<think>a</think>b<think>c</think>", ("a", "b<think>c</think>")),
        ("Hello", (None, "Hello")),
        ("<think>never ends", (None, "<think>never ends")),
        ("Write <think>a</think>", (None, "Write <think>a</think>")),
        ("The tag </think> ends it.", (None, "The tag </think> ends it.")),
    ],
)
def test_reasoning_and_answer_are_taken_apart(text, expected):
    assert split_reasoning(text) == expected


def test_taking_apart_undoes_putting_together():
    for thought, answer in [("a\n\nb", "c"), ("", "c"), (" a ", " c\n"), (None, "c")]:
        assert split_reasoning(with_reasoning(thought, answer)) == (thought, answer)


# --- as templates write it ----------------------------------------------------------------------------------------


def test_a_template_that_knows_reasoning_renders_it():
    tokenizer = FAMILIES["qwen3"].make()
    prompt, chosen, rejected = texts(tokenizer)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chosen == "<think>\nIs it so?\nYes.\n</think>\n\nHello<|im_end|>\n"
    assert rejected == "<think>\n\n</think>\n\nGo away<|im_end|>\n"  # as the template writes a reply without any
    ids = tokenize_pair(tokenizer, PAIR)
    think = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert [i for i in ids.chosen_ids if i in think] == think
    whole = [HI, {"role": "assistant", "content": "Hello", "reasoning_content": "Is it so?\nYes."}]
    assert ids.prompt_ids + ids.chosen_ids == tokenizer.apply_chat_template(whole)["input_ids"]


@pytest.mark.parametrize("family", ["deepseek", "deepseek-r1"])
def test_a_template_that_leaves_the_last_reasoning_out_gets_it_where_the_model_writes_it(family):
    prompt, chosen, _ = texts(FAMILIES[family].make())
    assert prompt + chosen == (
        "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>"
        "<think>\nIs it so?\nYes.\n</think>\n\nHello<｜end▁of▁sentence｜>"
    )
    assert prompt.endswith("<think>\n") == (family == "deepseek-r1")


def test_a_prompt_that_opens_the_reasoning_is_followed_by_it():
    prompt, chosen, rejected = texts(FAMILIES["qwen3-thinking"].make())
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert chosen == "Is it so?\nYes.\n</think>\n\nHello<|im_end|>\n"
    assert rejected == "\n</think>\n\nGo away<|im_end|>\n"
    same = replace(PAIR, chosen="Is it so?\nYes.\n</think>\n\nHello")  # as the model itself wrote it
    assert texts(FAMILIES["qwen3-thinking"].make(), same)[1] == chosen


@pytest.mark.parametrize("family", ["chatml", "llama3", "gemma", "mistral"])
def test_a_template_that_knows_none_takes_it_as_text(family):
    assert THOUGHT in texts(FAMILIES[family].make())[1].lstrip(" ")


def test_a_template_with_a_key_of_its_own_gets_it_there():
    special = ("<|im_start|>", "<|im_end|>", "<|channel|>", "<|message|>")
    tokenizer = byte_level(special, eos="<|im_end|>", template=KEYED)
    _, chosen, rejected = texts(tokenizer)
    assert chosen == (
        "<|channel|>analysis<|message|>Is it so?\nYes.<|im_end|><|im_start|>assistant<|message|>Hello<|im_end|>"
    )
    assert rejected == "<|message|>Go away<|im_end|>"


def test_an_empty_block_that_the_template_writes_is_not_doubled():
    template = CHATML.replace(
        "{{ m.content }}", "{{ '<think></think>' if m.role == 'assistant' }}{{ m.content.split('</think>')[-1] }}"
    ).replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif")
    tokenizer = byte_level(("<|im_start|>", "<|im_end|>", "<think>", "</think>"), eos="<|im_end|>", template=template)
    _, chosen, rejected = texts(tokenizer)
    assert rejected == "</think>Go away<|im_end|>\n"
    assert chosen == "Is it so?\nYes.</think>Hello<|im_end|>\n"


def test_earlier_reasoning_is_the_templates_to_keep_or_leave_out():
    turns = (HI, {"role": "assistant", "content": THOUGHT}, {"role": "user", "content": "And now?"})
    for family, kept in [("qwen3", False), ("deepseek", False), ("chatml", True)]:
        prompt, _, _ = texts(FAMILIES[family].make(), replace(PAIR, prompt=turns))
        assert "Hello" in prompt and ("Is it so?" in prompt) == kept
    by_key = (HI, {"role": "assistant", "content": "Hello", "reasoning_content": "Is it so?\nYes."}, turns[2])
    for family in ("qwen3", "chatml"):
        tokenizer = FAMILIES[family].make()
        assert texts(tokenizer, replace(PAIR, prompt=by_key)) == texts(tokenizer, replace(PAIR, prompt=turns))


def test_plain_text_keeps_it_as_it_stands():
    tokenizer = byte_level(("<eos>", "<think>", "</think>"), eos="<eos>")
    _, chosen, _ = texts(tokenizer, replace(PAIR, prompt="Q: Hi\nA: "))
    assert chosen == f"{THOUGHT}<eos>"


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "<think>never ends",
        "Write <think>a</think>",
        "<think>a<|im_end|>b</think>c",
        "<think>a</think>b<think>c</think>",
        "<think>a</think>b</think>",
        "The tag </think> ends it.",
    ],
)
def test_marks_that_are_not_the_form_of_the_reply_are_control_tokens(reply):
    with pytest.raises(BdpoError, match="Pair p1: its text contains the control token '<"):
        tokenize_pair(FAMILIES["qwen3"].make(), replace(PAIR, chosen=reply))


def test_a_user_has_no_reasoning():
    with pytest.raises(BdpoError, match="Pair p1: its text contains the control token '<think>'"):
        tokenize_pair(FAMILIES["qwen3"].make(), replace(PAIR, prompt=({"role": "user", "content": THOUGHT},)))
    injected = (HI, {"role": "assistant", "content": "b", "reasoning_content": "a<|im_end|>"}, HI)
    with pytest.raises(BdpoError, match=r"Pair p1: its text contains the control token '<\|im_end\|>'"):
        tokenize_pair(FAMILIES["qwen3"].make(), replace(PAIR, prompt=injected))


def test_stripping_leaves_the_form_of_the_reply():
    controls = control_tokens(FAMILIES["qwen3"].make())
    dirty = replace(PAIR, chosen="<think>\na<|im_end|>\n</think>\n\nb<think>c", rejected="x<think>y</think>")
    clean = strip_control_tokens(dirty, controls)
    assert (clean.chosen, clean.rejected) == ("<think>\na\n</think>\n\nbc", "xy")
    assert strip_control_tokens(PAIR, controls) == PAIR


def test_reasoning_behind_a_prompt_that_has_closed_it_is_refused_with_the_mend():
    tokenizer = FAMILIES["qwen3"].make()
    set_template_kwargs(tokenizer, {"enable_thinking": False})
    with pytest.raises(BdpoError, match=r"Pair p1: .*closed it already: .*data\.reasoning: drop.*chat_template_kwargs"):
        tokenize_pair(tokenizer, PAIR)
    prompt, chosen, rejected = texts(tokenizer, drop_reasoning(PAIR))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (chosen, rejected) == ("Hello<|im_end|>\n", "Go away<|im_end|>\n")
    empty = replace(PAIR, chosen="<think>\n\n</think>\n\nHello")  # as this model itself writes it
    assert texts(tokenizer, empty)[1] == "Hello<|im_end|>\n"


# --- data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_under_a_key_of_a_message_is_read(key, tmp_path):
    def said(content, **more):
        return {"role": "assistant", "content": content, **more}

    rows = [
        {
            "prompt": [HI, said("Yes?", **{key: "Hm."}), HI],
            "chosen": [said("Hello", **{key: "Is it so?\nYes.\n"})],
            "rejected": [said("Go away", **{key: None})],
        }
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pair,) = load_pairs(path).pairs
    assert (pair.chosen, pair.rejected) == (THOUGHT, "Go away")
    assert pair.prompt[1] == said("<think>\nHm.\n</think>\n\nYes?")


def test_drop_leaves_the_answers_alone():
    turns = (HI, {"role": "assistant", "content": THOUGHT}, {"role": "user", "content": THOUGHT})
    dropped = drop_reasoning(replace(PAIR, prompt=turns))
    assert dropped == replace(PAIR, prompt=(HI, {"role": "assistant", "content": "Hello"}, turns[2]), chosen="Hello")
    assert drop_reasoning(dropped) == dropped
    assert drop_reasoning(replace(PAIR, prompt="Hi")) == replace(PAIR, prompt="Hi", chosen="Hello")


def test_the_check_takes_reasoning_and_looks_for_refusals_behind_it():
    refusing = [
        replace(PAIR, id=f"p{i}", chosen=with_reasoning(f"Hm {i}.", "I can't help with that.")) for i in range(4)
    ]
    report = check_pairs(LoadedPairs(refusing, "test", "canonical", 4), tokenizer=FAMILIES["qwen3"].make())
    assert {"control_tokens_in_text", "refused_by_template"} <= set(report.passed)
    (found,) = [f for f in report.findings if f.name == "refusals"]
    assert (found.severity, found.count) == ("warning", 4)


# --- variables of the template ------------------------------------------------------------------------------------


def test_variables_hold_wherever_the_template_is_used_and_give_way_to_a_caller():
    tokenizer = FAMILIES["qwen3"].make()
    before = render(tokenizer, [HI], "p", add_generation_prompt=True)
    set_template_kwargs(tokenizer, {"enable_thinking": False})
    once = tokenizer.chat_template
    set_template_kwargs(tokenizer, {"enable_thinking": False})  # as models that share a tokenizer do
    assert tokenizer.chat_template == once
    closed = f"{before}<think>\n\n</think>\n\n"
    assert render(tokenizer, [HI], "p", add_generation_prompt=True) == closed
    assert tokenizer.apply_chat_template([HI], tokenize=False, add_generation_prompt=True) == closed
    asked = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
    assert tokenizer.apply_chat_template([HI], **asked) == before
    set_template_kwargs(tokenizer, {"enable_thinking": True})  # said again, of a model that was saved with the other
    assert render(tokenizer, [HI], "p", add_generation_prompt=True) == before


def test_values_of_every_kind_reach_the_template():
    values = {"a": 'it\'s "so"\n☃', "b": 1.5, "c": [1, None, True], "d": {"x": {"y": "z"}}, "e": False}
    template = "\n{{ a }}|{{ b }}|{{ c }}|{{ d.x.y }}|{{ e }}|{% for m in messages %}{{ a }}{% endfor %}"
    tokenizer = byte_level(("<eos>",), eos="<eos>", template=template)
    set_template_kwargs(tokenizer, values)
    said = tokenizer.apply_chat_template([HI], tokenize=False)
    assert said == '\nit\'s "so"\n☃|1.5|[1, None, True]|z|False|it\'s "so"\n☃'


def test_every_named_template_gets_them():
    tokenizer = byte_level(("<eos>",), eos="<eos>", template={"default": "{{ a }}", "other": "{{ a }}{{ a }}"})
    set_template_kwargs(tokenizer, {"a": "x"})
    once = dict(tokenizer.chat_template)
    set_template_kwargs(tokenizer, {"a": "x"})  # again changes nothing
    assert tokenizer.chat_template == once
    assert tokenizer.apply_chat_template([HI], tokenize=False) == "x"
    assert tokenizer.apply_chat_template([HI], tokenize=False, chat_template="other") == "xx"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"enable_thinkin": False}, "the chat template has no variable 'enable_thinkin'"),
        ({"enable thinking": False}, "the chat template has no variable 'enable thinking'"),
        ({"messages": []}, "messages is set by bdpo itself"),
        ({"date_string": "today"}, "date_string is set by bdpo itself"),
    ],
)
def test_variables_that_do_nothing_are_refused(kwargs, message):
    with pytest.raises(BdpoError, match=rf"model\.chat_template_kwargs: {message}"):
        set_template_kwargs(byte_level(("<eos>",), eos="<eos>", template=QWEN3), kwargs)


def test_a_variable_that_changes_no_id_changes_no_key():
    """The rows of a scores' key are the ids, so two tokenizers that give the same ids share their scores."""
    plain, other = (byte_level(("<eos>",), eos="<eos>", template=DEEPSEEK + "{{ extra }}") for _ in range(2))
    set_template_kwargs(other, {"extra": ""})
    pairs = [replace(PAIR, chosen="Hello")]
    assert list(tokenize_pairs(plain, pairs).pairs) == list(tokenize_pairs(other, pairs).pairs)
