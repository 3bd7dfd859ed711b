"""How much a chat template may make and take: it is a program of the model's author, and Jinja's sandbox has no bounds.

What operators, loops, calls and printing make is counted for each conversation. Jinja's own filters on long lists are
not, so this keeps off a template that takes all memory or time, and does not confine one that is written against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

CHARACTERS = 100_000_000
STEPS = 1_000_000  # of a template of up to `_SHORT` characters; of a longer one so many fewer
_SHORT = 1000
_WIDE = re.compile(r"\d{7}|\*")  # a width in a format


@contextmanager
def bounded() -> Iterator[None]:
    """In it transformers compiles chat templates with bounds; what they may make is counted from here on.

    A template that goes beyond raises SecurityError, which is a TemplateError.
    """
    from transformers.utils import chat_template_utils

    home: Any = chat_template_utils

    plain, home.ImmutableSandboxedEnvironment = home.ImmutableSandboxedEnvironment, BoundedEnvironment
    BoundedEnvironment.characters, BoundedEnvironment.steps = CHARACTERS, STEPS * _SHORT
    try:
        yield
    finally:
        home.ImmutableSandboxedEnvironment = plain


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with counters; both are of the conversation that is being rendered."""

    characters = CHARACTERS
    steps = STEPS * _SHORT
    intercepted_binops = frozenset({"+", "*", "**", "%"})
    cost = _SHORT  # of a step: what a loop's body may print as it stands

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.finalize = self._made
        self.globals.pop("lipsum")
        self.filters = {name: _with_small_numbers(function) for name, function in self.filters.items()}
        self.filters |= {"_made": self._made, "_stepped": self._stepped}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """The template, with loops and `~` counted."""
        self.cost = max(_SHORT, len(source))
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "_stepped")
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [_filtered(part, "_made") for part in joined.nodes]
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, once it is known how much it makes."""
        if operator == "%":
            _refuse_wide(left, right)
        else:
            self._make(_size_of(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, *given: Any, **named: Any) -> Any:
        """A call of a macro or a method."""
        self._step(1)
        _refuse_large((*given, *named.values()))
        return super().call(context, obj, *given, **named)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format`."""
        _refuse_wide(getattr(value, "__self__", ""))
        return super().wrap_str_format(value)

    def _make(self, characters: int) -> None:
        BoundedEnvironment.characters -= characters
        if BoundedEnvironment.characters < 0:
            raise SecurityError(f"it makes more than {CHARACTERS} characters")

    def _step(self, steps: int) -> None:
        BoundedEnvironment.steps -= steps * self.cost
        if BoundedEnvironment.steps < 0:
            raise SecurityError(f"it takes more than {STEPS * _SHORT // self.cost} steps")

    def _made(self, value: Any) -> Any:
        self._make(_size(value))
        return value

    def _stepped(self, values: Any) -> Any:
        """What a loop goes over: counted at once, or where its length is not known as it comes."""
        if hasattr(values, "__len__") or isinstance(values, Undefined):
            self._step(0 if isinstance(values, Undefined) else len(values))
            return values
        return self._one_by_one(values)

    def _one_by_one(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._step(1)
            yield value


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _with_small_numbers(function: Any) -> Any:
    @wraps(function)  # keeps the marks by which Jinja hands over its context
    def checked(*given: Any, **named: Any) -> Any:
        _refuse_large((*given, *named.values()))
        if function.__name__ == "do_format":
            _refuse_wide(given[0], *given[1:])
        return function(*given, **named)

    return checked


def _size(value: Any) -> int:
    if isinstance(value, int):
        return value.bit_length() // 8
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _size_of(operator: str, left: Any, right: Any) -> int:
    """At most so long is what `+`, `*` or `**` makes."""
    numbers = [value for value in (left, right) if isinstance(value, int)]
    if operator == "**" and len(numbers) == 2:
        return _size(abs(left) + 256) * max(0, right)
    if operator == "*" and len(numbers) == 1:
        return max(_size(value) for value in (left, right) if value is not numbers[0]) * max(0, numbers[0])
    return _size(left) + _size(right)


def _refuse_large(values: Iterable[Any]) -> None:
    if any(type(value) is int and value >= 10_000_000 for value in values):
        raise SecurityError(f"it makes more than {CHARACTERS} characters, or counts so far")


def _refuse_wide(form: Any, *given: Any) -> None:
    if isinstance(form, str) and _WIDE.search(form):
        raise SecurityError(f"it makes more than {CHARACTERS} characters, or has a width of its own in a format")
