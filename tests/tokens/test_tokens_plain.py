"""Plain-text pairs: a reply is tokenised as it continues its prompt, with no blank that is not in the data."""

import pytest
from tokenizers.processors import TemplateProcessing

from bdpo.pairs import PreferencePair
from bdpo.tokens import tokenize_pair
from families import byte_level, sentencepiece

SCHEMES = ["first", "always", "prepend", None]
SPECIAL = ("<unk>", "<s>", "</s>")


def llama2_like(blank):
    """With <s> before every text, as Llama-2, Mistral and Vicuna have it."""
    tokenizer = sentencepiece(SPECIAL, blank=blank)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def pieces(tokenizer, prompt, chosen, rejected="No"):
    ids = tokenize_pair(tokenizer, PreferencePair("p1", prompt, chosen, rejected))
    return [tokenizer.convert_ids_to_tokens(part) for part in (ids.prompt_ids, ids.chosen_ids)]


@pytest.mark.parametrize("blank", SCHEMES)
def test_a_reply_gets_no_blank_that_is_not_in_the_data(blank):
    tokenizer = llama2_like(blank)
    first = [] if blank is None else ["▁"]
    assert pieces(tokenizer, "A:\n", "Hi") == [["<s>", *first, "A", ":", "<0x0A>"], ["Hi", "</s>"]]
    assert pieces(tokenizer, "A:", " Hi")[1] == ["▁H", "i", "</s>"]  # a blank that is there stays
    assert pieces(tokenizer, "A:\n", "  to")[1] == ["▁", "▁t", "o", "</s>"]


@pytest.mark.parametrize("blank", SCHEMES)
@pytest.mark.parametrize(
    ("prompt", "chosen", "expected"),
    [
        ("Go H", "i there", ["i", "▁t", "h", "e", "r", "e"]),  # H and i would merge over the boundary
        ("A ", "to", ["t", "o"]),  # the prompt's blank and t would
        ("A ", " to", ["▁t", "o"]),
        ("Go H", "i\nHi", ["i", "<0x0A>", "Hi"]),
    ],
)
def test_a_reply_that_merges_with_the_prompt_is_read_as_a_continuation(blank, prompt, chosen, expected):
    tokenizer = llama2_like(blank)
    got_prompt, got = pieces(tokenizer, prompt, chosen)
    assert got == [*expected, "</s>"]
    assert got_prompt == tokenizer.convert_ids_to_tokens(tokenizer(prompt)["input_ids"])


@pytest.mark.parametrize("blank", SCHEMES)
def test_prompt_and_reply_are_the_ids_of_the_whole_text(blank):
    tokenizer = llama2_like(blank)
    for prompt, chosen in [("A:\n", "Hi"), ("Q: to?", " Hi, to lo"), ("x", "y  z"), ("Hi", "\n\nHi")]:
        ids = tokenize_pair(tokenizer, PreferencePair("p1", prompt, chosen, "No"))
        assert [*ids.prompt_ids, *ids.chosen_ids] == [*tokenizer(prompt + chosen)["input_ids"], 2]


def test_a_control_token_that_swallows_blanks_is_no_anchor():
    from tokenizers import AddedToken

    tokenizer = llama2_like("first")
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("</s>", special=True, rstrip=True)])
    assert tokenizer.encode("</s> to") == tokenizer.encode("</s>to")
    assert pieces(tokenizer, "A ", " to")[1] == ["▁t", "o", "</s>"]


def test_byte_level_replies_are_read_as_a_continuation_too():
    tokenizer = byte_level(("<eos>",), eos="<eos>")
    assert pieces(tokenizer, "It rains.", " the end")[1] == ["Ġthe", "Ġ", "e", "n", "d", "<eos>"]
    assert pieces(tokenizer, "It rains.", "\nYes")[1] == ["Ċ", "Y", "e", "s", "<eos>"]  # ".\n" would be one token
    assert pieces(tokenizer, "It rains.\n", "\nYes")[1] == ["Ċ", "Y", "e", "s", "<eos>"]


def test_without_an_eos_nothing_is_added():
    tokenizer = llama2_like("prepend")
    tokenizer.eos_token = None
    assert pieces(tokenizer, "A ", "to")[1] == ["t", "o"]
