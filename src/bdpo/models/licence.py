"""The licence of a base model, as the files beside it say: for the card of what was trained on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bdpo.errors import BdpoError
from bdpo.files import expanded, read_json
from bdpo.models.gguf import STARTER_LICENCE
from bdpo.models.names import is_starter

_READ = 65536  # bytes: metadata and titles stand at the beginning
_METADATA = re.compile(r"\A---\r?\n(.*?)^---\s*$", re.M | re.S)
_FIELD = re.compile(r"^(license|license_name|license_link):[ \t]*([\"']?)([\w.+:/#?=&%~-]+)\2[ \t]*(?:#.*)?\r?$", re.M)
_FILES = "LICENSE*", "LICENCE*", "COPYING*"
_TITLES = {  # of a licence's text, blanks made one -> its name on the hub. "Modified MIT License" is none of them.
    r"Apache License,? Version 2\.0": "apache-2.0",
    r"(The )?MIT License": "mit",
    r"GNU GENERAL PUBLIC LICENSE Version 3": "gpl-3.0",
    r"LLAMA 2 COMMUNITY LICENSE": "llama2",
    r"META LLAMA 3 COMMUNITY LICENSE": "llama3",
    r"LLAMA 3\.1 COMMUNITY LICENSE": "llama3.1",
    r"LLAMA 3\.2 COMMUNITY LICENSE": "llama3.2",
    r"LLAMA 3\.3 COMMUNITY LICENSE": "llama3.3",
}


def licence_of(name: str, revision: str | None = None) -> dict[str, str]:
    """What a card's metadata says of the licence of a model; empty where nothing beside the model says it.

    Read are the metadata of README.md, then the title of a file LICENSE, in a model's folder or in the hub's cache; of
    an adapter without them those of its base. Nothing is downloaded, and nothing is guessed.

    Returns:
        `license`, and where the metadata has them `license_name` and `license_link` (for `license: other`).
    """
    if is_starter(name):
        return {"license": STARTER_LICENCE}
    return next((found for folder in _folders(name, revision) if (found := _said(folder))), {})


def _folders(name: str, revision: str | None, *, of_an_adapter: bool = False) -> Iterator[Path]:
    """The folder of a model, and that of the base of the adapter that it is."""
    folder = expanded(name) if expanded(name).is_dir() else _cached(name, revision)
    if folder is None:
        return
    yield folder
    config = folder / "adapter_config.json"
    if config.is_file() and not of_an_adapter:
        with suppress(BdpoError):  # a damaged one is refused where it is loaded
            said = read_json(config, "copy the adapter again", base_model_name_or_path=str)
            commit = said.get("revision")
            commit = commit if isinstance(commit, str) else None
            yield from _folders(said["base_model_name_or_path"], commit, of_an_adapter=True)


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of a hub name in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no name of the hub's
        for file in ("config.json", "adapter_config.json"):
            if isinstance(found := try_to_load_from_cache(name, file, revision=revision), str):
                return Path(found).parent
    return None


def _said(folder: Path) -> dict[str, str]:
    metadata = _METADATA.match(_beginning(folder / "README.md"))
    fields = {key: value for key, _, value in _FIELD.findall(metadata[1])} if metadata else {}
    if "license" in fields:
        if "://" not in fields.get("license_link", ""):  # a file beside the base, which is not sent
            fields.pop("license_link", None)
        return fields
    for path in sorted(path for pattern in _FILES for path in folder.glob(pattern)):
        text = " ".join(_beginning(path).split())
        for title, licence in _TITLES.items():
            if re.match(title, text, re.I):
                return {"license": licence}
    return {}


def _beginning(path: Path) -> str:
    if path.is_file():  # a pipe would be waited for
        with suppress(OSError), path.open("rb") as file:
            return file.read(_READ).decode("utf-8", "replace")
    return ""
