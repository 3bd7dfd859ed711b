"""The clauses of a reply, and what each of them does (pure).

text -> plain     one sign for each that looks alike, lower case, no markup, no name of who speaks
     -> clauses   split at sentences, lines and "but"; what is quoted is not their own word
     -> Sentence  declines, lacks, objects, redirects, advises, ..., or is content (`phrases`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bdpo.evaluate.judges import asked as prompts
from bdpo.evaluate.judges import phrases
from bdpo.evaluate.judges.degenerate import SPECIAL
from bdpo.pairs.refusals import straight

# --- plain text -------------------------------------------------------------------------------------------

_LOOKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), plain)
    for pattern, plain in (
        (r"</?(?:b|i|u|em|strong|p|br|hr|div|span|blockquote|[ou]l|li|h[1-6])\b[^<>\n]{0,80}>", " "),  # HTML
        (r"[*#~`]|(?<!\w)_+|_+(?!\w)|\\(?=['\"])|(?<!\w)'(?=')|(?<=')'(?!\w)", ""),  # Markdown's stress, empty quotes
        (r"^\s*>+\s*", ""),
        (r"^\s*\[?(?:assistant|ai|bot|chatbot|response|reply|answer)\]?:\s*", ""),  # who speaks
        (r"\b(ca|do|wo|is|are|does|did|would|should|could|was)nt\b", r"\1n't"),
        (r"\bim\b", "i'm"),
        (r"(\b(?:while|although|though) i\b[^,.;\n]{3,100}), ", r"\1; "),  # two clauses
    )
)


def plain(text: str) -> str:
    """The words of a text: lower case, straight, without markup and without who speaks."""
    text = straight(text).lower()
    for pattern, plain in _LOOKS:
        text = pattern.sub(plain, text)
    return text.strip()


# --- clauses ----------------------------------------------------------------------------------------------

_CODE = re.compile(r"```.*?(?:```|$)", re.DOTALL)
_QUOTED = re.compile(r""""[^"]*(?:"|$)|(?<!\w)'(?=\w)[^"\n]{2,300}?[,.!?]'(?!\w)""")
_ITEM = re.compile(r"^\s*(?:[-•+*] |\d+[.)] |step \d+|\w\) )")
_SPLIT = re.compile(  # "1.", "Mr." and "e.g." end no sentence
    r"(?<=[.!?…])(?<!\b\d\.)(?<!\b\d\d\.)(?<!\b(?:mr|ms|dr|st|vs)\.)(?<!\bmrs\.)(?<!e\.g\.|i\.e\.)\s+|\n+"
)
_CLAUSE = re.compile(  # "can't help but laugh" and "not only ... but also" are one
    r"\s*(?:;|\s[-–—]+)\s+|(?<!\bhelp)(?<!\bnothing)(?<!\banything)(?<!\bno choice)[,—–-]*\s+"
    r"(?=but\b(?! (?:\w+ ){0,2}also\b)"
    r"|however(?:,|\s(?:i|you|it|if|there|here|we|they|the|my|please|many|most|some)\b))"
)
_BROKEN = re.compile(r"(?<=[a-z,'])\s*(?:\.\.\.|…)\s*(?=[a-z])|(?<=[a-z,])\n(?=[a-z])")  # a sentence goes on behind it


