"""Variables set in a chat template render as those that are handed over at each rendering."""

import pytest

from bdpo.errors import BdpoError
from bdpo.models.template import set_template_variables
from bdpo.tokens import prompt_ids, tokenizer_key
from tiny import CHATML, tiny_tokenizer

HI = [{"role": "user", "content": "Hi"}]
THINKING = (
    "\n{%- macro mode() %}{{ mood if mood is defined else 'no mood' }}{% endmacro %}{{ mode() }}" + CHATML + "{% if "
    "add_generation_prompt and enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}"
    "{% for word in words or [] %}{{ word }},{% endfor %}{{ deep.a.b if deep is defined else '' }}"
)


@pytest.mark.parametrize("template", [CHATML, THINKING, "\n" + THINKING, "{{ strftime_now('%d') }}" + THINKING])
@pytest.mark.parametrize(
    "variables",
    [
        {}, {"enable_thinking": False}, {"enable_thinking": True, "mood": "it's \"so\" \\ {{ no }} %} é\n"},
        {"words": ["a", None, 1.5, True]}, {"deep": {"a": {"b": [1]}}}, {"mood": None},
    ],
)  # fmt: skip
def test_as_apply_chat_template_does(template, variables):
    handed, baked = tiny_tokenizer(template), tiny_tokenizer(template)
    set_template_variables(baked, variables)
    set_template_variables(baked, variables)  # again changes nothing
    for add in (True, False):
        told = {"add_generation_prompt": add, "tokenize": False}
        if "strftime_now" not in template:
            assert baked.apply_chat_template(HI, **told) == handed.apply_chat_template(HI, **told, **variables)
    if template is THINKING and "enable_thinking" in variables and not variables["enable_thinking"]:
        assert baked.decode(prompt_ids(baked, HI, "a")).endswith("assistant\n<think>\n\n</think>")
    assert (tokenizer_key(baked) == tokenizer_key(handed)) == (not variables)


@pytest.mark.parametrize("name", ["a-b", "", "1a", "messages"])
def test_names_that_are_none(name):
    with pytest.raises(BdpoError, match=f"'{name}' cannot be a variable of a chat template"):
        set_template_variables(tiny_tokenizer(), {name: 1})
    with pytest.raises(BdpoError, match="no chat template to give variables to"):
        set_template_variables(tiny_tokenizer(None), {"a": 1})
