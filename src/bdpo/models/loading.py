"""A model by name, in memory, with its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import patch_environment
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations import unset_hf_deepspeed_config

from bdpo.errors import BdpoError, unknown
from bdpo.files import expanded, read_json
from bdpo.models.gguf import STARTER, STARTER_LABEL, tokenizer_alone
from bdpo.models.names import base_of, find, is_starter, local_folder, weights_fit
from bdpo.models.placement import DeviceMap, placed
from bdpo.models.remote_code import from_files
from bdpo.models.strict import adapted, config_in, loading_of, whole_model
from bdpo.processes import processes, weights_are_sharded

_COPY = "bring back the tokenizer's files that belong together"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    device_map: DeviceMap = None,
) -> LoadedModel:
    """Load a causal language model and its tokenizer by name (see `resolve`).

    `dtype` is float32, bfloat16, float16, or auto (as stored). `quantization="4bit"` loads NF4 weights (QLoRA; needs
    bitsandbytes). `chat_template` replaces the tokenizer's. Where the name is a PEFT adapter it is put on its
    base and stays on; `trainable_adapter` leaves its weights trainable. `on_device` moves the model to this process's
    accelerator, where there is one and no engine is to share the weights out; 4-bit weights are made there in any case.
    `device_map` spreads it over devices instead (see `placement`), to be scored and asked and not to be trained.

    An adapter that is put on the model will name its base as others know it: by hub name and commit, or by folder.

    Raises:
        BdpoError: as `resolve`; or the files do not hold exactly the tensors of the model and of the adapter.
    """
    if dtype not in (*_DTYPES, "auto"):
        raise unknown("dtype", dtype, (*_DTYPES, "auto"))
    place = find(name, revision)
    base = base_of(place)
    folder = place.folder
    kwargs: dict[str, Any] = {"dtype": _DTYPES.get(dtype, "auto")}
    if attn_implementation is not None:
        kwargs["attn_implementation"] = attn_implementation
    if quantization is not None:
        kwargs |= {"quantization_config": _quantization_config(quantization), "device_map": {"": processes().device}}
    spread = placed(device_map)
    offload = spread.get("offload_folder")
    kwargs |= spread | ({"offload_folder": offload.name} if offload else {})
    with loading_of(f"the model in {folder}"):
        with _whole_weights():
            model = whole_model(base.folder, **kwargs)
        if spread:
            model.offloaded = offload  # on disk as long as the model lives
        model.name_or_path = model.config._name_or_path = base.name
        model.config._commit_hash = base.commit
        tokenizer = tokenizer_in(folder if _has_tokenizer(folder) else base.folder)
        if base != place:
            model = adapted(model, folder, trainable=trainable_adapter)
    if on_device and quantization is None and not spread and not weights_are_sharded():
        model.to(processes().device)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return LoadedModel(model, tokenizer, STARTER_LABEL if str(name) == STARTER else str(name))


def load_tokenizer(name: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model by name, without its weights.

    Raises:
        BdpoError: as `resolve`, or the folder has no tokenizer.
    """
    path = expanded(name)
    if is_starter(name) or (local_folder(name) is None and path.suffix == ".gguf"):
        folder = tokenizer_alone(None if is_starter(name) else path)
    else:
        place = find(name, revision, weights=False)
        folder = place.folder if _has_tokenizer(place.folder) else base_of(place, weights=False).folder
    with loading_of(f"a tokenizer from {folder}"):
        return tokenizer_in(folder)


@dataclass(frozen=True)
class Unloaded:
    """Stands for a model whose weights are elsewhere: its config, and what it is known by."""

    config: Any
    name_or_path: str


def without_weights(
    name: str | Path, *, revision: str | None = None, chat_template: str | None = None
) -> LoadedModel | None:
    """A model's config and tokenizer by name, `Unloaded` in place of the model; None where its weights are at hand.

    At hand are those in a folder here that are small beside the memory that is free (`names.weights_fit`).

    Raises:
        BdpoError: as `resolve`, or its files cannot be loaded.
    """
    place = base_of(find(name, revision, weights=False), weights=False)
    if weights_fit(place.folder):
        return None
    with loading_of(f"the config in {place.folder}"):
        config = config_in(place.folder)
    tokenizer = load_tokenizer(name, revision=revision)
    tokenizer.chat_template = chat_template or tokenizer.chat_template
    return LoadedModel(Unloaded(config, place.name), tokenizer, str(name))


def tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, tried on a letter: what is damaged shows here (see `loading_of`), and not later."""
    tokenizer: PreTrainedTokenizerBase = from_files(AutoTokenizer, folder)
    tokenizer("a")
    _refuse_foreign(folder, tokenizer)
    return tokenizer


def _refuse_foreign(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """A special token that the vocabulary lacks: transformers adds it, as an id that the model never saw.

    Raises:
        BdpoError: tokenizer_config.json names one that neither it nor tokenizer.json gives an id.
    """
    config, vocabulary = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if not (config.exists() and vocabulary.exists()):
        return
    named, made = read_json(config, _COPY), read_json(vocabulary, _COPY, model=dict)
    entries = made["model"].get("vocab", ())  # of Unigram a list of [piece, score]
    known = set(entries) if isinstance(entries, dict) else {piece for piece, _ in entries}
    known |= {token["content"] for token in made.get("added_tokens") or ()}
    known |= {token["content"] for token in (named.get("added_tokens_decoder") or {}).values()}
    for role in ("eos_token", "bos_token", "pad_token"):
        if named.get(role) is not None and (token := str(getattr(tokenizer, role))) not in known:
            raise BdpoError(f"{config}: {role} is {token!r}, which the vocabulary of tokenizer.json lacks: {_COPY}.")


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


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / f).exists() for f in ("tokenizer_config.json", "tokenizer.json", "tokenizer.model"))


@contextmanager
def _whole_weights() -> Iterator[None]:
    """Read all weights in every process, since each hashes them; engines would shard them from the start."""
    unset_hf_deepspeed_config()  # of ZeRO-3; Trainer sets it again
    with patch_environment(FSDP_CPU_RAM_EFFICIENT_LOADING="false"):
        yield
