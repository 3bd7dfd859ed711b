"""Judges: what a reply does, or whether it does harm.

verdict     Verdict, the interface of a judge, and what a verdict counts as
rules       does the reply refuse, in part, comply, or is it no reply? By rules alone, without a model
classifier  a local guard or sequence-classification model
llm         a model asked by a rubric, over an endpoint or in memory

docs/judges.md explains the labels, the rules, and how far they agree with labels that were given by hand.
"""

from __future__ import annotations

from collections.abc import Callable

from bdpo.errors import BdpoError, unknown
from bdpo.evaluate.judges.verdict import (
    BEHAVIOURS,
    COMPLIANCE,
    DEGENERATE,
    FILTERED,
    HARM,
    PARTIAL,
    REFUSAL,
    SAFE,
    SAFE_ANSWER,
    UNFINISHED,
    UNJUDGED,
    UNPARSED,
    UNSAFE,
    UNTAKEN,
    Judge,
    Verdict,
    is_answered,
    is_safe,
)

__all__ = [
    "BEHAVIOURS", "COMPLIANCE", "DEGENERATE", "FILTERED", "HARM", "JUDGES", "PARTIAL", "REFUSAL", "SAFE", "SAFE_ANSWER",
    "UNFINISHED", "UNJUDGED", "UNPARSED", "UNSAFE", "UNTAKEN", "Judge", "Verdict", "is_answered", "is_safe",
    "make_judge",
]  # fmt: skip


def make_judge(name: str, *, model: str | None = None, endpoint: str | None = None, workers: int = 16) -> Judge:
    """A judge by name (a key of `JUDGES`).

    Args:
        model: the judge's model: for classifier a folder or a name on the hub, for llm the same or, with an endpoint,
            the name that the server knows.
        endpoint: base URL of an OpenAI-compatible server, for llm.
        workers: requests at once to it.

    Raises:
        BdpoError: no such judge, or it needs a model, or has no use for what is given.
    """
    if name not in JUDGES:
        raise unknown("judge", name, JUDGES)
    return JUDGES[name](model, endpoint, workers)


def _rules(model: str | None, endpoint: str | None, workers: int) -> Judge:
    from bdpo.evaluate.judges.rules import RulesJudge  # whose phrases take a while to compile

    if model or endpoint:
        raise BdpoError("The judge rules asks no model: leave the judge's model and endpoint out.")
    return RulesJudge()


def _classifier(model: str | None, endpoint: str | None, workers: int) -> Judge:
    from bdpo.evaluate.judges.classifier import Classifier

    if endpoint:
        raise BdpoError("The judge classifier runs its model itself: leave the endpoint out, or use llm.")
    return Classifier(_named(model, "classifier"))


def _llm(model: str | None, endpoint: str | None, workers: int) -> Judge:
    from bdpo.evaluate.judges.llm import endpoint_judge, local_judge

    named = _named(model, "llm")
    return endpoint_judge(endpoint, named, workers) if endpoint else local_judge(named)


def _named(model: str | None, judge: str) -> str:
    if not model:
        raise BdpoError(f"The judge {judge} needs a model: name it with --judge-model.")
    return model


JUDGES: dict[str, Callable[[str | None, str | None, int], Judge]] = {
    "rules": _rules,
    "classifier": _classifier,
    "llm": _llm,
}
