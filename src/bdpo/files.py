"""What every artefact needs: written whole or not at all, refused in one sentence, known by its key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bdpo.errors import BdpoError, first_line


def cache_dir() -> Path:
    """Folder for what bdpo makes and can make again: `BDPO_CACHE`, else the platform's cache folder."""
    if os.environ.get("BDPO_CACHE"):
        return Path(os.environ["BDPO_CACHE"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "bdpo"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/bdpo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bdpo"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file (text as UTF-8) whole or not at all: to disk under another name, then renamed.

    Raises:
        BdpoError: it cannot be written; what was there before is kept.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BdpoError(
            f"Cannot write {path} ({error.strerror}): make room, or choose another --out. What is there is kept."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read, as `write_whole` does."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        mend: what to do where the file cannot be read, as the end of a sentence.

    Raises:
        BdpoError: no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BdpoError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
    except ValueError as error:
        raise BdpoError(f"{path} is not JSON ({first_line(error)}): {mend}.") from error
    if not isinstance(content, dict):
        raise BdpoError(f"{path} holds a {type(content).__name__} where an object is expected: {mend}.")
    return content


def follow_umask(folder: Path) -> None:
    """Give the safetensors files in a folder the mode of any new file there: their library makes them 0600."""
    probe = folder / f".mode-{os.getpid()}"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for weights in folder.glob("*.safetensors"):
        weights.chmod(mode)


@contextmanager
def folder_made_whole(folder: Path) -> Iterator[Path]:
    """A work folder that becomes `folder` in one rename, or vanishes: nothing half-made is ever seen."""
    work = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        yield work
        follow_umask(work)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, and its result is the same
                raise
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BdpoError(
            f"Could not write {folder} ({reason}): make room there, or choose another place "
            "(BDPO_CACHE moves the cache)."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_digest(key: dict[str, Any]) -> str:
    """A short name for a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]


def key_difference(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The fields in which two keys differ, as readable lines."""
    fields = sorted({*found, *expected})
    return [
        f"{field} ({_short(found.get(field))} there, {_short(expected.get(field))} now)"
        for field in fields
        if found.get(field) != expected.get(field)
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:16]}..."
