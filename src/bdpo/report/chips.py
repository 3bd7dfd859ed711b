"""What to be wary of in an evaluation, each in a few words with the rule that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bdpo.evaluate.judges import DEGENERATE, UNPARSED
from bdpo.report.evaluated import Evaluated, labelled
from bdpo.report.verdict import DEGENERATE as MANY_DEGENERATE
from bdpo.report.verdict import FEWEST, Evidence

CUT_OFF = 0.5  # share of the replies


@dataclass(frozen=True)
class Chip:
    """A warning."""

    told: str
    rule: str  # when it is shown, and what it means


def chips(found: Evaluated | None, evidence: Mapping[str, Evidence]) -> list[Chip]:
    """The warnings that hold; `evidence` by method."""
    if found is None:
        return [Chip("not evaluated", "bdpo evaluate asks the models; without it nothing is known of what they do.")]
    judged = list(evidence.values())
    seen = [change for one in judged for change in (one.safety or one.preferences, one.cost)]
    changes = [change for change in seen if change is not None]
    fewest = min((change.n for change in changes), default=FEWEST)
    shares = {name: (found.cut_off(name), labelled(found.said(name), DEGENERATE)) for name in found.methods}
    unread = sum(outcome.verdict == UNPARSED for name in found.methods for outcome in found.said(name))
    told: list[tuple[bool, str, str]] = [
        (fewest < FEWEST, f"only {fewest} prompts",
         f"Fewer than {FEWEST} harmful prompts, harmless ones or pairs that every model was judged on: no verdict."),
        (any(one.seeds < 2 for one in judged), "one seed",
         "A method has one training run; another seed may come out otherwise."),
        (any(one.by_rules for one in judged), "judged by rules: refusals, not harm",
         "The judge rules knows words of refusal and nothing of harm: a verdict says refuses more, never safer."),
        *((cut > CUT_OFF, f"{name}: {cut:.0%} of the replies cut off",
           f"More than {CUT_OFF:.0%} of the replies ended at the longest length: raise --max-new-tokens.")
          for name, (cut, _) in shares.items()),
        *((broken > MANY_DEGENERATE, f"{name}: {broken:.0%} degenerate replies",
           f"More than {MANY_DEGENERATE:.0%} of the replies are loops, echoes or empty, which shows no judgement.")
          for name, (_, broken) in shares.items()),
        (unread > 0, f"{unread} verdict{'s' if unread > 1 else ''} unread",
         "The judge answered something else than a verdict; such prompts are left out of every method."),
    ]  # fmt: skip
    return [Chip(words, rule) for holds, words, rule in told if holds]
