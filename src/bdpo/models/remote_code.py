"""Python code that lies beside a model (`auto_map` in its config): not run unless the command line says so.

Everything that transformers loads goes through `from_files` and `from_config`, so that none of it asks on standard
input, as transformers does by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bdpo.errors import BdpoError
from bdpo.files import read_json

_switch = {"trusted": False}


def trust_remote_code(trusted: bool) -> None:
    """Say, for this process, whether such code may run; at first it may not."""
    _switch["trusted"] = trusted


def remote_code_is_trusted() -> bool:
    """Whether it may."""
    return _switch["trusted"]


def from_files(kind: Any, folder: str | Path, **how: Any) -> Any:
    """`kind.from_pretrained(folder, **how)`. Raises BdpoError where that needs code that is not trusted."""
    with asking_nobody(folder):
        return kind.from_pretrained(folder, trust_remote_code=remote_code_is_trusted(), **how)


def from_config(kind: Any, config: Any, **how: Any) -> Any:
    """`kind.from_config(config, **how)`. Raises BdpoError where that needs code that is not trusted."""
    with asking_nobody(config.name_or_path):
        return kind.from_config(config, trust_remote_code=remote_code_is_trusted(), **how)


@contextmanager
def asking_nobody(folder: str | Path) -> Iterator[None]:
    """In it transformers does not ask whether code may run, not even where peft calls it: it raises BdpoError."""
    from transformers import dynamic_module_utils

    asked_for, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error) or remote_code_is_trusted():
            raise
        raise BdpoError(
            f"{folder} needs Python code of its own{_asked_in(Path(folder))}, which could do anything, so it is not "
            "run: read it, and where you trust it add --trust-remote-code."
        ) from error
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = asked_for


def _asked_in(folder: Path) -> str:
    """Which files of a model ask for code, in brackets; nothing where it is not said there."""
    found = []
    for file in sorted(folder.glob("*config.json")):
        with suppress(BdpoError):  # of another kind, or damaged
            found += [file.name] if "auto_map" in read_json(file, "") else []
    return f" (auto_map in {', '.join(found)})" if found else ""
