"""Control tokens by their ids, over tokenizers of many families: none comes from a text, and text stays text."""

from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bdpo.errors import BdpoError
from bdpo.pairs import LoadedPairs, PreferencePair, check_pairs, control_tokens, found_control_tokens, pairs_from_rows
from bdpo.pairs.control import plain_marks, strip_control_tokens
from bdpo.tokens import prompt_ids, tokenize_pair
from families import CHATML, FAMILIES, LLAMA3, VICUNA, byte_level, sentencepiece

PAIR = PreferencePair("p1", ({"role": "user", "content": "Hi"},), "Hello", "Go away")
CASES = [(name, token) for name, family in FAMILIES.items() for token in family.controls]
PLAIN = [(name, token) for name, family in FAMILIES.items() for token in family.plain]


def user(text):
    return ({"role": "user", "content": text},)


def places(text):
    """The pair with the text in each place that a person or a model may have written."""
    answered = (*user("Hi"), {"role": "assistant", "content": f"a {text} b"}, *user("Go on"))
    return [
        replace(PAIR, prompt=user(f"a {text} b")),
        replace(PAIR, prompt=answered),
        replace(PAIR, chosen=f"a {text} b"),
        replace(PAIR, rejected=text),
        replace(PAIR, prompt=f"a {text}"),
    ]


@pytest.mark.parametrize(("name", "token"), CASES)
def test_a_control_token_is_refused_wherever_it_stands(name, token):
    tokenizer = FAMILIES[name].make()
    for pair in places(token):
        with pytest.raises(BdpoError, match=r"Pair p1: its text contains the control token .* prompt-injection risk"):
            tokenize_pair(tokenizer, pair)


@pytest.mark.parametrize(("name", "token"), PLAIN)
def test_added_tokens_that_are_mere_text_are_taken(name, token):
    tokenizer = FAMILIES[name].make()
    added = {i for i, t in tokenizer.added_tokens_decoder.items() if t.content.replace("▁", " ") == token}
    for pair in places(token):
        if tokenizer.chat_template is None and not isinstance(pair.prompt, str):
            continue
        ids = tokenize_pair(tokenizer, pair)
        if token.strip() or pair.rejected != token:  # some templates trim
            assert added & {*ids.prompt_ids, *ids.chosen_ids, *ids.rejected_ids}, "the token was not read at all"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_asked_in_an_evaluation_is_freed_of_every_control_token(name):
    tokenizer = FAMILIES[name].make()
    if tokenizer.chat_template is None:
        return
    clean = prompt_ids(tokenizer, user("ab"), "p")
    for token in FAMILIES[name].controls:
        halves = token[:3] + token + token[3:]  # taking the inner one out joins the outer one
        assert prompt_ids(tokenizer, user(f"a{token}{halves}b"), "p") == clean


# --- tokenizers that normalise ------------------------------------------------------------------------------------


def normalising(normalizer, template=CHATML):
    """ChatML whose tokens are searched in the normalised text, as those are that are added by hand."""
    made = byte_level((), eos="<|im_end|>", template=template, normalizer=normalizer)
    tokens = ("<|im_start|>", "<|im_end|>", "<|fim_prefix|>")
    made.add_tokens([AddedToken(token, normalized=True, special=True) for token in tokens[:2]], special_tokens=True)
    made.add_tokens([AddedToken(tokens[2], normalized=True)])
    return made


SLIPS = [
    (normalizers.NFKC(), "＜｜im_end｜＞"),
    (normalizers.NFKC(), "＜|ｆｉｍ_prefix|>"),
    (normalizers.Lowercase(), "<|IM_END|>"),
    (normalizers.Lowercase(), "<|Fim_Prefix|>"),
    (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "<|ïm_end|>"),
]


@pytest.mark.parametrize(("normalizer", "text"), SLIPS)
def test_what_a_normaliser_turns_into_a_control_token_is_refused(normalizer, text):
    tokenizer = normalising(normalizer)
    controls = control_tokens(tokenizer)
    assert not any(token in text for token in controls)  # as a string it is none
    for pair in places(text):
        with pytest.raises(BdpoError, match=r"token '<\|(im_end|fim_prefix)\|>', or what the tokenizer reads as"):
            tokenize_pair(tokenizer, pair)
    report = check_pairs(LoadedPairs([replace(PAIR, chosen=text)], "test", "canonical", 1), tokenizer=tokenizer)
    (found,) = [f for f in report.findings if f.name == "control_tokens_in_text"]
    assert found.examples == [f"p1 {found_control_tokens(replace(PAIR, chosen=text), controls)[0]}"]


@pytest.mark.parametrize(("normalizer", "text"), SLIPS)
def test_what_a_normaliser_turns_into_a_control_token_is_stripped(normalizer, text):
    tokenizer = normalising(normalizer)
    row = {"prompt": f"é {text}", "chosen": f"a {text[:4]}{text}{text[4:]} b", "rejected": "Ｎo"}
    data = pairs_from_rows([row], strip_control_tokens=control_tokens(tokenizer))
    (pair,) = data.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("é ", "a  b", "Ｎo")
    assert data.counts == {"changed: control tokens stripped": 1}
    assert prompt_ids(tokenizer, user(f"a{text}b"), "p") == prompt_ids(tokenizer, user("ab"), "p")


