"""The command line: parses, calls one function, prints. Nothing imports it.

commands.py  `bdpo`, and the commands of scoring and training
data.py      the commands of data
evaluate.py  the commands of stage 3
sweep.py     many runs at once
recipe.py    recipes that come with the package
runs.py      a line a run
report.py    the page that shows them
serving.py   merging, exporting, the hub
demo.py      the whole way on the embedded default
usage.py     the line of usage; ending.py  how a command ends that does not end by itself
show.py      what bdpo data show prints and exports
tables.py    what commands print of scores and of changed replies
"""

from bdpo.cli.commands import app, main

__all__ = ["app", "main"]
