"""`bdpo sweep`: parses, calls, prints."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bdpo.cli.evaluate import (
    EPILOG,
    DataDir,
    Judge,
    JudgeEndpoint,
    JudgeModel,
    Limit,
    Pairs,
    PairsKind,
    PairsSplit,
    Prefer,
    TrustRemoteCode,
)
from bdpo.cli.usage import Commands
from bdpo.terminal import say, visible

sweep_app = Commands()

Config = Annotated[Path | None, typer.Option(help="A recipe or a study (YAML; see studies/). Left out: the defaults.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, in all cells; repeatable.")]
Grid = Annotated[list[str] | None, typer.Option(help="section.key=value,value,...: all combinations; repeatable.")]
Method = Annotated[
    list[str] | None, typer.Option(help='NAME="section.key=value ...": a method by its overrides; repeatable.')
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Seeds of training: train.seed is 1, 2, ...")]
Out = Annotated[Path, typer.Option(help="Folder of the sweep; run again to go on, or to add to it.")]
Suite = Annotated[str | None, typer.Option(help="Suites and benchmarks, as of bdpo evaluate; with --pairs, none.")]
Transform = Annotated[str | None, typer.Option(help="Ask in other wordings, as of bdpo evaluate.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Longest reply, in tokens.")]
Baseline = Annotated[str | None, typer.Option(help="The setting that others are compared with; the first.")]
Choose = Annotated[
    str | None,
    typer.Option(help="'safety while over-refusal <= 5': pick on half of the prompts, evaluate on the rest."),
]
PrintCommands = Annotated[
    bool, typer.Option("--print-commands", help="Print a command for each cell, for a cluster, and run nothing.")
]
CellName = Annotated[str | None, typer.Option("--cell", help="Run this one cell, as --print-commands names it.")]


@sweep_app.command(epilog=EPILOG)
def sweep(
    out: Out, config: Config = None, set_: Overrides = None, grid: Grid = None, method: Method = None,
    seeds: Seeds = None, suite: Suite = None, data_dir: DataDir = None, limit: Limit = None,
    transform: Transform = None, pairs: Pairs = None, pairs_split: PairsSplit = None, pairs_kind: PairsKind = None,
    prefer: Prefer = None,
    max_new_tokens: MaxNewTokens = None, judge: Judge = "rules", judge_model: JudgeModel = None,
    judge_endpoint: JudgeEndpoint = None, baseline: Baseline = None, choose: Choose = None,
    print_commands: PrintCommands = False, cell: CellName = None, trust_remote_code: TrustRemoteCode = False,
) -> None:  # fmt: skip
    """Train and evaluate methods x settings x seeds, and compare them.

    Each cell is an ordinary run with an ordinary evaluation. What is finished is skipped and what stopped goes on, so
    the same command finishes a sweep. Where CUDA_VISIBLE_DEVICES names several devices, each gets a cell at a time.
    """
    from rich.console import Console

    from bdpo.evaluate.judges import make_judge
    from bdpo.recipe.sections import first_look
    from bdpo.sweep.plan import Cell, load_study, method_option

    console = Console()
    study = load_study(config)
    first_look(study.recipe, [*study.set, *(set_ or ())])
    asked: dict[str, Any] = {
        "suite": suite, "data_dir": data_dir and str(data_dir), "limit": limit, "transform": transform,
        "pairs": pairs, "pairs_split": pairs_split, "pairs_kind": pairs_kind, "prefer": prefer,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    given: dict[str, Any] = {"seeds": seeds, "baseline": baseline, "choose": choose}
    study = study.model_copy(
        update={
            "set": (*study.set, *(set_ or ())),
            "grid": (*study.grid, *(grid or ())),
            "methods": study.methods | method_option(method or []),
            "evaluate": study.evaluate.model_copy(update={k: v for k, v in asked.items() if v is not None}),
            **{key: value for key, value in given.items() if value is not None},
        }
    )

    from bdpo.sweep.run import planned, run_sweep

    judged_by = make_judge(judge, model=judge_model, endpoint=judge_endpoint)
    typed = [word for word in sys.argv[1:] if word != "--print-commands"]

    def command(of: Cell) -> list[str]:
        return ["bdpo", *typed, "--cell", of.name]

    if print_commands:
        for planned_cell in planned(study, out, judged_by, lambda line: print(visible(line), file=sys.stderr))[0]:
            print(visible(shlex.join(command(planned_cell))))
        return
    grids = run_sweep(study, out, judged_by, lambda line: say(console, line), command, cell)
    if cell is None:
        for found in grids:
            found.render(console)
        say(console, f"Results: {out} (sweep.json, compare.json, results.md); on one page: {out / 'report.html'}.")
