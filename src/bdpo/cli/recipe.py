"""The commands `bdpo recipe`: what the package brings along for --config. They parse, call, print."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from bdpo.cli.evaluate import EPILOG
from bdpo.cli.usage import Commands
from bdpo.errors import BdpoError, unknown
from bdpo.files import write_whole
from bdpo.terminal import say

STARTER = Path("recipes/starter.yaml")

recipe_app = Commands(help="Recipes that come with bdpo, to start from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `bdpo recipe list` shows.")]


@recipe_app.command("list", epilog=EPILOG)
def list_recipes() -> None:
    """What there is, and what each is for."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    for name, recipe in _recipes().items():
        say(console, f"{name:<14} {recipe.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}")


@recipe_app.command("copy", epilog=EPILOG)
def copy_recipe(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="The file; recipes/NAME.yaml if left out.")] = None,
) -> None:
    """Write a recipe into a file, to be changed and given to --config."""
    from rich.console import Console

    recipes = _recipes()
    if name not in recipes:
        raise unknown("recipe", name, recipes)
    out = out or Path("recipes") / f"{name}.yaml"
    if out.exists():
        raise BdpoError(f"{out} is there already: choose another --out.")
    write_whole(out, recipes[name].read_bytes())
    say(Console(), f"Written: {out}. Next: bdpo train --config {out} --dry-run")


@recipe_app.command("schema", epilog=EPILOG)
def schema() -> None:
    """Print the JSON Schema of recipes, by which editors complete keys and underline mistakes."""
    import json

    from bdpo.recipe.schema import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))


def copied_first() -> str:
    """What is typed before a command with recipes/starter.yaml, where that is not here."""
    return "" if STARTER.exists() else "bdpo recipe copy starter && "


def _recipes() -> dict[str, Traversable]:
    there = sorted((files("bdpo") / "recipes").iterdir(), key=lambda path: (path.name != "starter.yaml", path.name))
    return {path.name.removesuffix(".yaml"): path for path in there if path.name.endswith(".yaml")}
