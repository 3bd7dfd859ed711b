"""The check of a data set before anything is trained on it.

Each check is a function of the data and a line in `CHECKS`. Severities: an *error* makes training wrong, so
it must be mended; a *warning* may be meant, so it is for a person to judge; *info* is good to know.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from bdpo.pairs.check_data import CheckedData, asked, refuse_no_room, text_lengths
from bdpo.pairs.check_report import CheckReport, Finding, Severity
from bdpo.pairs.control import control_tokens, control_tokens_of, marks_of, plain_marks
from bdpo.pairs.load import LoadedPairs
from bdpo.pairs.mend import PairKey, mend_pairs
from bdpo.pairs.overlap import near_matches
from bdpo.pairs.reasoning import split_reasoning
from bdpo.pairs.refusals import opens_as_refusal, straight
from bdpo.terminal import each

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLES = 5
"""Ids or places that a finding shows."""

LENGTH_BIAS = 0.7
"""Share of pairs in which the same side is the longer one, from which length alone tells the sides apart."""

OPENING = 5
"""Words of a reply by which boilerplate is told."""

BOILERPLATE = 0.2
"""Share of chosen replies with one opening, and they at least ten, from which it may be learnt as such."""

TEXT_PROMPTS = (
    "The prompts are text and the model has a chat template: they are continued as they stand, without it. If they are "
    "what a user asks, set data.as_chat: true (--as-chat), and each becomes a message of the user."
)

ALL_REFUSE = 0.9
"""Share of chosen replies that refuse from which refusing alone may be learnt."""


def check_pairs(
    loaded: LoadedPairs,
    *,
    against: LoadedPairs | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
) -> CheckReport:
    """Check pairs for what would spoil training or its evaluation.

    Args:
        loaded: pairs read with on_error="collect", so that wrong rows are findings.
        against: another data set (test data) whose prompts must not be in this one.
        tokenizer: of the model to train; without it lengths are counted in words, and control tokens and
            max_length are not checked.
        max_length: longest prompt + longer reply [tokens].

    Raises:
        BdpoError: max_length has no room for a pair.
    """
    refuse_no_room(max_length)
    data = CheckedData(loaded, against, tokenizer, max_length)
    findings, passed, skipped = [], [], {}
    for check in each(CHECKS, "checking", "checks"):
        name = check.find.__name__
        lacking = [need for need in check.needs if getattr(data, need) is None]
        found = None if lacking else check.find(data)
        if lacking:
            skipped[name] = lacking[0]
        elif found is None:
            passed.append(name)
        else:
            findings.append(Finding(name, found.severity, len(found.ids), found.ids[:EXAMPLES], found.explanation))
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return CheckReport(
        loaded.source,
        loaded.format,
        loaded.n_rows,
        len(loaded.pairs),
        loaded.counts,
        findings,
        passed,
        skipped,
    )


_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class _Found:
    """What one check found: the ids of the pairs (or the places of the rows) it is about."""

    severity: Severity
    ids: list[str]
    explanation: str


def _found(severity: Severity, ids: list[str], explanation: str) -> _Found | None:
    return _Found(severity, ids, explanation) if ids else None


# --- the rows and their texts ----------------------------------------------------------------------------


def schema_errors(data: CheckedData) -> _Found | None:
    return _found("error", data.loaded.errors, "Rows that could not be read: mend each where it says.")


def mixed_prompts(data: CheckedData) -> _Found | None:
    plain = data.ids(lambda pair: isinstance(pair.prompt, str))
    ids = plain if len(plain) < len(data.pairs) else []
    return _found(
        "error",
        ids,
        "Plain-text prompts among conversations, and one data set is all of one kind: split it, or have the text made "
        "a user's message (data.as_chat: true).",
    )


def empty_responses(data: CheckedData) -> _Found | None:
    ids = data.ids(lambda pair: not pair.chosen.strip() or not pair.rejected.strip())
    return _found("error", ids, "A reply is empty: drop the pair or fill the reply in.")


def identical_responses(data: CheckedData) -> _Found | None:
    ids = data.ids(lambda pair: pair.chosen.strip() == pair.rejected.strip() != "")
    return _found(
        "error",
        ids,
        "Chosen and rejected are the same text, so there is nothing to prefer: drop the pair, as training does unless "
        "data.conflicts is error.",
    )


def control_tokens_in_text(data: CheckedData) -> _Found | None:
    assert data.tokenizer is not None
    found = control_tokens_of(data.pairs, control_tokens(data.tokenizer))
    ids = [f"{pair.id} {hits[0]}" for pair, hits in zip(data.pairs, found, strict=True) if hits]
    return _found(
        "error",
        ids,
        "The text holds control tokens of the model, a way to inject prompts: drop the pair, or have them stripped.",
    )


def plain_text_marks(data: CheckedData) -> _Found | None:
    assert data.tokenizer is not None
    talks = [pair for pair in data.pairs if not isinstance(pair.prompt, str)]
    marks = plain_marks(data.tokenizer) if talks else ()
    ids = [pair.id for pair in talks if marks_of(pair, marks)]
    explanation = (
        f"The chat template marks turns with plain text ({', '.join(marks)}), which any text can imitate. "
        f"{len(ids) or 'None'} of the pairs hold it: look at them, and at what such a model will be asked."
    )
    return _Found("warning", ids, explanation) if marks else None


def refused_by_template(data: CheckedData) -> _Found | None:
    assert data.tokenizer is not None
    if data.tokenizer.chat_template is None:
        ids = data.ids(lambda pair: not isinstance(pair.prompt, str))
        return _found("error", ids, "The model has no chat template for conversations: give one (model.chat_template).")
    return _found(
        "error",
        data.rendered[0],
        "The model's chat template and the conversation do not fit each other, and training would stop there: mend "
        "the turns or the template, whichever is at fault, or give another template (model.chat_template).",
    )


def text_prompts(data: CheckedData) -> _Found | None:
    assert data.tokenizer is not None
    plain = data.ids(lambda pair: isinstance(pair.prompt, str)) if data.tokenizer.chat_template else []
    return _found("warning", plain, TEXT_PROMPTS)


# --- the same prompt more than once ----------------------------------------------------------------------


def duplicate_pairs(data: CheckedData) -> _Found | None:
    first: dict[PairKey, str] = {}
    rows = zip(data.pairs, data.keys, strict=True)
    ids = [pair.id for pair, key in rows if first.setdefault(key, pair.id) != pair.id]
    return _found(
        "warning",
        ids,
        "The same prompt and replies as an earlier pair, so it counts twice: drop it. Training does, unless "
        "data.duplicates is keep.",
    )


def duplicate_prompts(data: CheckedData) -> _Found | None:
    first: dict[str, PairKey] = {}
    ids = [p.id for p, key in zip(data.pairs, data.keys, strict=True) if first.setdefault(key[0], key) != key]
    return _found("info", ids, "The prompt of an earlier pair with other replies: keep them in the same split.")


def conflicting_labels(data: CheckedData) -> _Found | None:
    present = set(data.keys)
    rows = zip(data.pairs, data.keys, strict=True)
    disputed = [pair for pair, (prompt, c, r) in rows if c != r and (prompt, r, c) in present]
    kept = len(mend_pairs(disputed, duplicates="keep").pairs)
    return _found(
        "error",
        [pair.id for pair in disputed],
        "Another pair prefers the same two replies the other way round: decide, and drop one; training with "
        f"data.conflicts: majority keeps what most annotations prefer, here {kept} of the {len(disputed)}, and drops "
        "the others.",
    )


# --- safety labels ---------------------------------------------------------------------------------------


def unsafe_chosen(data: CheckedData) -> _Found | None:
    ids = data.ids(lambda pair: pair.chosen_safe is False and pair.rejected_safe is not False)
    return _found(
        "error",
        ids,
        "The preferred reply is marked unsafe and the other is not, so training would teach harm: relabel, "
        "choose another preference, or take SafeDPO's data step, which swaps them.",
    )


def both_unsafe(data: CheckedData) -> _Found | None:
    ids = data.ids(lambda pair: pair.chosen_safe is False and pair.rejected_safe is False)
    return _found("warning", ids, "Both replies are marked unsafe, and one of them is preferred: better drop the pair.")


def refusals(data: CheckedData) -> _Found | None:
    if not data.pairs:
        return None
    chosen, rejected = ([opens_as_refusal(split_reasoning(reply)[1]) for reply in side] for side in data.sides)
    ids = [pair.id for pair, *refused in zip(data.pairs, chosen, rejected, strict=True) if any(refused)]
    explanation = (
        f"Opening as a refusal: {fmean(chosen):.0%} of the chosen and {fmean(rejected):.0%} of the rejected replies "
        "(told by stock phrases; a refusal in other words is not counted)."
    )
    if fmean(chosen) < ALL_REFUSE:
        return _Found("info", ids, explanation)
    mend = " A model that only ever sees refusals preferred refuses harmless requests too: add some, answered."
    return _Found("warning", ids, explanation + mend)


def boilerplate(data: CheckedData) -> _Found | None:
    """The most frequent openings of the chosen replies; an opening that only one pair has is none."""
    openings = {
        pair.id: " ".join(re.findall(r"[\w']+", straight(pair.chosen).lower())[:OPENING]) for pair in data.pairs
    }
    common = [(text, n) for text, n in Counter(openings.values()).most_common(3) if text and n > 1]
    if not common:
        return None
    shown = ", ".join(f'"{text}" {n / len(data.pairs):.1%}' for text, n in common)
    ids = [name for name, text in openings.items() if text == common[0][0]]
    explanation = f"Most frequent openings of the chosen replies ({OPENING} words): {shown}."
    if len(ids) < max(10, BOILERPLATE * len(data.pairs)):
        return _Found("info", ids, explanation)
    mend = " Stock phrases are learnt as such, and stock refusals refuse harmless requests too: vary or drop them."
    return _Found("warning", ids, explanation + mend)


# --- lengths ---------------------------------------------------------------------------------------------


def length_bias(data: CheckedData) -> _Found | None:
    if not data.pairs:
        return None
    chosen, rejected = (text_lengths(side, data.tokenizer) for side in data.sides)
    longer = [pair.id for pair, c, r in zip(data.pairs, chosen, rejected, strict=True) if c > r]
    unequal = sum(c != r for c, r in zip(chosen, rejected, strict=True))
    share = len(longer) / unequal if unequal else 0.5
    unit = "words" if data.tokenizer is None else "tokens"
    explanation = (
        f"Chosen replies have {fmean(chosen):.1f} {unit} on average, rejected ones {fmean(rejected):.1f}; "
        f"the chosen one is the longer in {share:.0%} of the pairs that differ."
    )
    if 1 - LENGTH_BIAS <= share <= LENGTH_BIAS:
        return _Found("info", longer, explanation)
    mend = " Length alone tells the sides apart: balance it, or watch reply lengths in training."
    return _Found("warning", longer, explanation + mend)


def over_max_length(data: CheckedData) -> _Found | None:
    assert data.tokenizer is not None and data.max_length is not None
    longest = data.rendered[1]
    ids = [pair.id for pair, length in zip(data.pairs, longest, strict=True) if length > data.max_length]
    return _found(
        "warning",
        ids,
        f"Prompt and longer reply have more than max_length = {data.max_length} tokens (the longest pair has "
        f"{max(longest, default=0)}) and would be cut: raise max_length or drop the pairs.",
    )


# --- another data set ------------------------------------------------------------------------------------


def overlap(data: CheckedData) -> _Found | None:
    assert data.against is not None
    other = {asked(pair): pair.id for pair in reversed(data.against.pairs)}
    ids = [f"{pair.id} = {other[asked(pair)]}" for pair in data.pairs if asked(pair) in other]
    return _found(
        "error",
        ids,
        f"The prompt is one of {data.against.source}: results there would be leaked, so drop the pair.",
    )


def near_overlap(data: CheckedData) -> _Found | None:
    assert data.against is not None
    others = list({asked(pair): pair.id for pair in data.against.pairs}.items())
    exact = {text for text, _ in others}
    rest = [(pair.id, asked(pair)) for pair in data.pairs if asked(pair) not in exact]
    near = near_matches([text for _, text in rest], [text for text, _ in others])
    ids = [f"{rest[i][0]} ~ {others[j][1]}" for i, j in near.items()]
    return _found(
        "warning",
        ids,
        f"The prompt is nearly one of {data.against.source} (most word pairs are the same): look at it.",
    )


@dataclass(frozen=True)
class Check:
    """A check, named after its function, and the arguments of `check_pairs` without which it cannot run."""

    find: Callable[[CheckedData], _Found | None]
    needs: tuple[str, ...] = ()


CHECKS: tuple[Check, ...] = (
    Check(schema_errors),
    Check(mixed_prompts),
    Check(empty_responses),
    Check(identical_responses),
    Check(control_tokens_in_text, needs=("tokenizer",)),
    Check(plain_text_marks, needs=("tokenizer",)),
    Check(refused_by_template, needs=("tokenizer",)),
    Check(text_prompts, needs=("tokenizer",)),
    Check(duplicate_pairs),
    Check(duplicate_prompts),
    Check(conflicting_labels),
    Check(unsafe_chosen),
    Check(both_unsafe),
    Check(refusals),
    Check(boilerplate),
    Check(length_bias),
    Check(over_max_length, needs=("max_length", "tokenizer")),
    Check(overlap, needs=("against",)),
    Check(near_overlap, needs=("against",)),
)
