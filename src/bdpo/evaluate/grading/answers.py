"""Scorers of answers (pure): a reply or log-probabilities in, right or wrong out.

    GSM8K           same_number       the final number of the reply equals the reference's
    AdvGLUE, HHH    picked            the option with the highest log-probability
    SimpleQA        contains_answer   the reply says the reference answer (for want of a judge)

What each of them cannot see stands in its docstring: a wrong score that is known is better than one that is not.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from fractions import Fraction

# --- the final number ------------------------------------------------------------------------------------


def _nfkc(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match.group())


def _ungrouped(match: re.Match[str]) -> str:
    return re.sub(r"[ ,.'_]", "", match["whole"]) + (f".{match['part']}" if match["part"] else "")


_Rewrite = str | Callable[[re.Match[str]], str]
_REWRITES: tuple[tuple[re.Pattern[str], _Rewrite], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), plain)
    for pattern, plain in (
        # characters
        (r"[\u00ad\u200b-\u200f\u2060\ufeff]", ""),  # without width
        (r"[\u2018\u2019\u02bc\u00b4]", "'"),
        (r"[¼-¾⅐-⅞]", lambda match: " " + _nfkc(match).replace("\u2044", "/")),  # 2½ is 2 1/2
        (r"[⁺⁻]?[⁰¹²³⁴-⁹]+", lambda match: "^" + _nfkc(match)),
        (r"[^\x00-\x7f]+", _nfkc),  # blanks of any width, full-width digits and signs
        (r"[\u2010-\u2013\u2212]", "-"),
        (r"\u2044", "/"),
        # LaTeX
        (r"\\!|\\(?:left|right|displaystyle)(?![A-Za-z])|\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°", ""),
        (r"\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\{([,.])\}|\\([$%#&_])", r"\1\2"),
        (r"\\(?:text|math|mbox|bm|operatorname)[a-z]*\s*\{([^{}]*)\}", r"\1"),
        (r"(?<=\d)\s*\\[dtc]?frac", r" \\frac"),
        (r"\\[dtc]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}", r"\1/\2"),
        (r"\\[dtc]?frac\s*(\d)\s*(\d)", r"\1/\2"),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅]|(?<=\d)\s*x\s*(?=[$€£]?\d)", "*"),
        (r"\\div(?![A-Za-z])|÷", "/"),
        (r"\\(?:approx|equiv|implies|to|[Rr]ightarrow)(?![A-Za-z])|[≈≅→⇒]|[=-]>", "="),
        (r"\^\s*[({]\s*([-+]?\d+)\s*[)}]", r"^\1"),
        (r"(?<=[^\d\s)}])\^[-+]?\d+|(?<=[A-Za-z])_(?:\d+|\{\w+\})", ""),  # cm^2 and x_1 hold no number
        # words and signs about a number
        (r"\b(?:[Mm]inus|[Nn]egative)\s+(?=[$€£]?\.?\d)", "-"),
        (r"((?:[=({]|####)\s*-)\s+(?=[$€£]?\.?\d)", r"\1"),
        (r"\b(?:USD|EUR|GBP|CHF|CAD|AUD|INR|Rs)\.?(?=\d)", ""),
        (r"\b(\d\d?):00\b", r"\1"),
        # separators of thousands, and decimal commas
        (r"(?<![\d.,(])(?P<whole>\d{1,98}),(?P<part>\d\d?|\d{4,98}|(?<=\b0,)\d{3})(?![.,]?\d)", _ungrouped),
        (r"(?<![\d.,])(?P<whole>\d{1,3}(?P<by>[ ,'_])\d{3}(?:(?P=by)\d{3}){0,98})(?P<part>)(?!(?P=by)?\d)", _ungrouped),
        (r"(?<![\d.,])(?P<whole>\d\d?(?:,\d\d){1,98},\d{3})(?P<part>)(?!,?\d)", _ungrouped),  # 12,34,567 in India
        (r"(?<![\d.,])(?P<whole>\d{1,3}(?:\.\d{3}){1,98}),(?P<part>\d{1,98})(?![.,]?\d)", _ungrouped),
        (r"(?<![\d.,])(?P<whole>\d{1,3}(?:\.\d{3}){2,98})(?P<part>)(?![.,]?\d)", _ungrouped),
    )
)
"""How other ways of writing are brought to plain numbers, in this order."""

_DIGITS = r"\d{1,300}"  # no longer: a looping model writes endless numbers
_NUMBER = re.compile(  # a fraction or mixed number (1/2, 2 1/2), or else a plain number (18, 1000.50, .5, 2e3, 10^3)
    rf"(?<![A-Za-z\d/.,])(?:(?P<whole>{_DIGITS})(?: and)? )?"
    rf"(?P<top>{_DIGITS})/(?!0+\b)(?P<bottom>{_DIGITS})(?![\d/]|\.\d)"
    rf"|(?<![A-Za-z])(?P<plain>{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})"
    r"(?:\^(?P<power>[-+]?\d\d?)(?!\d))?(?:(?:[eE]|\s?\*\s?10\^)(?P<ten>[-+]?\d{1,3})(?!\d))?"
    r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b)?"
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}  # powers of ten
_MINUS = re.compile(r"(?P<operand>[A-Za-z]|[\d)%]\s*)?-[$£€¥\\*]*$")  # what stands before a number with a minus

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_LEAD = r"(?:(?:the )?(?:final )?(?:answer|total|result)(?: is)?|about|approximately|[a-z]\w{0,20}(?= ?=))"
_MARKED = re.compile(  # a number behind ####, and not a heading of words
    rf"####([^\w\n.]{{0,20}}(?:{_LEAD}[^\w\n.]{{0,20}})?(?:\.(?=\d))?\d.*)", re.IGNORECASE
)
_ANSWER = re.compile(r"\banswer(?: is|:)([^\w\n.]{0,20}(?:[a-z] ?=[^\w\n.]{0,20})?(?:\.(?=\d))?\d.*)", re.IGNORECASE)
_LIST_POINT = re.compile(r"\s*\d+[.):]\s+\w")  # "#### 2. Add them up" is a heading as well
_ASIDE = re.compile(r"\([^()]*\)")
_CLAUSE_END = re.compile(r"[,;.!?]\s")
_STEP = re.compile(r"\s*(?P<sign>to\b|[-+*/])[\s$£€-]*")

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_DAY = r"\d\d?(?:st|nd|rd|th)?"
_NO_ANSWER = re.compile(  # points of a list, steps and full dates: numbers only where the reply has no other
    r"^[ \t>*_#-]*\d{1,3}[.):](?=\*{0,2}\s+\S)|\b[Ss]tep \d+\b|\b\d{4}-\d\d?-\d\d?\b|\b\d\d?([/.])\d\d?\1\d{4}\b"
    rf"|\b{_MONTH} {_DAY},? \d{{4}}\b|\b{_DAY} (?:of )?{_MONTH},? \d{{4}}\b",
    re.MULTILINE,
)


def final_number(reply: str) -> Fraction | None:
    r"""The number a reply ends on, or None where it has none.

    It is the one stated behind the last `####`, else in the last `\boxed{}`, else behind the last "answer is" or
    "answer:"; else the last in the text. What is stated is the first number, or calculation, behind the last equals
    sign of the first clause that has a number; remarks in brackets do not count. A range gives its upper end.

    Separators of thousands, decimal commas, LaTeX, currency signs, units with their exponents, a closing period and
    Markdown's stars are no part of the number; fractions, mixed numbers, powers and words such as "million" count by
    their value, a percentage by the number before the sign. A minus sign counts where it touches the number and no
    operand stands before it. Digits that follow a letter (H2O) are no number. A reply without digits may end on
    number words.

    Cannot see: "k" for a thousand, roots and pi, a decimal point with three digits behind it that is meant for
    thousands (1.234), lists of numbers with blanks (100 200), and in a reply without a mark an answer followed by
    another number ("18 dollars in 2024").

    >>> final_number("16 - 7 = 9 eggs at $2 make **$1,018.00** a year.")
    Fraction(1018, 1)
    >>> final_number("It is #### -3/4 of it, all 7 of them."), final_number(r"\boxed{9 \times 2 = 18\text{ cm}^2}")
    (Fraction(-3, 4), Fraction(18, 1))
    """
    text = reply
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    marked = [found for found in _MARKED.findall(text) if not _LIST_POINT.match(found)]
    for stated in (marked, _BOXED.findall(text), _ANSWER.findall(text)):
        values = [value for value in map(_stated, stated[::-1]) if value is not None]
        if values:
            return values[0]
    found = list(_NUMBER.finditer(_NO_ANSWER.sub(" ", text))) or list(_NUMBER.finditer(text))
    return _value(found[-1]) if found else _in_words(text)


def same_number(reply: str, answer: str) -> bool:
    """Whether reply and reference answer end on numbers of equal value; a reply without a number is wrong.

    >>> same_number("So it costs $2,125.00.", "2125"), same_number("About 2,124.", "2125")
    (True, False)
    """
    found = final_number(reply)
    return found is not None and found == final_number(answer)


def _stated(text: str) -> Fraction | None:
    """The value of what is stated behind a mark; None where it has no number."""
    for choice in (_ASIDE.sub(" ", text), text):
        clauses = [clause for clause in _CLAUSE_END.split(choice) if _NUMBER.search(clause)]
        if clauses:
            last = [side for side in clauses[0].split("=") if _NUMBER.search(side)][-1]
            return _calculated(last)
    return _in_words(text)


def _calculated(text: str) -> Fraction:
    """The first number of a text with what is directly added to it, taken from it, or multiplied or divided by it."""
    number = _NUMBER.search(text)
    assert number is not None
    total, term = Fraction(0), _value(number)
    while (step := _STEP.match(text, number.end())) and (number := _NUMBER.match(text, step.end())):
        sign, value = step["sign"], _value(number)
        if sign == "*":
            term *= value
        elif sign == "/":
            term = term / value if value else term
        elif sign == "to" or (sign == "-" and abs(value) > total + term):
            return abs(value)  # a range
        else:
            total, term = total + term, value if sign == "+" else -abs(value)
    return total + term


def _value(match: re.Match[str]) -> Fraction:
    part = match.groupdict()
    if part["plain"]:
        size = Fraction(part["plain"])
        size = size ** int(part["power"] or 1) if size else size
        size *= Fraction(10) ** (int(part["ten"] or 0) + _SCALES.get(part["scale"] or "", 0))
    else:
        size = Fraction(part["whole"] or 0) + Fraction(int(part["top"]), int(part["bottom"]))
    minus = _MINUS.search(match.string[max(0, match.start() - 20) : match.start()])
    return -size if minus and minus["operand"] is None else size


_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen
"""
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {
    **{word: n for n, word in enumerate(_SMALL.split())},
    **{word: 10 * n for n, word in enumerate(_TENS.split()) if word != "-"},
}
_IN_WORDS = re.compile(rf"\b(?:(?:{'|'.join([*_WORDS, *_SCALES])}|and)\b[\s-]*)+", re.IGNORECASE)


