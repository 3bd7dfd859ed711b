"""The commands that hand a run on: as weights to serve, and to the hub. They parse, call, print."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.evaluate import EPILOG, TrustRemoteCode
from bdpo.cli.usage import Commands
from bdpo.processes import unstoppable
from bdpo.terminal import say, visible

serving_app = Commands()


@contextmanager
def made_once(out: Path, last: str = "config.json") -> Iterator[None]:
    """A command that refuses a folder which is there, and writes `last` last: stopped, it says how far it is."""
    try:
        yield
        unstoppable()  # all is done and said
    except KeyboardInterrupt as stop:
        if out.is_dir() and any(out.iterdir()):
            stop.add_note(f"{out} is finished" if (out / last).exists() else f"remove {out} and run it again")
        raise


@serving_app.command(epilog=EPILOG)
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or any PEFT adapter folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the plain weights; must not exist or be empty.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: as the base is stored.")] = "auto",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write an adapter merged into its base, as plain weights for vLLM, llama.cpp's converter and the like."""
    from bdpo import models

    models.resolve(run)  # before torch is loaded
    with made_once(out):
        models.merge(run, out, dtype=dtype)
        print(visible(f"Merged weights and tokenizer: {out}"))


@serving_app.command(epilog=EPILOG)
def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or any folder of an adapter or of weights.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is served; must not exist or be empty.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: as the base is stored.")] = "auto",
    gguf: Annotated[str | None, typer.Option(help="Also one GGUF file: q8_0, f16, bf16 or f32.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write a run as weights to be served: for vLLM, and with --gguf for llama.cpp and Ollama.

    What was written is read again: its logits, chat template and special tokens must be those of the trained model.
    GGUF needs llama.cpp's converter; the folder of its checkout is named in LLAMA_CPP.
    """
    from bdpo import models

    models.resolve(run)
    with made_once(out, "config.json" if gguf is None else "Modelfile"):
        models.export(run, out, dtype=dtype, gguf=gguf)
        print(visible(f"Written: {out}. Next: vllm serve {shlex.quote(str(out))}"))


@serving_app.command(epilog=EPILOG)
def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the Hugging Face hub.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of bdpo evaluate, for the card; RUN/evaluation if left out and there.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Of the base model, where its files say none.")] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="The base model on the hub, where that was a folder."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you may see it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Put a run's weights and its card on the Hugging Face hub; needs HF_TOKEN or `hf auth login`.

    Weights, configuration, tokenizer and README.md are sent, and nothing else: no checkpoints, no training arguments,
    no scores, no texts of your data. The card gets the evaluation's results.
    """
    from rich.console import Console

    from bdpo.recipe.publish import publication, publish

    console = Console(soft_wrap=True)
    made = publication(run, evaluation=evaluation, license=license, base=base)
    for file in made.files:
        say(console, f"  {file}")
    known = made.license or "not known: neither README.md nor LICENSE beside the base says it; --license sets it"
    say(console, f"Licence of the base model, for the card: {known}.")
    if made.base is None:
        say(console, "Base model, for the card: not known, since it lay in a folder; --base ORG/NAME sets it.")
    if made.lost:
        say(console, f"Warning: {made.lost}")
    if not dry_run:
        say(console, f"Pushed: {publish(made, name, private=private)}")