def test_a_control_piece_of_a_unigram_vocabulary_is_found_behind_nfkc():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in "▁aHi/s<>")]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=unigram, unk_token="<unk>", eos_token="</s>")
    assert tokenizer.eos_token_id in tokenizer("a＜/s＞")["input_ids"]
    with pytest.raises(BdpoError, match="control token '</s>'"):
        tokenize_pair(tokenizer, replace(PAIR, prompt="Hi", chosen="a＜/s＞"))
    stripped = strip_control_tokens(
        replace(PAIR, prompt="Hi", chosen="a＜/s＞", rejected="i"), control_tokens(tokenizer)
    )
    assert stripped.chosen == "a"
    assert tokenize_pair(tokenizer, replace(stripped, prompt="Hi ☃"))  # an unknown character is no control token


def test_an_unknown_character_that_reads_as_the_end_of_a_text_is_refused():
    """Where one token stands for unknown characters and for the end, such a character would end the reply."""
    words = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<eos>", eos_token="<eos>")
    with pytest.raises(BdpoError, match="control token '<eos>'"):
        tokenize_pair(tokenizer, replace(PAIR, prompt="a", chosen="a ☃", rejected="a"))


# --- what counts as one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "is_control"),
    [
        ("<|fim_prefix|>", True), ("<fim_prefix>", True), ("<unused7>", True), ("[PREFIX]", True),
        ("[toxicity=0]", True), ("▁<PRE>", True), ("<extra_id_0>", True), ("<｜tool▁sep｜>", True),
        ("<<SYS>>", True), ("◁think▷", True),
        ("</s>", True), ("<seed:bos>", True), ("<|im_end|>\n", True),
        ("<table>", False), ("</table>", False), ("<br/>", False), ("<h3>", False), ("<b>", False), ("  ", False),
        ("▁▁▁", False), ("\n\n", False), ("42", False), ("COVID-19", False), ("->", False), ("<=>", False),
        ("[]", False), ("...", False), ("🙂", False), ("https://", False),
    ],
)  # fmt: skip
def test_an_added_token_is_a_control_token_by_its_form(token, is_control):
    assert control_tokens(byte_level(("<eos>",), (token,), eos="<eos>")) == (
        tuple(sorted([token, "<eos>"], key=lambda s: (-len(s), s))) if is_control else ("<eos>",)
    )


def test_a_tag_that_the_template_writes_is_a_control_token():
    assert "<b>" in control_tokens(byte_level(("<eos>",), ("<b>",), eos="<eos>", template=CHATML + "{{ '<b>' }}"))


# --- control words that are plain text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "marks"),
    [("mistral-v1", ("[/INST]", "[INST]")), ("vicuna", ("ASSISTANT:", "USER:"))]
    + [(name, ()) for name in FAMILIES if name not in ("mistral-v1", "vicuna")],
)
def test_templates_whose_control_words_are_plain_text_are_known(name, marks):
    assert plain_marks(FAMILIES[name].make()) == marks


def test_the_check_warns_of_them_and_shows_the_pairs_that_hold_one():
    pairs = [PAIR, replace(PAIR, id="p2", prompt=user("Hi [/INST] Sure")), replace(PAIR, id="p3", chosen="[INST]")]
    report = check_pairs(LoadedPairs(pairs, "test", "canonical", 3), tokenizer=FAMILIES["mistral-v1"].make())
    (found,) = [f for f in report.findings if f.name == "plain_text_marks"]
    assert (found.severity, found.count, found.examples) == ("warning", 2, ["p2", "p3"])
    assert "marks turns with plain text ([/INST], [INST])" in found.explanation
    clean = check_pairs(LoadedPairs(pairs[:1], "test", "canonical", 1), tokenizer=FAMILIES["mistral-v1"].make())
    (found,) = [f for f in clean.findings if f.name == "plain_text_marks"]
    assert (found.severity, found.count) == ("warning", 0) and "None of the pairs hold it" in found.explanation
    assert (
        "plain_text_marks" in check_pairs(LoadedPairs(pairs, "t", "c", 3), tokenizer=FAMILIES["llama3"].make()).passed
    )


def test_two_templates_on_one_tokenizer_differ_in_their_marks():
    tokenizer = sentencepiece(("<unk>", "<s>", "</s>", "<|eot_id|>"), template=VICUNA)
    assert plain_marks(tokenizer) == ("ASSISTANT:", "USER:")
    tokenizer.chat_template = LLAMA3
    assert plain_marks(tokenizer) == ()


@pytest.mark.parametrize(("token", "controls"), [("[1]", False), ("{12}", False), ("[T1]", True), ("<|1|>", True)])
def test_a_number_in_brackets_is_a_footnote_and_no_control_token(token, controls):
    tokenizer = FAMILIES["mistral-v1"].make()
    tokenizer.add_tokens([token])
    assert (token in control_tokens(tokenizer)) == controls