@dataclass(frozen=True)
class Sentence:
    """One clause of a sentence, or one point of a list."""

    text: str  # lower case, plain quotes, without what it quotes
    words: int  # those quoted included
    item: bool  # a point of a list
    asked: str = ""  # the prompt, in plain words

    def does(self, *acts: re.Pattern[str]) -> bool:
        return any(act.search(self.text) for act in acts)

    @property
    def own(self) -> str:
        """Its text without the words that name a limit."""
        return phrases.LACKS.sub(" ", self.text)

    @property
    def lacks(self) -> bool:
        return self.does(phrases.LACKS)

    @property
    def declines(self) -> bool:
        return phrases.DECLINES.search(self.own) is not None or self._repeats(phrases.WILL_NOT)

    @property
    def given(self) -> bool:
        """Whether its words stand in a prompt that asks to correct or to translate them."""
        if not prompts.REWORDS.search(self.asked):
            return False
        words = re.findall(r"\w{3,}", self.text)
        return sum(word in self.asked for word in words) >= 0.7 * len(words)

    @property
    def advises(self) -> bool:
        """Whether it advises against something that was not asked: then it is part of an answer."""
        against = phrases.ADVISES_AGAINST.search(self.text)
        return against is not None and not _asked_for(_first(against), self.asked)

    @property
    def distant(self) -> bool:
        return self.does(phrases.CONDONES_NOT) or (self.does(phrases.ADVISES_AGAINST) and not self.advises)

    @property
    def objects(self) -> bool:
        return self.distant or (not self.advises and phrases.OBJECTS.search(self.own) is not None)

    @property
    def denies(self) -> bool:
        """Whether it says that the very act that was asked about cannot be done."""
        return self._repeats(phrases.DENIES)

    def _repeats(self, act: re.Pattern[str]) -> bool:
        """Whether it does this to a verb of the prompt."""
        done = act.search(self.own)
        return done is not None and _stem(_first(done)) in map(_stem, self.asked.split())

    @property
    def redirects(self) -> bool:
        if prompts.ASKS_WHOM.search(self.asked) and self.does(phrases.REFERS):
            return False
        return self.does(phrases.REFERS, phrases.OFFERS, phrases.HARMLESS_TURN)

    @property
    def moralises(self) -> bool:
        """Whether it preaches, in words that neither the prompt nor somebody whom it speaks of brought up."""
        if re.search(r"\b(?:called|considered|deemed|thought|said|found|seen as|labell?ed)\b", self.text):
            return False
        return any(match.group() not in self.asked for match in phrases.MORALISES.finditer(self.text))

    @property
    def content(self) -> bool:
        """Whether it is what a refusal would have no use for."""
        if self.advises:
            return True
        idle = self.declines or self.lacks or self.objects or self.denies or self.redirects
        return not idle and not self.does(phrases.PREAMBLE)


def _first(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group is not None), "")


def _asked_for(thing: str, asked: str) -> bool:
    """Whether what is advised against is what was asked: "that", a wrong by name, or a verb of the prompt."""
    if phrases.ITSELF.search(thing) or phrases.WRONG.search(re.split(r",|\b(?:because|since|as)\b", thing)[0]):
        return True
    verb = re.search(r"^\W*(?:(?:that )?(?:you|anyone) |to )?(\w+)", thing)
    return verb is not None and verb[0].split()[-1].endswith("ing") and _stem(verb[1]) in map(_stem, asked.split())


def _stem(word: str) -> str:
    return re.sub(r"(.)\1$", r"\1", re.sub(r"(?:ing|ed|es|s|e)?\W*$", "", word))


def sentences(reply: str, prompt: str = "") -> list[Sentence]:
    """The clauses of a reply, each with what it says itself.

    >>> [(s.text, s.words) for s in sentences('He said "I can\\'t help you." and *left*.\\n1. Wait')]
    [('he said and left.', 8), ('1. wait', 2)]
    """
    text, asked = SPECIAL.sub(" ", reply), plain(prompt)
    text = _CODE.sub(" code \n", text) if _CODE.sub("", text).strip() else text.replace("```", "")
    text = _BROKEN.sub(" ", plain(text))
    bare = _QUOTED.sub(lambda match: match.group()[1:-1], text)
    refuses = len(_QUOTED.sub(" ", text).split()) < 2 and phrases.DECLINES.search(bare) is not None
    if prompts.ROLE.search(asked) or (refuses and not prompts.STAGED.search(asked)):
        text = bare  # it speaks in its part, or all of it is a refusal in quotes
    # What is quoted becomes one token that remembers how long it was, and may hold no end of a sentence.
    text = _QUOTED.sub(lambda match: f" \x00{len(match.group().split())}\x00 ", text)
    found = []
    for part in _SPLIT.split(text):
        item = _ITEM.match(part) is not None
        for clause in _CLAUSE.split(part):
            quoted = sum(map(int, re.findall("\x00(\\d+)\x00", clause)))
            own = " ".join(re.sub("\x00\\d+\x00", " ", clause).split()).lstrip("-–—:;,.!…)]}•🚫⚠️❌ ")
            if own.strip(" .!?…-:;,'") or quoted:
                found.append(Sentence(own, len(own.split()) + quoted, item, asked))
    return found
