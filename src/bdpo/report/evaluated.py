"""An evaluation as the report reads it: what changed against the baseline, reply by reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bdpo.evaluate.judges import BEHAVIOURS, DEGENERATE, HARM, UNPARSED
from bdpo.evaluate.results.compare import Cell, ComparedRow, Comparison, compare, methods_of
from bdpo.evaluate.results.outcomes import Outcome, Run, prompt_scores
from bdpo.evaluate.results.statistics import Rate, compare_means, compare_rates, rate
from bdpo.report.verdict import Change, Evidence

SAFETY, OVER_REFUSAL, PREFERENCES = "safety", "over-refusal", "preferences"
LABELS = (*BEHAVIOURS, *HARM, UNPARSED)
KINDS = {
    "refused-harmful": "newly refused, harmful",
    "refused-harmless": "newly refused, harmless",
    "complying": "newly complying",
    "broken": "broken",
}
"""How a reply may have changed, in the order in which they are shown."""


@dataclass(frozen=True)
class Flip:
    """A prompt to which a method replies otherwise than the baseline."""

    kind: str  # of KINDS
    method: str
    task: str
    before: Outcome
    after: Outcome


@dataclass(frozen=True)
class Category:
    """The prompts of one category of a suite: the share of successes of each method."""

    suite: str
    name: str
    rates: dict[str, Rate]

    @property
    def n(self) -> int:
        return max(rate.n for rate in self.rates.values())


@dataclass(frozen=True)
class Evaluated:
    """The models of an evaluation's folder, by method."""

    folders: Sequence[Path]
    comparison: Comparison
    methods: dict[str, list[Run]]
    untrained: str | None = None  # the model that training began from, where a sweep says so

    @property
    def baseline(self) -> str:
        return self.comparison.baseline

    @property
    def others(self) -> list[str]:
        return [name for name in self.methods if name != self.baseline]

    @property
    def judged(self) -> list[str]:
        """The methods that a verdict is given on; the model that training began from only where there is no other."""
        return [name for name in self.others if name != self.untrained] or self.others

    def tasks(self, suite: str) -> list[str]:
        """The benchmarks of a suite that every run has, without those that ask the same prompts in another wording."""
        first = self.methods[self.baseline][0]
        names = (name for name in self.comparison.settings if "+" not in name)
        return [name for name in names if first.tasks[name].suite == suite]

    @cached_property
    def _outcomes(self) -> dict[tuple[Path, str], list[Outcome]]:
        runs = [run for seeds in self.methods.values() for run in seeds]
        asked = [*self.tasks(SAFETY), *self.tasks(OVER_REFUSAL)]
        return {(run.folder, task): run.whole(task) for run in runs for task in asked}

    def outcomes(self, run: Run, suite: str) -> list[Outcome]:
        """All replies of a run to the prompts of a suite."""
        return [outcome for task in self.tasks(suite) for outcome in self._outcomes[run.folder, task]]

    def _scores(self, run: Run, suite: str) -> dict[tuple[str, str], float | None]:
        return {
            (task, id): score
            for task in self.tasks(suite)
            for id, score in prompt_scores(self._outcomes[run.folder, task]).items()
        }

    def differences(self) -> list[tuple[ComparedRow, str, Cell]]:
        """Every benchmark's difference of each method to the baseline; rewards against it have none."""
        return [
            (row, name, cell)
            for row in self.comparison.rows
            if row.kind == "benchmark" and self.baseline in row.cells
            for name, cell in row.cells.items()
            if cell.difference is not None
        ]

    def asked(self, suite: str) -> int:
        """How many prompts of a suite every model was asked."""
        return len({(task, o.id) for task in self.tasks(suite) for o in self._outcomes[self._first, task]})

    @property
    def _first(self) -> Path:
        return self.methods[self.baseline][0].folder

    def change(self, method: str, suite: str) -> Change | None:
        """Successes of a method less the baseline's, over all prompts of a suite; None where none was asked.

        Newcombe's interval for one run a side with one sample a prompt, the bootstrap's over prompts and seeds else.
        """
        scored = [[self._scores(run, suite) for run in self.methods[name]] for name in (method, self.baseline)]
        runs = [run for side in scored for run in side]
        places = [place for place in runs[0] if all(run[place] is not None for run in runs)]
        if not places:
            return None
        ours, theirs = (np.array([[run[p] for p in places] for run in side], dtype=float) for side in scored)
        plain = len(ours) == len(theirs) == 1 and bool(np.isin([*ours, *theirs], (0, 1)).all())
        found = compare_rates(ours[0], theirs[0]) if plain else compare_means(ours, theirs, shares=True)
        return Change(found.value, found.low, found.high, found.n)

    def preferences(self, method: str) -> Change | None:
        """Held-out pairs ranked right, less the baseline's: by the reward, of kinds alike, where that is known."""
        rows = [row for row in self.comparison.rows if row.suite == PREFERENCES and row.kind == "benchmark"]
        for ending in (" balanced reward", " reward", " balanced", ""):
            for row in rows:
                cell = row.cells.get(method)
                if row.name.endswith(ending) and self.baseline in row.cells and cell and (d := cell.difference):
                    return Change(d.value, d.low, d.high, d.n)
        return None

    def share(self, run: Run, suite: str) -> Rate | None:
        """Share of successes of one run over a suite, of the prompts whose score could be read."""
        scores = [score for score in self._scores(run, suite).values() if score is not None]
        return rate(round(sum(scores)), len(scores)) if scores else None

    def verdicts(self, method: str, suite: str) -> dict[str, float]:
        """Share of each of the judge's labels among a method's replies, in the order of `LABELS`."""
        said = [outcome.verdict for run in self.methods[method] for outcome in self.outcomes(run, suite)]
        counts = Counter(label for label in said if label)
        return {label: counts[label] / len(said) for label in LABELS if counts[label]}

    def said(self, method: str) -> list[Outcome]:
        """Every reply of a method to harmful and harmless prompts."""
        suites = (SAFETY, OVER_REFUSAL)
        return [said for run in self.methods[method] for suite in suites for said in self.outcomes(run, suite)]

    def lengths(self, method: str) -> list[int]:
        """Tokens of every reply of a method; a zero where it made none."""
        return [outcome.tokens for outcome in self.said(method)] or [0]

    def cut_off(self, method: str) -> float:
        """Share of a method's replies that ended because they might not be longer."""
        replies = self.said(method)
        return sum(outcome.stop == "length" for outcome in replies) / max(1, len(replies))

    def judge(self) -> str:
        """Who judged the harmful prompts; nothing where none were asked."""
        return next((str(self.comparison.settings[task].get("judge", "")) for task in self.tasks(SAFETY)), "")

    def evidence(self, method: str) -> Evidence:
        """What the verdict on a method is made from."""
        answered = self.change(method, OVER_REFUSAL)
        everything = [*self.said(self.baseline), *self.said(method)]
        return Evidence(
            safety=self.change(method, SAFETY),
            cost=None if answered is None else -answered,
            unread=labelled(everything, UNPARSED),
            degenerate=labelled(self.said(method), DEGENERATE) - labelled(self.said(self.baseline), DEGENERATE),
            seeds=len(self.methods[method]),
            by_rules=self.judge().startswith("rules"),
            preferences=self.preferences(method),
        )

    def categories(self) -> list[Category]:
        """Successes by category of the published data, both suites; the first seed of each method."""
        found = []
        for suite in (SAFETY, OVER_REFUSAL):
            scores: dict[str, dict[str, list[float]]] = {}
            for method, runs in self.methods.items():
                for outcome in self.outcomes(runs[0], suite):
                    if outcome.score is not None and outcome.category:
                        of_method = scores.setdefault(outcome.category, {}).setdefault(method, [])
                        of_method.append(outcome.score)
            for name in sorted(scores):
                rates = {method: rate(round(sum(got)), len(got)) for method, got in scores[name].items()}
                found.append(Category(suite, name, rates))
        return found

    def flips(self) -> list[Flip]:
        """Every changed reply of the first seed of each method, its first sample."""
        found = []
        for method in self.others:
            for suite in (SAFETY, OVER_REFUSAL):
                for task in self.tasks(suite):
                    sides = (self._outcomes[self.methods[name][0].folder, task] for name in (self.baseline, method))
                    old, new = ({o.id: o for o in side if o.sample == 0} for side in sides)
                    pairs = ((old[id], new[id]) for id in old if id in new)
                    found += [
                        Flip(kind, method, task, before, after)
                        for before, after in pairs
                        if (kind := kind_of(suite, before, after))
                    ]
        return found


def kind_of(suite: str, before: Outcome, after: Outcome) -> str:
    """How a reply changed, a key of `KINDS`; nothing where it did not, or where a verdict could not be read."""
    if after.verdict == DEGENERATE and before.verdict != DEGENERATE:
        return "broken"
    if before.score is None or after.score is None or before.score == after.score:
        return ""
    if suite == SAFETY:
        return "refused-harmful" if after.score > before.score else "complying"
    return "refused-harmless" if after.score < before.score else "complying"


def labelled(outcomes: Sequence[Outcome], label: str) -> float:
    """Share of the replies with this verdict."""
    return sum(outcome.verdict == label for outcome in outcomes) / max(1, len(outcomes))


def open_evaluation(
    folders: Sequence[Path], baseline: str | None = None, reference: str | None = None
) -> Evaluated:  # fmt: skip
    """Read folders of evaluations, whose first method is the baseline, and the reference of rewards, unless named.

    Raises:
        BdpoError: there is none, it is incomplete, or its models cannot be compared.
    """
    compared = compare(folders, baseline=baseline, reference=reference)
    return Evaluated(folders, compared, methods_of(folders), untrained=reference)
