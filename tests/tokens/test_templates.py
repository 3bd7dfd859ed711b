"""Over the templates of many families: the ids trained on are the ids that a server sees for the same conversation."""

import pytest

from bdpo.pairs import PreferencePair
from bdpo.tokens import prompt_ids, stop_ids, tokenize_pair
from families import FAMILIES, sentencepiece
from tiny import tiny_tokenizer

HI, GO_ON = {"role": "user", "content": "Hi, the two of you?"}, {"role": "user", "content": "Go on.\n\nIn  detail: é ☃"}
PROMPTS = {
    "one turn": (HI,),
    "three turns": (HI, {"role": "assistant", "content": "Yes.\nNo."}, GO_ON),
    "system": ({"role": "system", "content": "Be brief."}, HI),
    "system, three turns": (
        {"role": "system", "content": "Be brief."}, HI, {"role": "assistant", "content": "Yes?"}, GO_ON,
    ),
}  # fmt: skip
REPLIES = (
    "Hello", " Hello", "  the end", "No. 1: 12 and 3!", "Two\nlines\n\nand\tmore", "Ends with a break\n", "é ☃ 🙂",
    "def f(x):\n    return x  # <b>", "A", "[1] (2) {3}", "user: Hi", "a" * 200,
)  # fmt: skip
STRADDLING = ("\nHello", "\n\nHello", "\n")  # may merge with a line break that ends the prompt
TALKING = [name for name, family in FAMILIES.items() if family.make().chat_template]
OPENED = ("deepseek-r1", "qwen3-thinking")  # the prompt opens the reasoning


def server(tokenizer, messages, **how):
    """What a server makes of a conversation."""
    return tokenizer.apply_chat_template(list(messages), tokenize=True, **how)["input_ids"]


def pair(prompt, reply):
    return PreferencePair("p1", prompt, reply, "No")


def cases(name):
    takes_system = FAMILIES[name].system
    return {kind: prompt for kind, prompt in PROMPTS.items() if takes_system or "system" not in kind}


@pytest.mark.parametrize("name", TALKING)
def test_the_prompt_is_what_a_server_gives_the_model(name):
    tokenizer = FAMILIES[name].make()
    for prompt in cases(name).values():
        asked = server(tokenizer, prompt, add_generation_prompt=True)
        assert prompt_ids(tokenizer, prompt, "p1") == asked
        for reply in (*REPLIES, *STRADDLING):
            assert tokenize_pair(tokenizer, pair(prompt, reply)).prompt_ids == asked


@pytest.mark.parametrize("name", [name for name in TALKING if name not in OPENED])
def test_prompt_and_reply_are_the_ids_of_the_whole_conversation(name):
    tokenizer = FAMILIES[name].make()
    for prompt in cases(name).values():
        for reply in REPLIES:
            ids = tokenize_pair(tokenizer, pair(prompt, reply))
            said = server(tokenizer, [*prompt, {"role": "assistant", "content": reply}])
            assert ids.prompt_ids + ids.chosen_ids == said


@pytest.mark.parametrize("name", [name for name in TALKING if name not in OPENED])
def test_a_reply_that_is_begun_has_the_ids_that_a_server_goes_on_from(name):
    tokenizer = FAMILIES[name].make()
    for opening in ("Sure, happy to. Step by step:", "Hello", "Two\nlines"):
        begun = ({"role": "assistant", "content": opening},)
        for prompt in cases(name).values():
            ids = prompt_ids(tokenizer, prompt + begun, "p1")
            assert ids == server(tokenizer, prompt + begun, continue_final_message=True)


@pytest.mark.parametrize("name", OPENED)
def test_a_reply_that_is_begun_closes_the_reasoning_that_the_prompt_opens(name):
    ids = prompt_ids(FAMILIES[name].make(), (HI, {"role": "assistant", "content": "Sure:"}), "p1")
    assert FAMILIES[name].make().decode(ids).endswith("<think>\n\n</think>\n\nSure:")


@pytest.mark.parametrize("name", OPENED)
def test_reasoning_that_the_prompt_opens_is_closed_by_a_reply_without_any(name):
    """DeepSeek-R1's template writes a conversation otherwise than the model does, so the text is told by hand."""
    tokenizer = FAMILIES[name].make()
    ids = tokenize_pair(tokenizer, pair((HI,), "Hello"))
    end = {"deepseek-r1": "<｜end▁of▁sentence｜>", "qwen3-thinking": "<|im_end|>\n"}[name]
    assert tokenizer.decode(ids.prompt_ids).endswith("<think>\n")
    assert tokenizer.decode(ids.chosen_ids) == f"\n</think>\n\nHello{end}"


@pytest.mark.parametrize("name", [name for name in TALKING if name not in OPENED])
def test_a_reply_that_begins_with_a_line_break_is_read_as_the_model_would_write_it(name):
    """Its text is that of the conversation; its ids are those of a reply that begins after the prompt's last token."""
    tokenizer = FAMILIES[name].make()
    for reply in STRADDLING:
        ids = tokenize_pair(tokenizer, pair((HI,), reply))
        said = server(tokenizer, [HI, {"role": "assistant", "content": reply}])
        assert tokenizer.decode(ids.prompt_ids + ids.chosen_ids) == tokenizer.decode(said)


@pytest.mark.parametrize(
    "name", ["chatml", "qwen2.5", "llama3", "mistral", "mistral-v1", "gemma", "deepseek", "vicuna"]
)
def test_what_was_trained_on_is_what_the_next_turn_of_the_conversation_begins_with(name):
    tokenizer = FAMILIES[name].make()
    for reply in REPLIES:
        ids = tokenize_pair(tokenizer, pair((HI,), reply))
        later = server(tokenizer, [HI, {"role": "assistant", "content": reply}, GO_ON], add_generation_prompt=True)
        trained = ids.prompt_ids + ids.chosen_ids
        assert later[: len(trained)] == trained


@pytest.mark.parametrize("name", TALKING)
def test_a_reply_ends_where_generation_stops(name):
    tokenizer = FAMILIES[name].make()
    ids = tokenize_pair(tokenizer, pair((HI,), "Hello")).chosen_ids
    assert stop_ids(tokenizer) & set(ids)


@pytest.mark.parametrize("blank", ["first", "always", "prepend", None])
def test_blanks_that_sentencepiece_adds_are_a_servers_too(blank):
    tokenizer = sentencepiece(("<unk>", "<s>", "</s>"), blank=blank, template=FAMILIES["vicuna"].make().chat_template)
    for reply in REPLIES:
        ids = tokenize_pair(tokenizer, pair((HI,), reply))
        assert ids.prompt_ids + ids.chosen_ids == server(tokenizer, [HI, {"role": "assistant", "content": reply}])


def test_the_ids_are_the_same_however_the_message_is_written():
    tokenizer = tiny_tokenizer()
    with_more = tuple({**turn, "name": "someone"} for turn in PROMPTS["three turns"])
    assert tokenize_pair(tokenizer, pair(with_more, "Hello")) == tokenize_pair(
        tokenizer, pair(PROMPTS["three turns"], "Hello")
    )
