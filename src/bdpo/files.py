"""What every artefact needs: written whole or not at all, by one process, refused in one sentence, known by its key."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from psutil import pid_exists

from bdpo.errors import BdpoError, UnusableFolder, first_line

LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # of a file system
# what cannot be written says so as OSError, or in the words of the Rust and C++ under tokenizers, safetensors and torch
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_WRITERS = re.compile(
    r"(?:strerror|I/O error): ([\w -]+)|([\w -]+) \(os error|unexpected pos|iostream error|PytorchStreamWriter"
)


class NotWritable(UnusableFolder):
    """A file that could not be written: what was there before is kept."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.path, self.reason = path, os.strerror(error.errno) if error.errno else first_line(error)
        super().__init__(f"Cannot write {path} ({self.reason}): make room, or ", ". What is there is kept.")


class Held(BdpoError):
    """Another living process works there."""


def expanded(name: str | Path) -> Path:
    """The path with its `~` resolved; as it is where there is no home folder (a container's user without an entry)."""
    return Path(os.path.expanduser(name))


def cache_dir() -> Path:
    """Folder for what bdpo makes and can make again: `BDPO_CACHE`, else the platform's cache folder.

    Raises:
        BdpoError: it would lie in the home folder, and there is none.
    """
    if os.environ.get("BDPO_CACHE"):
        return expanded(os.environ["BDPO_CACHE"])
    variable, below = {
        "win32": ("LOCALAPPDATA", "~/AppData/Local"),
        "darwin": ("", "~/Library/Caches"),
    }.get(sys.platform, ("XDG_CACHE_HOME", "~/.cache"))
    folder = expanded(os.environ.get(variable) or below)
    if str(folder).startswith("~"):
        raise BdpoError("There is no home folder to keep the cache in: set BDPO_CACHE to a folder.")
    return folder / "bdpo"


def read_bytes(path: Path) -> bytes:
    """The content of a file. A pipe or a device, which may give nothing or never end, is no file.

    Raises:
        OSError: it cannot be read; `strerror` says why.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a pipe or a device, so write what it gives into a file first", str(path))
    return path.read_bytes()


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file (text as UTF-8) whole or not at all.

    Raises:
        NotWritable: what was there before is kept.
    """
    with file_made_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def refuse_taken(path: Path, option: str, mark: str | None = None) -> None:
    """Raise BdpoError where a file is there that the command which is to write it did not write.

    Its own has `mark` in the first thousand bytes; None: nothing there is its own. An empty file may go.
    """
    begin = b""
    if path.is_file():  # what is no file is told of where it is written
        try:
            with path.open("rb") as file:
                begin = file.read(1000)
        except OSError:
            begin = b"of others"
    if begin and (mark is None or mark.encode() not in begin):
        raise BdpoError(f"{option} {path} was not written by this command: choose another name, or remove it.")


@contextmanager
def file_made_whole(path: Path) -> Iterator[Path]:
    """A file to write under another name, which is then brought to disk and renamed to `path`.

    Raises:
        NotWritable: what was there before is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in _leftovers(path.parent.absolute(), os.getpid()).pop(path.name, ()):
            left.unlink(missing_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise NotWritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@lru_cache(maxsize=1024)
def _leftovers(folder: Path, process: int) -> dict[str, list[Path]]:
    """What `file_made_whole` left in a folder in processes that were killed, by the name that it was for.

    Looked for once a folder and process, since a folder may hold thousands of files that are written one by one.
    """
    left: dict[str, list[Path]] = {}
    for name in os.listdir(folder):
        found = re.fullmatch(r"\.(.+)\.(\d{1,9})", name)
        if found and not pid_exists(int(found[2])):
            left.setdefault(found[1], []).append(folder / name)
    return left


def not_writable(error: BaseException) -> str | None:
    """Why something could not be written, where that is what an error says; else None."""
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in _NOT_WRITABLE else None
    if isinstance(error, NotWritable):
        return error.reason
    said = _WRITERS.search(str(error))
    return said and (said[1] or said[2] or "no room is left").strip()


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read, as `write_whole` does."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, mend: str, **fields: type) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        mend: what to do where the file cannot be read, as the end of a sentence.
        fields: what must be in it, and of which type.

    Raises:
        BdpoError: no such file, or it holds something else.
    """
    try:
        content = json.loads(read_bytes(path))
    except OSError as error:
        raise BdpoError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
    except (ValueError, RecursionError) as error:
        raise BdpoError(f"{path} is not JSON ({first_line(error)}): {mend}.") from error
    if not isinstance(content, dict):
        raise BdpoError(f"{path} holds a {type(content).__name__} where an object is expected: {mend}.")
    for field, kind in fields.items():
        if not isinstance(content.get(field), kind):
            raise BdpoError(f"{path} holds no '{field}', or not as it was written: {mend}.")
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
def folder_held(folder: Path) -> Iterator[None]:
    """Hold a folder, made where there is none, against other processes; what a dead one held is taken over.

    Raises:
        BdpoError: a living process holds it (which is named), or it cannot be written.
    """
    made = not folder.exists()
    try:
        with ExitStack() as stack:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(folder / LOCK, folder, wait=False))
            except OSError as error:
                raise BdpoError(
                    f"Cannot write in {folder} ({error.strerror}): make it writable, or choose another --out."
                ) from error
            yield
    finally:
        if made:  # and nothing was written
            with suppress(OSError):
                folder.rmdir()