def _in_words(text: str) -> Fraction | None:
    """The last number in words, or None; "one" by itself is a pronoun as often."""
    runs = [[word for word in re.findall(r"[a-z]+", run.lower()) if word != "and"] for run in _IN_WORDS.findall(text)]
    runs = [run for run in runs if run and run != ["one"] and run[0] in _WORDS]
    if not runs:
        return None
    total = group = 0  # group: what stands before the next thousand or million
    for word in runs[-1]:
        if word in _WORDS:
            group += _WORDS[word]
        elif word == "hundred":
            group *= 100
        else:
            total, group = total + group * 10 ** _SCALES[word], 0
    return Fraction(total + group)


# --- the option of highest log-probability ----------------------------------------------------------------


def picked(logps: Sequence[float]) -> int | None:
    """Index of the option with the highest log-probability; None where the highest is shared or a value is NaN,
    so that a model that cannot tell the options apart is not right by their order.

    Args:
        logps: summed log-probability of each option's tokens, as BIG-bench scores HHH.

    >>> picked([-3.0, -1.5]), picked([-2.0, -2.0])
    (1, None)
    """
    if not logps or any(math.isnan(logp) for logp in logps):
        return None
    best = max(logps)
    return logps.index(best) if list(logps).count(best) == 1 else None


