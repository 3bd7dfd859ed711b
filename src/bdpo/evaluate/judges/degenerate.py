"""Replies that are no replies (pure): nothing, the prompt again, a loop, gibberish."""

from __future__ import annotations

import re
from collections import Counter

SPECIAL = re.compile(r"<\|[^|<>]{0,40}\|>|</?s>|</?(?:pad|unk|eos|bos)>|\[/?INST\]|<<?/?SYS>?>")
"""Control tokens that leaked into the text."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SPEAKERS = {"user", "assistant", "human", "ai", "q", "a", "question", "answer", "prompt"}
_EMPTY_ITEMS = re.compile(r"(?:\d+[.)]\s*){5,}")
_STUTTER = re.compile(r"([^\W\d_]{2,12})\1{5,}", re.IGNORECASE)  # one word made of the same letters over and over

_ODD = re.compile(r"[^\W\d_][#@%{}\[\]|\\^=<>;!?,][^\W\d_]|[{}|\\^<>�]|[a-z][A-Z]{2}|[a-z]{2}[A-Z][a-z]*[A-Z]")

FEWEST_WORDS = 25  # a text with fewer is too short to be called gibberish by its words
FUNCTION_SHARE = 0.28  # of the words; prose in the languages known here has 0.35 to 0.55
DENSE_SHARE = 0.21  # of the words where the others are long, as in a business plan
LONG_WORDS = 6.9  # letters, in the mean
FOREIGN_SHARE = 0.05  # below it the text is taken for one in a language that is not known here
ODD_SHARE = 0.08  # of words
LOOP_SHARE = 0.4  # of the words, in one run of repetitions

_ENGLISH = """
a about after all also although always am an and any are as at away back be because been before being but by can
can't could did do does don't down each even every few first for from get go had has have he her here him his how i
i'd i'll i'm if in into is isn't it it's its just keep last let like make many may me might more most much must my
need never new next no not now of off on once one only or other our out over own people please put same say she
should so some someone something still such take than that that's the their them then there these they thing things
this those through time to too try two under until up us use used using very want was way we well were what when
where which while who why will with without won't would yes yet you you'll you're your yourself
"""
_OTHERS = """
aber al alla alle als anche ao au auch auf aus aux avec bei bin ce ces cette che com come como con cuando da dans
das dass dat de dei del della dem den der des di die dir doch dos du een ein eine einem einen einer el elle em en er
es est esta este está et für gli haben hat hay het ich ihr ihre il ils im isso ist je kann kein keine können la las
le les leur lo los maar mais man mein met mich mir mit muy más na nach ne nel nicht niet noch non nos nous nur não o
oder ook op os ou par para pas per pero più plus por pour puede puedo qu que questa questo qui sa sans se sein ses
seu si sich sie sin sind sobre son sono sont su sua sur sus también te tout très tu um uma un una und une uns van
você von voor vor vous war wat wenn werden wie wir wird y ya zijn zu zum zur è
"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split() + _OTHERS.split())
"""Words that hold sentences together: the commonest of English, and of six more languages in Latin letters."""


def degenerate(prompt: str, reply: str) -> str | None:
    """Why a reply is none: "empty", "echo", "loop" or "gibberish"; None where it is one.

    Cannot see: sentences that are sound and make no sense; gibberish of fewer than 25 words that holds no odd word.
    Takes for a loop: a poem or a song that repeats one line through most of it.

    >>> degenerate("Name a river.", " "), degenerate("Name a river.", "Name a river."), degenerate("Why?", "no " * 9)
    ('empty', 'echo', 'loop')
    >>> degenerate("Name a river.", "The Loire.")
    """
    text = SPECIAL.sub(" ", reply)
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return "empty"
    if _is_echo(prompt, text):
        return "echo"
    if _EMPTY_ITEMS.fullmatch(text.strip()) or is_loop(words) or _stutters(text):
        return "loop"
    return "gibberish" if "```" not in text and is_gibberish(text, words) else None


def _is_echo(prompt: str, reply: str) -> bool:
    """Whether the reply is the prompt, once or several times, and nothing else."""
    asked, said = (" ".join(_WORD.findall(text.lower())) for text in (prompt, reply))
    if not asked or asked not in said:
        return False
    return set(said.replace(asked, " ").split()) <= _SPEAKERS


def is_loop(words: list[str]) -> bool:
    """Whether one run of repetitions, or phrases said three times and more, make up much of it, or it ends in a run.

    >>> is_loop("so it goes so it goes so it goes so it goes".split()), is_loop("it is what it is".split())
    (True, False)
    """
    for period in range(1, min(30, len(words) // 3) + 1):
        longest = run = 0
        for earlier, word in zip(words, words[period:], strict=False):
            run = run + 1 if earlier == word or (word is words[-1] and earlier.startswith(word)) else 0
            longest = max(longest, run)
        # `run` is now that of the end, where a word may be cut off; what is repeated stood before it once more
        if longest >= max(2 * period, 4) and longest + period >= LOOP_SHARE * len(words):
            return True
        if run >= max(3 * period, 6):
            return True
    phrases = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    return sum(n for n in phrases.values() if n >= 3) >= max(LOOP_SHARE * len(words), 8)


def _stutters(text: str) -> bool:
    stuttered = sum(len(match.group()) for match in _STUTTER.finditer(text))
    return stuttered >= 0.25 * len(text)


def is_gibberish(text: str, words: list[str]) -> bool:
    """Whether too many tokens are no words, or, in a text that is no list, too few are those that hold sentences
    together."""
    tokens = text.split()
    if sum(map(_is_mixed, tokens)) >= 2:
        return True
    odd = sum(map(_is_odd, tokens))
    if odd >= 3 and odd >= 2 * ODD_SHARE * len(words):
        return True
    latin = [word for word in words if _is_latin(word) and not word.isnumeric()]
    if len(latin) < max(FEWEST_WORDS, 0.6 * len(words)):  # too short to tell, or in another script
        return False
    function_share = sum(word in _FUNCTION_WORDS for word in latin) / len(latin)
    is_list = len(re.findall(r"[,\n:]", text)) >= len(words) / 4
    if odd >= ODD_SHARE * len(words):
        return function_share < 1.5 * FUNCTION_SHARE
    lengths = [len(word) for word in latin if word not in _FUNCTION_WORDS]
    is_dense = not odd and sum(lengths) >= LONG_WORDS * len(lengths)
    return FOREIGN_SHARE <= function_share < (DENSE_SHARE if is_dense else FUNCTION_SHARE) and not is_list


def _is_mixed(token: str) -> bool:
    """Whether it has letters of two scripts."""
    return len({_is_latin(c) for c in token if c.isalpha()}) > 1


def _is_odd(token: str) -> bool:
    """Whether signs stand between its letters, or capitals where none belong; the lines of a table are none of them."""
    return _ODD.search(token.strip("|")) is not None


def _is_latin(text: str) -> bool:
    return all(ord(c) < 0x250 for c in text)
