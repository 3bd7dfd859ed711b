"""The command `bdpo report`. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.evaluate import EPILOG
from bdpo.cli.usage import Commands
from bdpo.terminal import say

report_app = Commands()


@report_app.command(epilog=EPILOG)
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Folders of bdpo train or bdpo sweep.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of bdpo evaluate; RUN/evaluation if left out and there.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="NAME that the others are compared with; the first one.")] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Folder for the figures as SVG and PNG.")] = None,
) -> None:
    """Write one page: did it get safer, and what did it cost?

    A single HTML file without scripts that needs no network: verdict, figures, changed replies, data, curves. What was
    not evaluated or trained is left out, and the page says how to make it. A sweep stands for all its finished cells.
    """
    from rich.console import Console

    from bdpo.report.page import write_report

    write_report(runs or [], out, evaluation=evaluation, baseline=baseline, figures=figures)
    say(Console(), f"Written: {out}. Open it in a browser.")