def refuse_held(folder: Path) -> None:
    """Raise BdpoError where a living process writes in `folder`."""
    lock = folder / LOCK
    if lock.exists() and os.access(lock, os.W_OK):  # what we may only read cannot be asked
        with _locked(lock, folder, wait=False):
            pass


@contextmanager
def _locked(lock: Path, folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file, which says who does and is removed afterwards."""
    held = FileLock(lock, fallback_to_soft=False)
    try:
        held.acquire(timeout=-1 if wait else 0.2)  # a file that its holder just removed is tried again
    except Timeout:
        raise Held(
            f"{folder} is in use by {_holder(lock)}, which is still running: wait for it, or choose another --out."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        yield  # unlocked
        return
    try:
        with suppress(OSError):
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        held.release()


@contextmanager
def one_at_a_time(place: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from what happens to `place` meanwhile: a lock file beside it, which needs no `place` yet.

    Raises:
        BdpoError: a living process holds it, and `wait` is off (it is named); or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(place.with_name(f".{place.name}{LOCK}"), place, wait=wait))
        except OSError as error:
            raise UnusableFolder(f"Cannot write in {place.parent} ({error.strerror}): ") from error
        yield


def _holder(lock: Path) -> str:
    with suppress(OSError, ValueError):
        said = lock.read_text(encoding="utf-8")
        if re.fullmatch(r"process \d+ on [\w.-]+", said):
            return said
    return "another process"


@contextmanager
def folder_made_whole(folder: Path, *, wait: bool = True) -> Iterator[Path]:
    """A work folder that becomes `folder` in one rename, or vanishes: nothing half-made is ever seen.

    One process at a time makes it: others wait, after which their result is thrown away for the one that is there, or
    with `wait` off are refused. What dead processes left of theirs is removed.

    Raises:
        BdpoError: it cannot be written; or a living process makes it, and `wait` is off.
    """
    work = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}{LOCK}"), folder, wait=wait):
            for left in folder.parent.glob(f".{glob.escape(folder.name)}-*"):
                if left.name.removeprefix(f".{folder.name}-").isdigit():
                    shutil.rmtree(left, ignore_errors=True)
            try:
                work.mkdir()
                yield work
                follow_umask(work)
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
                if not folder.exists():  # otherwise another process was faster, and its result is the same
                    work.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else not_writable(error)
        if reason is None:
            raise
        raise BdpoError(
            f"Could not write {folder} ({reason}): make room there, or choose another place "
            "(BDPO_CACHE moves the cache)."
        ) from error


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


def flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    """`section.key` -> value of a recipe's sections; empty sections are left out.

    >>> flat({"loss": {"name": "dpo", "beta": 0.1}, "peft": None})
    {'loss.name': 'dpo', 'loss.beta': 0.1}
    """
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in (keys or {}).items()}


def _short(value: Any) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{16,}", text):  # a hash
        return f"{text[:8]}..."
    return text if len(text) <= 20 else f"{text[:16]}..."
