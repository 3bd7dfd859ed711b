"""The site: `python docs/site.py` writes its pages into build/docs and builds build/site of them, strictly.

Besides the pages of docs/ there are the texts that lie in the root, and the reference of the command line, which is
made from Typer, so that no option is written down twice.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

from typer.cli import get_docs_for_click
from typer.main import get_command

from bdpo.cli import app
from bdpo.recipe.schema import recipe_schema
from bdpo.recipe.sections import Recipe

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build/docs"
FROM_ROOT = {f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}
FROM_ROOT |= {"studies/README.md": "studies.md"}
REPOSITORY = os.environ.get("BDPO_REPOSITORY", "").rstrip("/")  # https://github.com/OWNER/bdpo

_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def pages() -> dict[str, str]:
    """All Markdown pages of the site: path in the site -> text."""
    of_docs = {
        path.relative_to(ROOT / "docs").as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "docs").rglob("*.md"))
    }
    found = {page: linked(text, f"docs/{page}", page) for page, text in of_docs.items()}
    for source, page in FROM_ROOT.items():
        found[page] = linked((ROOT / source).read_text(encoding="utf-8"), source, page)
    found["reference/recipe.md"] += recipe_keys()
    return found | {"reference/cli.md": command_line()}


def command_line() -> str:
    """All commands and their options."""
    command = get_command(app)
    _say_whole(command)
    context = command.make_context("bdpo", [], resilient_parsing=True)
    return get_docs_for_click(obj=command, ctx=context, name="bdpo", title="Command line")


def _say_whole(command: Any) -> None:
    """Have lists name each command by the whole first line of its help, which is cut at 45 characters otherwise."""
    command.short_help = (command.help or "").strip().partition("\n")[0]
    for one in getattr(command, "commands", {}).values():
        _say_whole(one)


def recipe_keys() -> str:
    """The keys of the sections that are bdpo's own, and the starter's recipe, which explains every one."""
    rows = ["", "## Keys", "", "| key | type | default |", "| --- | --- | --- |"]
    for section, field in Recipe.model_fields.items():
        kinds = [kind for kind in (*get_args(field.annotation), field.annotation) if hasattr(kind, "model_fields")]
        for name, key in (kinds[0].model_fields if kinds else {}).items():
            kind = str(getattr(key.annotation, "__name__", key.annotation)).replace("typing.", "").replace("|", "\\|")
            rows.append(f"| `{section}.{name}` | {kind} | `{'null' if key.default is None else key.default}` |")
    starter = (ROOT / "recipes/starter.yaml").read_text(encoding="utf-8")
    return "\n".join([*rows, "", "## What each is for: recipes/starter.yaml", "", "```yaml", starter + "```", ""])


def linked(text: str, source: str, page: str) -> str:
    """A text of the repository with links that hold on the site.

    A link to a file that is no page goes to the repository where BDPO_REPOSITORY says its address; else its text stays.

    >>> linked("[how](docs/data.md#csv), [why](src/bdpo/errors.py)", "README.md", "guides/start.md")
    '[how](../data.md#csv), why'
    """

    def mended(link: re.Match[str]) -> str:
        text, anchor = link[1], link[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        there = FROM_ROOT.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if there is not None:
            return f"[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"
        return f"[{text}]({REPOSITORY}/blob/main/{path}{anchor})" if REPOSITORY else text

    return _LINK.sub(mended, text)


def main() -> int:
    """Write the pages, then build; the exit code is that of the build."""
    shutil.rmtree(PAGES, ignore_errors=True)
    others = shutil.ignore_patterns("*.md", "*.py", "__pycache__")
    shutil.copytree(ROOT / "docs", PAGES, ignore=others)  # pictures
    for page, text in pages().items():
        (PAGES / page).parent.mkdir(parents=True, exist_ok=True)
        (PAGES / page).write_text(text, encoding="utf-8")
    (PAGES / "recipe.schema.json").write_text(json.dumps(recipe_schema(), indent=1), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
