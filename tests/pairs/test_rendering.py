"""Rendering: what the template refuses in training the data check refuses too, with the row's place."""

import json

import pytest

from bdpo.errors import BdpoError
from bdpo.pairs import check_pairs, load_pairs
from bdpo.pairs.rendering import render, render_replies
from bdpo.tokens import tokenize_pair
from families import FAMILIES
from tiny import tiny_tokenizer

USER = {"role": "user", "content": "Hi"}
TURNS = {  # last message the user's, as the readers see to
    "one": [USER],
    "three": [USER, {"role": "assistant", "content": "Yes?"}, USER],
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "twice": [USER, USER],
    "answered twice": [USER, *[{"role": "assistant", "content": "Yes?"}] * 2, USER],
}
NO_SYSTEM, NO_ORDER = "System role not supported", "Conversation roles must alternate user/assistant/user/assistant/..."
REFUSED = {"system": NO_SYSTEM, "twice": NO_ORDER, "answered twice": NO_ORDER}


@pytest.fixture
def file(tmp_path):
    rows = [{"prompt": turns, "chosen": "Hello", "rejected": "Go away"} for turns in TURNS.values()]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("family", ["gemma", "mistral"])
def test_the_check_refuses_by_row_what_the_template_refuses_in_training(family, file):
    tokenizer = FAMILIES[family].make()
    data = load_pairs(file)
    report = check_pairs(data, tokenizer=tokenizer, max_length=8)
    found = {finding.name: finding for finding in report.findings}["refused_by_template"]
    assert (found.severity, found.count) == ("error", 3)
    assert found.examples == [
        f"{file}, line {line}: the chat template refuses the conversation ({REFUSED[kind]}): mend the turns."
        for line, kind in enumerate(TURNS, start=1)
        if kind in REFUSED
    ]
    for pair, kind in zip(data.pairs, TURNS, strict=True):
        if kind in REFUSED:
            with pytest.raises(BdpoError, match=f"Pair {pair.id}: the chat template refuses"):
                tokenize_pair(tokenizer, pair)
        else:
            assert tokenize_pair(tokenizer, pair)


def test_a_template_that_takes_everything_passes(file):
    report = check_pairs(load_pairs(file), tokenizer=FAMILIES["chatml"].make())
    assert "refused_by_template" in report.passed


def test_a_template_that_renders_no_prefix_is_found_too(file):
    tokenizer = tiny_tokenizer("{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}")
    report = check_pairs(load_pairs(file), tokenizer=tokenizer)
    (found,) = [finding for finding in report.findings if finding.name == "refused_by_template"]
    assert found.count == len(TURNS)
    assert found.examples[0].startswith(f"{file}, line 1: the chat template does not render the prompt as a prefix")


def test_without_a_template_every_conversation_is_an_error_and_plain_text_is_none(file, tmp_path):
    report = check_pairs(load_pairs(file), tokenizer=tiny_tokenizer(None))
    (found,) = [finding for finding in report.findings if finding.name == "refused_by_template"]
    assert (found.count, found.examples) == (len(TURNS), [f"line-{i}" for i in range(1, 6)])
    assert "has no chat template" in found.explanation
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}))
    assert "refused_by_template" in check_pairs(load_pairs(plain), tokenizer=tiny_tokenizer(None)).passed


def test_a_template_that_is_no_template_is_not_blamed_on_a_pair():
    broken = tiny_tokenizer("{% for m in messages %}\n{{ m.content | nosuchfilter }}{% endfor %}")
    with pytest.raises(BdpoError, match=r"^The chat template is no Jinja template \(line 2: No filter named 'nosuch"):
        render(broken, [USER], "Pair p1", add_generation_prompt=True)


def test_a_reply_is_what_follows_the_prompt():
    prompt, added = render_replies(tiny_tokenizer(), [USER], ["Hello", "Go away"], "Pair p1")
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert added == ["Hello<|im_end|>\n", "Go away<|im_end|>\n"]
