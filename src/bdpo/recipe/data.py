"""The pairs of a run: read, mended, split into training and held-out ones; what happened to rows on the way."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bdpo.errors import BdpoError
from bdpo.pairs import (
    LoadedPairs,
    PreferencePair,
    check_pairs,
    control_tokens,
    load_pairs,
    mend_pairs,
    pairs_for_loss,
)
from bdpo.pairs.check import TEXT_PROMPTS
from bdpo.pairs.check_report import CheckReport
from bdpo.pairs.reasoning import drop_reasoning
from bdpo.recipe.parts import load_tokenizer
from bdpo.recipe.sections import Recipe


@dataclass(frozen=True)
class RunData:
    """The pairs of a run, and what happened to rows on the way (by reason)."""

    train: list[PreferencePair]
    eval: list[PreferencePair]
    counts: dict[str, int]
    eval_counts: dict[str, int] = field(default_factory=dict)  # where they are other data
    warnings: list[str] = field(default_factory=list)  # what may not be meant

    def told(self, recipe: Recipe) -> str:
        """How many pairs there are, of what, for people."""
        other = recipe.data.held_in()
        held = f"{len(self.eval) or 'none'} held out"
        if other:
            held += f" ({', '.join(filter(None, other))})"
        elif not self.eval:
            held += "; data.holdout=N would take N of them"
        return f"{len(self.train)} pairs of {recipe.data.train}, {held}."

    def lines(self) -> list[str]:
        """What was done to the data, for people."""
        told = [f"{n} rows {reason}" for reason, n in self.counts.items()]
        told += [f"{n} held-out rows {reason}" for reason, n in self.eval_counts.items()]
        return told + [f"Warning: {warning}" for warning in self.warnings]


def read_data(recipe: Recipe) -> RunData:
    """Training and held-out pairs as the recipe's data section says; needs no weights of the model."""
    section = recipe.data
    controls = control_tokens(load_tokenizer(recipe)) if section.strip_control_tokens else ()
    loaded = _load(recipe, section.train, section.split, controls)
    counts, pairs, held_counts = dict(loaded.counts), loaded.pairs, dict[str, int]()
    if held_in := section.held_in():
        other = _load(recipe, *held_in, controls)
        held, held_counts = other.pairs, other.counts
    else:
        pairs, held = hold_out(pairs, section.holdout or 0, section.seed)
    if section.limit is not None and section.limit < len(pairs):
        counts["dropped: beyond data.limit"] = len(pairs) - section.limit
        pairs = random.Random(section.seed).sample(pairs, section.limit)
    if not pairs:
        raise BdpoError(
            f"{section.train}: no pairs are left to train on; lower data.holdout or look at the data check."
        )
    return RunData(pairs, held, counts, held_counts, _text_prompts(recipe, pairs))


def _text_prompts(recipe: Recipe, pairs: list[PreferencePair]) -> list[str]:
    """The warning where text prompts meet a model that has a chat template."""
    if not any(isinstance(pair.prompt, str) for pair in pairs):
        return []
    return [TEXT_PROMPTS] if load_tokenizer(recipe).chat_template else []


def refuse_errors(recipe: Recipe, data: RunData) -> CheckReport:
    """Stop at what `bdpo data check` calls an error in the training pairs or in the held-out ones.

    Returns:
        What the check found in the training pairs.
    """
    section = recipe.data
    reports = []
    held_in, _ = section.held_in() or (section.train, None)
    for source, pairs in ((section.train, data.train), (held_in, data.eval)):
        reports.append(check_pairs(LoadedPairs(pairs, source, "as read", len(pairs))))
        for error in reports[-1].findings:
            if error.severity == "error":
                raise BdpoError(
                    f"{source}: {error.name.replace('_', ' ')} in {error.count} pairs (first: {error.examples[0]}). "
                    f"{error.explanation.rstrip('.')}; `bdpo data check {shlex.quote(source)}` shows all."
                )
    return reports[0]


def hold_out(pairs: list[PreferencePair], size: int, seed: int) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Split off about `size` pairs, drawn by prompt, so that no prompt stands on both sides: (rest, held out)."""
    by_prompt: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_prompt.setdefault(repr(pair.prompt), []).append(pair)
    prompts = list(by_prompt)
    random.Random(seed).shuffle(prompts)
    held: list[PreferencePair] = []
    while prompts and len(held) < size:
        held += by_prompt[prompts.pop()]
    chosen = {pair.id for pair in held}
    return [pair for pair in pairs if pair.id not in chosen], held


def _load(recipe: Recipe, data: str, split: str | None, controls: Sequence[str]) -> LoadedPairs:
    """One data set, mended; SafeDPO's data step, which may settle what annotators did not, comes before that.

    How to read the user's data says nothing of the starter data, beside which it may stand.
    """
    section, swaps, own = recipe.data, recipe.loss.name == "safedpo", data == "starter"
    reading: dict[str, Any] = {"config": section.config, "format": section.format, "prefer": section.prefer,
                               "columns": section.columns}  # fmt: skip
    mending: dict[str, Any] = {"conflicts": section.conflicts, "duplicates": section.duplicates}
    loaded = load_pairs(
        data,
        split=split,
        as_chat=section.as_chat,
        sample=section.sample,
        seed=section.seed,
        strip_control_tokens=controls,
        **({} if own else reading),
        **({} if swaps else mending),
    )
    if section.reasoning == "drop":
        answers = [drop_reasoning(pair) for pair in loaded.pairs]
        dropped = sum(a != b for a, b in zip(loaded.pairs, answers, strict=True))
        loaded.pairs = answers
        loaded.counts |= {"changed: reasoning dropped": dropped} if dropped else {}
    if swaps:
        pairs, changed = pairs_for_loss("safedpo", loaded.pairs)
        mended = mend_pairs(pairs, **mending)
        loaded = replace(loaded, pairs=mended.pairs, counts=loaded.counts | changed | mended.counts)
    return loaded
