"""What the data check found, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bdpo.terminal import plain

Severity = Literal["error", "warning", "info"]

_STYLE: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True)
class Finding:
    """One thing that the check found."""

    name: str  # key of the check, as in `check.CHECKS`
    severity: Severity  # error: training on it would be wrong; warning: look at it; info: good to know
    count: int  # of pairs, or rows
    examples: list[str]  # ids or places, the first few
    explanation: str  # one sentence, with the mend


@dataclass(frozen=True)
class CheckReport:
    """The outcome of `check_pairs`."""

    source: str
    format: str
    n_rows: int  # rows read
    n_pairs: int  # pairs that they gave
    counts: dict[str, int]  # rows dropped or changed on reading, by reason
    findings: list[Finding]  # errors first, then warnings, then the rest
    passed: list[str] = field(default_factory=list)  # checks that found nothing
    skipped: dict[str, str] = field(default_factory=dict)  # checks that did not run, and what they lack

    @property
    def has_errors(self) -> bool:
        """Whether the data must be mended before training."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "has_errors": self.has_errors}

    def render(self, console: Console) -> None:
        """Print a table that fits 80 columns."""
        title = f"{self.source} ({self.format}): {self.n_pairs} pairs of {self.n_rows} rows"
        console.print(plain(title, style="bold"))
        for reason, count in self.counts.items():
            console.print(plain(f"  {count} rows {reason}"))
        table = Table(show_lines=True)
        table.add_column("severity")
        table.add_column("finding", max_width=14)
        table.add_column("count", justify="right")
        table.add_column("what it means, and what to do", ratio=1)
        for finding in self.findings:
            what = plain(finding.explanation)
            if finding.examples and finding.severity != "info":
                more = ", ..." if finding.count > len(finding.examples) else ""
                what.append_text(plain(f"\nSee: {', '.join(finding.examples)}{more}", "dim"))
            severity = plain(finding.severity, style=_STYLE[finding.severity])
            table.add_row(severity, plain(_words(finding.name)), str(finding.count), what)
        if self.findings:
            console.print(table)
        if self.passed:
            console.print(plain(f"Nothing found: {', '.join(map(_words, self.passed))}."))
        if self.skipped:
            lacking = (f"{_words(name)} (needs {lack})" for name, lack in self.skipped.items())
            console.print(plain(f"Not checked: {', '.join(lacking)}."))


def _words(name: str) -> str:
    return name.replace("_", " ")
