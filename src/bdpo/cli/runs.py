"""The command `bdpo runs`. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.evaluate import EPILOG
from bdpo.cli.usage import Commands
from bdpo.terminal import plain, say, visible

runs_app = Commands()


@runs_app.command(epilog=EPILOG)
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder below which runs of bdpo train lie.")],
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="run, method, beta, temperature, lr, seed, accuracy, chosen, rejected, safety or over-refusal.",
        ),
    ] = "run",
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write CSV, with - to the terminal.")] = None,
) -> None:
    """List the runs in a folder, a line each: settings, held-out figures, safety and over-refusal.

    Accuracy and log-ratios are those of the held-out pairs, at the end of training. Safety is harmful prompts answered
    safely and over-refusal harmless prompts answered, where the run was evaluated into a folder below the same one.
    """
    from rich.console import Console
    from rich.table import Table

    from bdpo.cli.tables import as_csv
    from bdpo.files import write_whole
    from bdpo.recipe.listing import COLUMNS, cells, list_runs

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
        for place, name in enumerate(COLUMNS):
            heading = name.replace("-", "-\n").replace("temperature", "temper-\nature")
            table.add_column(plain(heading), justify="right" if place > 1 else "left", overflow="fold")
        for line in found.lines:
            table.add_row(*map(plain, cells(line)))
        console.print(table)
        say(console, "accuracy, safety, over-refusal (harmless prompts answered) in %; log-ratios in nats.")
    for fault in found.faults:
        say(Console(stderr=True), f"Left out: {fault}")
