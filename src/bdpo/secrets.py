"""What is a key, a token or a password, by its name or by its looks: never written, read from the environment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bdpo.errors import BdpoError

_NAMES = re.compile(
    r"(^|[_\W])(token|(api|access|private|secret)[_\W]?key|secret|password|passwd|pwd|passphrase|credentials?"
    r"|authorization)$",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(r"[<\[].*[>\]]|", re.DOTALL)  # a tokenizer's token, such as eos_token: <|im_end|>; or nothing
_LOOKS = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|glpat-[\w-]{16,}|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|xox[abprs]-[\w-]{10,}|pypi-[\w-]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+|Bearer\s\S{8,})|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/\s@]+@"  # a name or a password in a URL
)


def is_secret(name: str, value: object) -> bool:
    """Whether a value is a secret, by what it is called or by how it looks. A secret is a text.

    >>> is_secret("hub_token", "abc"), is_secret("max_new_tokens", 64), is_secret("eos_token", "</s>")
    (True, False, False)
    >>> is_secret("name", "https://me:word@example.org/v1")
    True
    """
    if not isinstance(value, str):
        return False
    named = _NAMES.search(name) is not None and not _NO_SECRET.fullmatch(value)
    return named or _LOOKS.search(value) is not None


def refuse_secrets(content: Any, where: str, name: str = "") -> None:
    """Raise BdpoError where something in a recipe is a secret; it names the key and does not repeat the value.

    Args:
        name: of the content in the recipe, such as train.hub_token; "" for the whole recipe.
    """
    found = next(_secrets(content, name), None)
    if found is not None:
        raise BdpoError(
            f"{where}: {found} is a secret, and what is said is written into the results: take it out and "
            "set the environment variable HF_TOKEN (for an endpoint OPENAI_API_KEY)."
        )


def without_secrets(content: Any, name: str = "") -> Any:
    """The same with None for every secret in it, however deep in dictionaries, lists and tuples."""
    if isinstance(content, dict):
        return {key: without_secrets(value, str(key)) for key, value in content.items()}
    if type(content) in (list, tuple):
        return type(content)(without_secrets(value, name) for value in content)
    return None if is_secret(name, content) else content


def _secrets(content: Any, name: str) -> Iterator[str]:
    """Names of what is secret, `section.key`."""
    if isinstance(content, dict):
        for key, value in content.items():
            if is_secret("", key):
                yield f"a key of {name or 'the recipe'}"
            yield from _secrets(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _secrets(value, name)
    elif is_secret(name, content):
        yield name
