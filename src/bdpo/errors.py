"""The one exception for what a user can mend."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BdpoError(ValueError):
    """Bad input or a state the user can mend.

    The message is one sentence (or two) that says where the fault is and how to mend it; the command
    line prints it without a traceback and ends with exit code 2.
    """


class UnusableFolder(BdpoError):
    """What is to be written cannot be, or stands beside something else: another folder mends it.

    Which folder that is, only the caller knows who was given it (`chosen_by`).
    """

    def __init__(self, fault: str, more: str = ".", elsewhere: str = "choose another --out") -> None:
        super().__init__(f"{fault}{elsewhere}{more}")
        self.fault, self.more = fault, more


@contextmanager
def chosen_by(elsewhere: str) -> Iterator[None]:
    """In it an `UnusableFolder` says how to choose another one: the middle of its sentence."""
    try:
        yield
    except UnusableFolder as error:
        raise UnusableFolder(error.fault, error.more, elsewhere) from error


def first_line(error: Exception) -> str:
    """What an error says in one line: its first, and where that only announces the next, both.

    >>> first_line(RuntimeError("Error(s) in loading:\\n\\tsize mismatch for head.weight\\n\\tand more"))
    'Error(s) in loading: size mismatch for head.weight'
    """
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def nearest(name: object, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The name that was probably meant: the most similar one, or None where none is similar enough (0 to 1)."""
    return next(iter(difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)), None)


def refuse_twice(names: Iterable[str], sentence: str) -> None:
    """Raise BdpoError with the sentence, the name in place of its {}, where one of the names comes twice."""
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise BdpoError(sentence.format(twice))


def unknown(kind: str, name: object, known: Iterable[str]) -> BdpoError:
    """The refusal of a name that is not in a table, with the nearest that is.

    >>> print(unknown("weighting", "sigmoyd", ["sigmoid", "ratio"]))
    Unknown weighting 'sigmoyd': use one of sigmoid, ratio; did you mean 'sigmoid'?
    """
    names = list(known)
    near = nearest(name, names, cutoff=0.6)
    hint = f"; did you mean '{near}'?" if near else "."
    return BdpoError(f"Unknown {kind} {str(name)!r}: use one of {', '.join(names)}{hint}")
