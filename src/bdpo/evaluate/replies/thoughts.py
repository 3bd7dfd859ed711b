"""What a model thinks before it answers, taken off its reply (pure): no scorer and no judge may see it.

Models mark a thought in their own ways, of which `MARKS` is the table. The opening mark may be missing, where the chat
template has written it at the end of the prompt; the closing one is missing where a limit cut the thought.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A reply, taken apart."""

    thought: str  # "" where there is none
    answer: str  # what a user is shown; "" where the thought never ends
    unfinished: bool = False  # the thought never ends, or a limit cut the reply before an answer began


@dataclass(frozen=True)
class Marks:
    """How a thought begins and ends in some models' replies."""

    opens: str  # regular expression, at the beginning of a line
    closes: str
    tokens: tuple[str, ...] = ()  # control tokens that must not be lost when a reply is decoded
    alone: bool = True  # the closing mark by itself tells that all before it was a thought

    def split(self, text: str, *, cut: bool) -> Said | None:
        """The reply without the thoughts that stand between these marks; None where there is no such mark."""
        first = self._closing.search(text)
        thoughts = []
        if self.alone and first and not self._opening.search(text, 0, first.end()):
            thoughts, text = [text[: first.start()]], text[first.end() :]
        while (opened := self._opening.search(text)) and (closed := self._closing.search(text, opened.end())):
            thoughts.append(text[opened.end() : closed.start()])
            text = text[: opened.start()] + text[closed.end() :]
        never_ends = opened is not None and (cut or not text[: opened.start()].strip())
        if opened is not None and never_ends:
            thoughts.append(text[opened.end() :])
            text = ""
        if not thoughts:
            return None
        answer = _WRAPPING.sub("", text).strip()
        told = "\n\n".join(stripped for thought in thoughts if (stripped := thought.strip()))
        return Said(told, answer, never_ends or (cut and not answer))

    @property
    def _opening(self) -> re.Pattern[str]:
        return re.compile(rf"(?m)^[ \t]*(?:{self.opens})")

    @property
    def _closing(self) -> re.Pattern[str]:
        """The closing mark, unless it stands between quotation marks: then it is only spoken of."""
        return re.compile(rf"(?<![`\"'])(?:{self.closes})|(?:{self.closes})(?![`\"'])")


_NAMES = (  # with what some put before them: seed:think, longcat_think, antThinking
    r"(?:\w+[_:]|ant)?(?:thinking|think|thoughts?|reasoning|reasoning_content|reflection|scratchpad|monologue)"
)
_CHANNEL = r"(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>"

