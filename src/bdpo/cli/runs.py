"""The command `bdpo runs`. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.evaluate import EPILOG
from bdpo.cli.usage import Commands
from bdpo.terminal import plain, say, visible

runs_app = Commands()
_BROKEN = {
    "temperature": "tem-\npera-\nture", "accuracy": "accu-\nracy", "margin-gap": "mar-\ngin-\ngap",
    "rejected": "re-\njected", "over-refusal": "over-\nre-\nfusal",
}  # fmt: skip


@runs_app.command(epilog=EPILOG)
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder below which runs of bdpo train lie.")],
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="run, method, beta, temperature, lr, seed, accuracy, gap, margin-gap, chosen, rejected, safety or "
            "over-refusal.",
        ),
    ] = "run",
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write CSV, with - to the terminal.")] = None,
) -> None:
    """List the runs in a folder, a line each: settings, held-out figures, safety and over-refusal.

    Accuracy and log-ratios are those of the held-out pairs, at the end of training; the gaps are training pairs less
    held-out ones, of accuracy and of the margin. Safety is harmful prompts answered safely and over-refusal harmless
    prompts answered, where the run was evaluated into a folder below the same one. A column of which no run has a value
    is not shown.
    """
    from rich.console import Console
    from rich.table import Table

    from bdpo.cli.tables import as_csv
    from bdpo.files import refuse_taken, write_whole
    from bdpo.recipe.listing import COLUMNS, cells, list_runs

    if csv is not None and csv != "-":
        refuse_taken(Path(csv), "--csv", as_csv([list(COLUMNS)]))
    found = list_runs(folder, sort)
    if csv is not None:
        written = as_csv([list(COLUMNS), *(list(line.values()) for line in found.lines)])
        if csv == "-":
            print(visible(written), end="")
        else:
            write_whole(Path(csv), written)
    else:
        console = Console()
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        shown = [name for name in COLUMNS if any(line[name] is not None for line in found.lines)]
        for name in shown:
            text = name in ("run", "method")  # the one to be folded where the terminal is narrow
            heading = _BROKEN.get(name, name)
            table.add_column(plain(heading), justify="left" if text else "right", overflow="fold", no_wrap=not text)
        for line in found.lines:
            values = dict(zip(COLUMNS, cells(line), strict=True))
            table.add_row(*(plain(values[name]) for name in shown))
        console.print(table)
        say(
            console,
            "accuracy, safety, over-refusal (harmless prompts answered) in %; gap: accuracy of training pairs less "
            "held-out ones, in points; log-ratios in nats.",
        )
    for fault in found.faults:
        say(Console(stderr=True), f"Left out: {fault}")