# --- the reference answer in the reply --------------------------------------------------------------------

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W_]+")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_SKIPPED = {"the", "of"}
_MONTHS = {
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
}


def contains_answer(reply: str, answer: str) -> bool:
    """Whether the words of the reference answer stand in the reply, one after the other.

    Case, accents, punctuation, "the", "of", a leading article, thousands commas and the endings of ordinals do not
    matter, nor does the order within a date with a month's name. For want of a judge: it takes a denial ("not
    Paris") and a list of guesses for right, and other words for the same thing ("twelve", "the UK") for wrong.

    >>> contains_answer("It was on the 5th of April 1990.", "April 5, 1990"), contains_answer("In 1991.", "1990")
    (True, False)
    """
    said, wanted = _words(reply), _words(answer)
    if wanted[:1] in (["a"], ["an"]):
        wanted = wanted[1:] or wanted
    if not wanted:
        return False
    dated = not _MONTHS.isdisjoint(wanted) and len(wanted) > 1
    windows = (said[at : at + len(wanted)] for at in range(len(said) - len(wanted) + 1))
    return any(sorted(window) == sorted(wanted) if dated else window == wanted for window in windows)


def _words(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()
    plain = _ORDINAL.sub(r"\1", plain.replace("'", "").replace("’", ""))
    words = [re.sub(r",(?=\d{3}(?!\d))", "", word) for word in _WORD.findall(plain)]
    return [word for word in words if word not in _SKIPPED]
