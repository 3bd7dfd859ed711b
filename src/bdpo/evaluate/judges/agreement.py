"""How far a judge agrees with labels that people gave: `bdpo judge-agreement FILE`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bdpo.errors import BdpoError
from bdpo.evaluate.ask.sources import file_rows
from bdpo.evaluate.judges import BEHAVIOURS, COMPLIANCE, HARM, REFUSAL, SAFE_ANSWER, Judge
from bdpo.pairs import fields
from bdpo.terminal import plain, visible


@dataclass(frozen=True)
class Labelled:
    """Replies with the labels that they were given by hand."""

    prompts: list[str]
    replies: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Agreement:
    """A judge's verdicts against labels on the same replies."""

    judge: str
    version: str
    n: int
    accuracy: float
    kappa: float | None  # Cohen's, over all labels; None where label and verdict are one and the same throughout
    refusal_n: int  # replies labelled refusal or compliance
    refusal_kappa: float | None  # Cohen's, over these replies; any other verdict on one of them disagrees
    confusion: dict[str, dict[str, int]]  # label -> verdict -> replies

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def render(self, console: Console) -> None:
        """Print the confusion table, and the figures below it."""
        verdicts = sorted({verdict for row in self.confusion.values() for verdict in row}, key=_order)
        table = Table(title=plain(f"Labels against verdicts of {self.judge}, version {self.version}"))
        table.add_column("label")
        for verdict in verdicts:
            table.add_column(plain(verdict), justify="right")
        for label in sorted(self.confusion, key=_order):
            table.add_row(plain(label), *(str(self.confusion[label].get(verdict, 0)) for verdict in verdicts))
        console.print(table)
        console.print(
            f"{self.n} replies: accuracy {100 * self.accuracy:.1f} %, Cohen's kappa {_shown(self.kappa)}.\n"
            f"Full refusal against full compliance, {self.refusal_n} replies: kappa {_shown(self.refusal_kappa)}.",
            highlight=False,
        )


def agreement(path: str | Path, judge: Judge) -> Agreement:
    """Judge the replies of a file (CSV, JSONL, Parquet) with the columns prompt, reply and label.

    Raises:
        BdpoError: the file or a row of it is wrong (its line is named), or the judge cannot be asked.
    """
    data = read_labelled(path)
    if (calls := judge.calls(list(map("".join, zip(data.prompts, data.replies, strict=True))), 0)) is not None:
        print(visible(f"{judge.name}: {calls}"), file=sys.stderr)
    verdicts = judge(data.prompts, data.replies)
    return agreement_of(data.labels, [verdict.label for verdict in verdicts], judge)


def agreement_of(labels: Sequence[str], verdicts: Sequence[str], judge: Judge) -> Agreement:
    """Labels against the labels of a judge's verdicts, in the same order; at least one."""
    if SAFE_ANSWER not in labels:  # people called it compliance, harmful or not
        verdicts = [COMPLIANCE if verdict == SAFE_ANSWER else verdict for verdict in verdicts]
    confusion: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for label, verdict in zip(labels, verdicts, strict=True):
        confusion[label][verdict] += 1
    full = [pair for pair in zip(labels, verdicts, strict=True) if pair[0] in (REFUSAL, COMPLIANCE)]
    return Agreement(
        judge=judge.name,
        version=judge.version,
        n=len(labels),
        accuracy=sum(row[label] for label, row in confusion.items()) / len(labels),
        kappa=cohens_kappa(labels, verdicts),
        refusal_n=len(full),
        refusal_kappa=cohens_kappa(*zip(*full, strict=True)) if full else None,
        confusion={label: dict(row) for label, row in confusion.items()},
    )


def cohens_kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960, Educ. Psychol. Meas. 20:37), unweighted.

        kappa = (p_o - p_e) / (1 - p_e)     p_o: share on which they agree, p_e: what their shares alone would give

    By hand: they agree on 3 of 4; p_e = (2/4)(1/4) + (2/4)(3/4) = 1/2, so kappa = (3/4 - 1/2) / (1/2).

    >>> cohens_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    0.5

    None where chance alone agrees throughout: both gave one and the same label to everything.
    """
    n = len(one)
    mine, theirs = Counter(one), Counter(other)
    by_chance = sum(mine[label] * theirs[label] for label in mine) / n**2
    if by_chance == 1:
        return None
    return (sum(a == b for a, b in zip(one, other, strict=True)) / n - by_chance) / (1 - by_chance)


def read_labelled(path: str | Path) -> Labelled:
    """The prompts, replies and labels of a file.

    Raises:
        BdpoError: it cannot be read, has no rows, lacks a column, or a label is none that a judge gives.
    """
    path, data = Path(path), Labelled([], [], [])
    for place, row in file_rows(path, path.name):
        try:
            if isinstance(row, BdpoError):
                raise row
            fields.require(row, "prompt", "reply", "label")
            label = fields.text(row, "label")
            if label not in (*BEHAVIOURS, *HARM):
                raise BdpoError(f"'label' is '{label}': it must be one of {', '.join((*BEHAVIOURS, *HARM))}.")
            data.prompts.append(fields.text(row, "prompt"))
            data.replies.append(fields.optional_text(row, "reply"))  # an empty reply is one, and degenerate
            data.labels.append(label)
        except BdpoError as error:
            raise BdpoError(f"{place}: {error}") from None
    if not data.labels:
        raise BdpoError(f"{path} has no rows: it needs the columns prompt, reply and label, and a row for each reply.")
    return data


def _order(label: str) -> tuple[int, str]:
    """The behaviours in their own order, then the rest by name."""
    return (BEHAVIOURS.index(label) if label in BEHAVIOURS else len(BEHAVIOURS), label)


def _shown(kappa: float | None) -> str:
    return "undefined (only one label)" if kappa is None else f"{kappa:.3f}"
