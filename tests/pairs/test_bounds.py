"""Chat templates make what they made without bounds, and too much of nothing. Refusals stand in tests/bad_inputs."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bdpo.errors import BdpoError
from bdpo.pairs import bounds
from bdpo.pairs.bounds import BoundedEnvironment, bounded
from bdpo.pairs.rendering import render
from tiny import tiny_tokenizer

TEMPLATES = (
    "{% for m in messages %}{{ loop.index ~ m.content + loop.last | string }}{{ loop.length }}{% else %}-{% endfor %}",
    "{% for m in messages | reverse %}{{ m.content }}{{ loop.revindex }}{{ loop.last }}{% endfor %}",
    "{% for m in messages | selectattr('role', 'eq', 'user') %}{{ loop.length }}{{ m.content }}{% endfor %}",
    "{{ 'a%s' % 'b' }}{{ '%s%%' | format(3) }}{{ '{} {:>5}'.format(1, 2) }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'ab' * 3 }}",
    "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{{ [1] + [2] }}{{ 1.5 * 2 }}",
    "{% set s = namespace(n=0) %}{% for i in range(5) %}{% set s.n = s.n + i %}{% endfor %}{{ s.n }}{{ nothing }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v | trim }};{% endfor %}{% for x in nothing %}{{ x }}{% endfor %}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_within_the_bounds_writes_what_it_wrote(template: str) -> None:
    messages = [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Yes."}]
    kinds = (ImmutableSandboxedEnvironment, BoundedEnvironment)
    plain, here = (kind().from_string(template).render(messages=messages) for kind in kinds)
    assert here == plain != ""


def test_what_one_conversation_makes_is_not_counted_against_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CHARACTERS", 10)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}"
    for _ in range(5):
        assert render(tokenizer, ({"role": "user", "content": "7 chars"},), "A", add_generation_prompt=True)
    with pytest.raises(BdpoError, match="it makes more than 10 characters"):
        render(tokenizer, ({"role": "user", "content": "eleven char"},), "A", add_generation_prompt=True)


def test_other_templates_of_the_process_are_left_alone() -> None:
    from transformers.utils import chat_template_utils

    with bounded():
        assert chat_template_utils.ImmutableSandboxedEnvironment is BoundedEnvironment
    assert chat_template_utils.ImmutableSandboxedEnvironment is ImmutableSandboxedEnvironment