MARKS = (
    Marks(
        rf"< ?(?i:{_NAMES})(?:\s[^<>\n]{{0,80}})?>", rf"</ ?(?i:{_NAMES}) ?>", ("<think>", "</think>")
    ),  # DeepSeek-R1, Qwen3, GLM, Phi-4, ...
    Marks(
        r"<[|｜](?:(?:start|begin)[_▁](?:of[_▁])?)?(?:think|thinking)[|｜]>",
        r"<[|｜](?:end[_▁](?:of[_▁])?|/)(?:think|thinking)[|｜]>",
    ),  # the same as control tokens
    Marks(r"\[THINK\]", r"\[/THINK\]", ("[THINK]", "[/THINK]")),  # Magistral
    Marks("◁think▷", "◁/think▷", ("◁think▷", "◁/think▷")),  # Kimi
    Marks(
        rf"{_CHANNEL}(?:analysis|commentary)\b[^<]*<\|message\|>", rf"{_CHANNEL}final\b[^<]*(?:<\|constrain\|>[^<]*)?"
        r"<\|message\|>", ("<|channel|>", "<|message|>", "<|start|>", "<|end|>"),
    ),  # gpt-oss
    Marks("analysis(?=[A-Z])", "assistantfinal", alone=False),  # gpt-oss without its control tokens
    Marks(r"<\|channel>thought\b", r"<channel\|>", ("<|channel>", "<channel|>")),  # Gemma 4
    Marks(
        r"<\|START_THINKING\|>", r"<\|END_THINKING\|>", ("<|START_THINKING|>", "<|END_THINKING|>")
    ),  # Command A Reasoning
    Marks(
        r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>", ("<|begin_of_thought|>", "<|end_of_thought|>")
    ),  # OpenThinker
    Marks(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>", ("<|inner_prefix|>", "<|inner_suffix|>")),  # Apertus
    Marks("<unused94>(?:thought)?", "<unused95>", ("<unused94>", "<unused95>")),  # MedGemma
    Marks("Here is my thought process:", "Here is my response:", alone=False),  # Granite 3.2
)  # fmt: skip
"""The marks that are known, one line a way of writing."""

_WRAPPING = re.compile(
    r"\A\s*(?:<(?:answer|response|output|final|final_answer)>|<\|begin_of_solution\|>|<\|START_RESPONSE\|>)"
    r"|(?:</(?:answer|response|output|final|final_answer)>|<\|end_of_solution\|>|<\|END_RESPONSE\|>|<\|return\|>"
    r"|<\|end\|>)\s*\Z"
)
_MARK = r"(?:<[^<>\s]+>|\[[^\[\]\s]+\]|◁[^◁▷\s]+▷)"  # a word in brackets


def split_thought(text: str, thought: str = "", *, cut: bool = False) -> Said:
    r"""Thought and answer of a reply. Where there is no thought, the answer is the whole text as it is.

    Every closed thought that begins a line is taken off, and one that is never closed where it begins the reply or a
    limit cut it. A closing mark without an opening one ends a thought that began with the reply, so a reply that only
    speaks of `</think>` loses what stands before it, unless it puts the mark between quotation marks.

    Args:
        thought: what a server handed over apart from the text.
        cut: a limit ended the reply.

    >>> split_thought("<think>\nThey want 4.\n</think>\n\nIt is 4.")
    Said(thought='They want 4.', answer='It is 4.', unfinished=False)
    >>> split_thought("They want 4.\n</think>\n\nIt is 4.").answer, split_thought("It is 4.").answer
    ('It is 4.', 'It is 4.')
    >>> split_thought("<think>\nThey want", cut=True)
    Said(thought='They want', answer='', unfinished=True)
    """
    found = next((said for marks in MARKS if (said := marks.split(text, cut=cut)) is not None), None)
    if found is None:
        return Said(thought, text, bool(thought) and cut and not text.strip())
    return Said("\n\n".join(filter(None, (thought, found.thought))), found.answer, found.unfinished)


def opened_at_end(prompt: str) -> str:
    r"""The mark with which a prompt opens the thought of the reply that is to come; "" where it does not.

    >>> opened_at_end("<|im_start|>assistant\n<think>\n"), opened_at_end("<think>\n\n</think>\n\n")
    ('<think>', '')
    """
    found = (re.search(rf"(?:{marks.opens})(?=\s*\Z)", prompt) for marks in MARKS)
    return next((match[0] for match in found if match), "")


def marks_around(rendered: str, thought: str, answer: str) -> tuple[str, str] | None:
    r"""The words in brackets that a chat template writes before and behind a thought, where it writes any.

    >>> marks_around("<user>Hi<bot><muse>\nBecause.\n</muse>\nYes.", "Because.", "Yes.")
    ('<muse>', '</muse>')
    """
    before, found, behind = rendered.partition(thought)
    opening, closing = re.search(rf"{_MARK}(?=\s*\Z)", before), re.match(rf"\s*({_MARK})", behind)
    if not found or answer not in behind or opening is None or closing is None:
        return None
    return opening[0], closing[1]


def is_known(opening: str, closing: str) -> bool:
    """Whether `MARKS` has these two, or they are parts of what it has."""
    return any(
        {opening, closing} <= {*m.tokens} or (re.fullmatch(m.opens, opening) and re.fullmatch(m.closes, closing))
        for m in MARKS
    )
