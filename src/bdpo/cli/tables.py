"""What commands print of scores and of changed replies."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bdpo.terminal import plain

if TYPE_CHECKING:  # they take seconds to load, and what is printed is theirs already
    from bdpo.evaluate.results.flips import Flip
    from bdpo.score.summary import ScoreSummary


def render_summary(summary: ScoreSummary, console: Console) -> None:
    """Print the summary as tables of at most 80 columns."""
    table = Table(title=plain("Comprehension [nats/token]"), title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("pairs of", overflow="ellipsis", no_wrap=True, max_width=20)
    for heading in ("n", "chosen", "rejected", "imbalance", "sd", "r better"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(5, len(heading)))
    for g in summary.groups:
        row = (plain(g.name), f"{g.n}", f"{g.chosen_mi:.2f}", f"{g.rejected_mi:.2f}", f"{g.imbalance:+.2f}",
               f"{g.imbalance_std:.2f}", f"{g.rejected_better:.0%}")  # fmt: skip
        table.add_row(*row, end_section=g is summary.groups[0])
    console.print(table)
    console.print(
        plain("imbalance = chosen - rejected; r better: share of pairs whose rejected reply is understood better.")
    )
    most = ", ".join(f"{id} ({d:+.2f})" for id, d in summary.extremes)
    console.print(plain(f"Most imbalanced: {most}."))
    console.print(plain(f"{summary.negative:.0%} of the replies have negative mutual information."))
    chosen, rejected = summary.tilt
    console.print(
        plain(
            f"Tilt: the mean weights are {chosen:.2f} chosen and {rejected:.2f} rejected (1 and 1: none; "
            "balance.center=mean takes it out)."
        )
    )
    if summary.ches:
        said = (f"{r.value:+.2f} [{r.low:+.2f}, {r.high:+.2f}]" for r in summary.ches)
        console.print(
            plain(f"CHES with imbalance (Spearman, 95 %): {'; length-normalised '.join(said)}; docs/scoring.md.")
        )


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV, the first the heading."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def render_flips(flips: Sequence[Flip], baseline: str, console: Console) -> None:
    """Print each prompt with both replies and what the judge said of them."""
    for flip in flips:
        change = "gained" if flip.gained else "lost"
        console.print()
        console.print(plain(f"{flip.benchmark}, {flip.after.id}: {change} by {flip.method}", "bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=16)
        table.add_column(overflow="fold")
        table.add_row(plain("prompt"), plain(flip.after.request.strip()))
        for name, outcome in ((baseline, flip.before), (flip.method, flip.after)):
            table.add_row(plain(name), plain(outcome.reply.strip() or "(nothing)"))
            judged = ": ".join(told for told in (outcome.verdict, outcome.reason) if told)
            table.add_row("", plain(f"-> {judged}" if judged else f"-> score {outcome.score:g}", "italic"))
        console.print(table)
