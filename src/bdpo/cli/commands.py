"""The command line: parses, calls one function, prints."""

from __future__ import annotations

import atexit
import json
import os
import shlex
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

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
data_app = Commands(help="Look at preference data before training on it.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(evaluate_app)
app.add_typer(sweep_app)
app.add_typer(runs_app)
app.add_typer(report_app)
app.add_typer(recipe_app, name="recipe")
app.add_typer(serving_app)

_DATA = "starter, a .jsonl/.json/.csv/.tsv/.parquet file (also .gz), a save_to_disk folder, or a hub name."
_MODEL = "starter, a model folder, a PEFT adapter folder, a .gguf file, or a hub name."
Data = Annotated[str, typer.Argument(metavar="DATA", help=_DATA)]
Model = Annotated[str, typer.Option(help=_MODEL)]
Split = Annotated[str | None, typer.Option(help="Split of the data; train where there are several.")]
Config = Annotated[str | None, typer.Option("--data-config", help="Configuration of a hub data set.")]
Format = Annotated[
    str | None,
    typer.Option(help="canonical, trl, hh, pku, orca, alpaca, sharegpt or helpsteer; recognised if left out."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(help="OURS=THEIRS, such as prompt=question: a column under another name; repeatable."),
]
AsChat = Annotated[bool, typer.Option("--as-chat", help="Make each text prompt one message of the user.")]
Prefer = Annotated[str | None, typer.Option(help="PKU-SafeRLHF only: safety-protocol, safer or helpful.")]
Sample = Annotated[int | None, typer.Option(help="PKU-SafeRLHF: draw N pairs of each kind of prompt.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.")]
Strip = Annotated[bool, typer.Option("--strip-control-tokens", help="Strip control tokens found in texts.")]
Recipe = Annotated[Path | None, typer.Option(help="A recipe (YAML), as of `bdpo recipe list`. Left out: the defaults.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over the recipe; repeatable.")]
MaxLength = Annotated[int, typer.Option(help="Longest prompt + longer reply, in tokens.")]


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


@data_app.command("check", epilog=EPILOG)
def data_check(
    data: Data,
    against: Annotated[
        str | None, typer.Option(help="Other data, such as a test set, read alike: prompts must not be in both.")
    ] = None,
    against_split: Annotated[str | None, typer.Option(help="Split of --against.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Whose tokenizer to check with: {_MODEL} Left out: without one.")
    ] = None,
    split: Split = None,
    data_config: Config = None,
    format: Format = None,
    prefer: Prefer = None,
    columns: Columns = None,
    as_chat: AsChat = False,
    sample: Sample = None,
    seed: Seed = 0,
    strip_control_tokens: Strip = False,
    max_length: MaxLength = 1024,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Check preference pairs; exit code 1 when there are errors in them.

    Finds broken rows, empty or identical replies, duplicate and contradictory prompts, unsafe chosen
    replies, length bias, refusals, boilerplate, rows that are too long, control tokens inside texts, and overlap.
    What is too long, control tokens and the chat template need --model's tokenizer; without one lengths are in words
    and the check takes a second. Nothing is mended; where training would mend something, the report says so.
    """
    from rich.console import Console

    from bdpo.pairs import check_pairs, control_tokens, load_pairs

    if strip_control_tokens and model is None:
        raise BdpoError("--strip-control-tokens needs to know whose: name the model that is to be trained (--model).")
    strip = control_tokens(_tokenizer(model)) if strip_control_tokens and model else ()
    read = partial(
        load_pairs, format=format, prefer=prefer, columns=_columns(columns), as_chat=as_chat, sample=sample, seed=seed,
        strip_control_tokens=strip, on_error="collect",
    )  # fmt: skip
    loaded = read(data, split=split, config=data_config)
    other_config = data_config if against == data else None  # another split of it
    other = None if against is None else read(against, split=against_split, config=other_config)
    report = check_pairs(loaded, against=other, tokenizer=_tokenizer(model) if model else None, max_length=max_length)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        report.render(Console())
        if model is None:
            say(Console(), "Name the model that is to be trained, --model, to have checked what needs its tokenizer.")
    raise typer.Exit(1 if report.has_errors else 0)


@data_app.command("show", epilog=EPILOG)
def data_show(
    data: Data,
    scores: Annotated[Path | None, typer.Option(help="Folder of bdpo score, made of this data.")] = None,
    sort: Annotated[
        Literal["order", "imbalance"] | None,
        typer.Option(
            help="order: of the data; imbalance: the largest |d| first, which needs --scores and is then meant."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The first N only; 20 where they are printed.")] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Show prompts as --model's template makes them.")
    ] = False,
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="Write CSV, and print nothing.")] = None,
    model: Model = "starter",
    split: Split = None,
    data_config: Config = None,
    format: Format = None,
    prefer: Prefer = None,
    columns: Columns = None,
    as_chat: AsChat = False,
    sample: Sample = None,
    seed: Seed = 0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show preference pairs: their texts, and with --scores comprehension i, imbalance d and weights w.

    d = i_chosen - i_rejected in nats a token. The weights are those of the default balance over all scored pairs.
    """
    from rich.console import Console

    from bdpo.cli.show import show
    from bdpo.pairs import load_pairs
    from bdpo.pairs.sources import refuse_onto

    if sort == "imbalance" and scores is None:
        raise BdpoError("--sort imbalance needs --scores DIR: run `bdpo score` first.")
    if export is not None:
        refuse_onto(export, data, "--export")
    loaded = load_pairs(data, split=split, config=data_config, format=format, prefer=prefer, columns=_columns(columns),
                        as_chat=as_chat, sample=sample, seed=seed)  # fmt: skip
    tokenizer = _tokenizer(model) if template else None
    show(loaded.pairs, scores, Console(), by_imbalance=sort != "order", top=top, tokenizer=tokenizer, export=export)


@data_app.command("clean", epilog=EPILOG)
def data_clean(
    data: Data,
    out: Annotated[Path, typer.Option(help="File for the mended pairs, canonical JSONL; FILE.report.jsonl beside it.")],
    conflicts: Annotated[
        Literal["majority", "drop", "error"],
        typer.Option(help="Two replies preferred both ways: majority (ties dropped), drop or error (kept)."),
    ] = "majority",
    duplicates: Annotated[Literal["keep", "drop"], typer.Option(help="The same pair again: drop or keep.")] = "drop",
    split: Split = None,
    data_config: Config = None,
    format: Format = None,
    prefer: Prefer = None,
    columns: Columns = None,
    as_chat: AsChat = False,
) -> None:
    """Write preference pairs mended: contradictory annotations decided, duplicates and broken rows left out.

    These are the pairs that training makes of the data with data.conflicts and data.duplicates. The report has one
    line for each decision: its reason, the ids dropped and kept, and how many annotations prefer which reply.
    """
    from rich.console import Console

    from bdpo.pairs.clean import clean

    cleaned = clean(
        data, out, conflicts=conflicts, duplicates=duplicates, split=split, config=data_config, format=format,
        prefer=prefer, columns=_columns(columns), as_chat=as_chat,
    )  # fmt: skip
    for line in cleaned.lines():
        say(Console(), line)


def _tokenizer(model: str) -> Any:
    """The tokenizer of a model, for which transformers is loaded: after the data, whose faults should not wait."""
    from bdpo.models import load_tokenizer

    return load_tokenizer(model)


def _columns(given: list[str] | None) -> dict[str, str]:
    """The mapping that --columns gives."""
    pairs = [mapping.partition("=") for mapping in given or ()]
    for ours, _, theirs in pairs:
        if not ours or not theirs:
            raise BdpoError(f"--columns {ours}: write OURS=THEIRS, for example --columns prompt=question.")
    return {ours: theirs for ours, _, theirs in pairs}


@app.command(epilog=EPILOG)
def score(
    out: Annotated[Path, typer.Option(help="Folder for the scored data set; run again to go on after a stop.")],
    model: Annotated[str | None, typer.Option(help=_MODEL)] = None,
    data: Annotated[str | None, typer.Option(help=_DATA)] = None,
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
        say(console, f"{len(data.train)} pairs of {recipe.data.train}, {len(data.eval)} held out.")
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
