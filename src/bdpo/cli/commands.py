"""The command line: parses, calls one function, prints."""

from __future__ import annotations

import atexit
import os
import shlex
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.data import DATA, MODEL, AsChat, data_app
from bdpo.cli.ending import fail, stopped
from bdpo.cli.evaluate import EPILOG, TrustRemoteCode, evaluate_app
from bdpo.cli.recipe import STARTER, copied_first, recipe_app
from bdpo.cli.report import report_app
from bdpo.cli.runs import runs_app
from bdpo.cli.serving import serving_app
from bdpo.cli.sweep import sweep_app
from bdpo.cli.usage import Commands
from bdpo.errors import BdpoError
from bdpo.processes import stoppable, unstoppable
from bdpo.terminal import reading, say, steady_streams

app = Commands(
    help="Balanced DPO for the safety alignment of chat models: check data, measure, train, evaluate, compare.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(evaluate_app)
app.add_typer(sweep_app)
app.add_typer(runs_app)
app.add_typer(report_app)
app.add_typer(recipe_app, name="recipe")
app.add_typer(serving_app)

Recipe = Annotated[Path | None, typer.Option(help="A recipe (YAML), as of `bdpo recipe list`. Left out: the defaults.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the recipe; repeatable.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"bdpo {version('bdpo')}")
        raise typer.Exit


@app.callback()
def bdpo(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What is said before a command."""


@app.command(epilog=EPILOG)
def score(
    out: Annotated[Path, typer.Option(help="Folder for the scored data set; run again to go on after a stop.")],
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    as_chat: AsChat = False,
    estimator: Annotated[str | None, typer.Option(help="How to measure; docs/method.md names the ways.")] = None,
    ches: Annotated[
        bool, typer.Option("--ches", help="Also measure CHES, the similarity of a pair's replies.")
    ] = False,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of a vLLM server that serves the model and scores in its place.")
    ] = None,
    endpoint_model: Annotated[str | None, typer.Option(help="The server's name of it; its only model.")] = None,
    config: Recipe = None,
    set_: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure how well the model comprehends each reply (stage 1).

    One pass of the frozen model over the training pairs. The folder holds the reference log-probabilities, the
    marginal ones and the comprehension of each reply; training reads it and needs no reference model. Everything
    else about the model and the data is said as in a recipe, for example --set data.prefer=safer.
    """
    from rich.console import Console

    from bdpo.recipe.sections import as_override, first_look, load_recipe

    flags = {"model.name": model, "data.train": data, "score.estimator": estimator}
    server = {"score.endpoint": endpoint, "score.endpoint_model": endpoint_model}  # training needs it no more
    given = [as_override(key, value) for key, value in flags.items() if value is not None]
    given += [f"{key}=true" for key, said in (("data.as_chat", as_chat), ("score.ches", ches)) if said]
    asked = [as_override(key, value) for key, value in server.items() if value is not None]
    reading(first_look(config, [*(set_ or []), *given]).data.train)

    from bdpo.cli.tables import render_summary
    from bdpo.processes import processes
    from bdpo.recipe.data import read_data, refuse_errors
    from bdpo.recipe.parts import model_to_score
    from bdpo.score import score as score_pairs
    from bdpo.score.summary import summarise_scores

    recipe = load_recipe(config, [*(set_ or []), *given, *asked])
    read = read_data(recipe)
    refuse_errors(recipe, read)
    loaded = model_to_score(recipe)
    console = Console(quiet=not processes().is_main_process)
    say(console, f"{len(read.train)} pairs of {recipe.data.train}, model {loaded.label}.")
    for line in read.lines():
        say(console, f"  {line}")
    scored = score_pairs(loaded.model, loaded.tokenizer, read.train, out, recipe.options().scoring(measure=True))
    render_summary(summarise_scores(scored.rows, **recipe.options().balancing()), console)
    again = [
        part for override in (*(set_ or []), *given, as_override("score.dir", str(out))) for part in ("--set", override)
    ]
    next_command = shlex.join(["bdpo", "train", "--config", str(config or STARTER), *again])
    say(console, f"Scores: {out}. Next: {'' if config else copied_first()}{next_command}")


@app.command(epilog=EPILOG)
def train(
    config: Recipe = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-OF-RECIPE if left out.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Resolve, check and estimate memory; train nothing.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train with B-DPO or a baseline, as a recipe says (stage 2).

    Scores the pairs first where that was not done. The baseline of any recipe is one override away:
    --set balance.enabled=false is plain DPO, --set loss.name=ipo is balanced IPO.
    """
    from rich.console import Console

    from bdpo.recipe.sections import first_look, load_recipe

    reading(first_look(config, set_).data.train)

    from bdpo.processes import processes
    from bdpo.recipe.callback import evaluation_callbacks
    from bdpo.recipe.data import RunData
    from bdpo.recipe.folder import how_to_go_on
    from bdpo.recipe.run import run_recipe
    from bdpo.train.shown import print_training

    recipe = load_recipe(config, set_)
    out = out or Path(recipe.train.get("output_dir") or Path("runs") / (config.stem if config else "train"))
    console = Console()
    if dry_run:
        from bdpo.recipe.dryrun import dry_run as estimate

        dry = estimate(recipe, out)
        dry.render(console)
        if dry.fault:
            raise BdpoError(f"The run would stop here: {dry.fault}")
        return

    def tell(data: RunData) -> None:
        say(console, data.told(recipe))
        for line in data.lines():
            say(console, f"  {line}")

    try:
        callbacks = evaluation_callbacks(recipe)
        result = run_recipe(recipe, out, resume=resume, callbacks=callbacks, on_data=tell)
        if processes().is_main_process:
            print_training(result.history, console)
            say(console, f"The run lies in {out} (README.md is its model card).")
            if (out / "adapter_config.json").exists():
                next_command = shlex.join(["bdpo", "merge", str(out), "--out", f"{out}-merged"])
                say(console, f"Next: {next_command} gives plain weights for vLLM or llama.cpp.")
    except KeyboardInterrupt as stop:
        stop.add_note(how_to_go_on(out))
        raise


@app.command(epilog=EPILOG)
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of the demo run; a new one is made beside it if it is taken.")
    ] = Path("runs/demo"),
    pairs: Annotated[int, typer.Option(help="Training pairs of the starter data; all are 339.")] = 144,
) -> None:
    """The whole way on the embedded default: check, score, train, before and after. About 5 minutes on 2 cores."""
    from rich.console import Console

    reading("the starter data")

    from bdpo.cli.demo import run_demo

    run_demo(out, pairs=pairs, console=Console())


def main() -> None:
    """Entry point of the command `bdpo`."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    steady_streams()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # no warnings when a data loader forks
    warnings.filterwarnings("ignore", category=FutureWarning)  # peft calls what transformers renamed
    atexit.register(unstoppable)
    try:
        with stoppable():
            app()
    except BdpoError as error:
        if debug:
            raise
        fail(str(error))
    except OSError as error:
        if debug:
            raise
        fail(f"{error.filename or 'A file'}: {error.strerror or error}.")
    except KeyboardInterrupt as stop:
        stopped(stop)
    except SystemExit as end:
        cause = getattr(end.__context__, "__cause__", None)  # Typer makes an exit of it
        if isinstance(cause, KeyboardInterrupt):
            stopped(cause)
        raise
