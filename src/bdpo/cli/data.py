"""The commands of `bdpo data`: pairs checked, shown and mended. They parse, call, print."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bdpo.cli.evaluate import EPILOG, TrustRemoteCode
from bdpo.cli.usage import Commands
from bdpo.errors import BdpoError
from bdpo.terminal import say

data_app = Commands(help="Look at preference data before training on it.", no_args_is_help=True)

DATA = "starter, a .jsonl/.json/.csv/.tsv/.parquet file (also .gz), a save_to_disk folder, or a hub name."
MODEL = "starter, a model folder, a PEFT adapter folder, a .gguf file, or a hub name."
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]
Model = Annotated[str, typer.Option(help=MODEL)]
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
MaxLength = Annotated[int, typer.Option(help="Longest prompt + longer reply, in tokens.")]


@data_app.command("check", epilog=EPILOG)
def data_check(
    data: Data,
    against: Annotated[
        str | None, typer.Option(help="Other data, such as a test set, read alike: prompts must not be in both.")
    ] = None,
    against_split: Annotated[str | None, typer.Option(help="Split of --against.")] = None,
    model: Annotated[
        str | None, typer.Option(help=f"Whose tokenizer to check with: {MODEL} Left out: without one.")
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

    from bdpo.cli.show import HEAD, show
    from bdpo.cli.tables import as_csv
    from bdpo.files import refuse_taken
    from bdpo.pairs import load_pairs
    from bdpo.pairs.sources import refuse_onto

    if sort == "imbalance" and scores is None:
        raise BdpoError("--sort imbalance needs --scores DIR: run `bdpo score` first.")
    if export is not None:
        refuse_onto(export, data, "--export")
        refuse_taken(export, "--export", as_csv([HEAD]))
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
