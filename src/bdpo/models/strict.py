"""Weights from files: all of a model's or an adapter's tensors, in their shapes, and no others."""

from __future__ import annotations

import logging
import pickle
import re
import struct
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from bdpo.errors import BdpoError
from bdpo.files import read_json
from bdpo.models.patterns import refuse_endless
from bdpo.models.remote_code import asking_nobody, from_files
from bdpo.terminal import no_library_bars

LOADING_ERRORS = (  # what damaged and foreign models raise in torch, transformers, tokenizers and peft
    OSError, ValueError, ImportError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError,
    AssertionError, EOFError, re.error, struct.error, pickle.UnpicklingError, SafetensorError, StrictDataclassError,
)  # fmt: skip
_WHOLE = ("I", "U", "BOOL")  # how safetensors calls the types of whole numbers
_PREFIX = "base_model.model."  # of an adapter's tensors
_LARGEST = {  # in a config: a multiple of what any model has, beyond which building it takes all memory or time
    "vocab_size": 100_000_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "num_hidden_layers": 10_000,
    "num_attention_heads": 100_000,
    "num_key_value_heads": 100_000,
    "head_dim": 1_000_000,
    "max_position_embeddings": 10**10,
}
# peft fills these from elsewhere
_NOT_MISSED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")
# ... reads these by itself, or writes them twice
_READ_APART = ("prompt_embeddings", *(f".{copy}.{kind}" for copy in ("modules_to_save", "original_module")
                                      for kind in ("weight", "bias")))  # fmt: skip


@contextmanager
def loading_of(what: str) -> Iterator[None]:
    """In it what libraries raise over files is one sentence, a BdpoError: `what` cannot be loaded, and why."""
    try:
        yield
    except BdpoError:
        raise
    except Exception as error:
        if not isinstance(error, LOADING_ERRORS) and type(error) is not Exception:  # tokenizers raises that one itself
            raise
        raise BdpoError(f"Cannot load {what}: {_loading_fault(error)}") from error


def _loading_fault(error: Exception) -> str:
    """What an error says of a model's files, and the mend: the rest of a sentence."""
    said = re.split(r"[.!?]\s", " ".join(str(error).split()))[0].rstrip(".")
    kind = "" if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: "
    return f"{kind}{said}; if its files are damaged or of another kind of model, copy or download it again."


def config_in(folder: Path, **how: Any) -> Any:
    """The config in a folder.

    Raises:
        BdpoError: one of its sizes is no size of a model.
    """
    config = from_files(AutoConfig, folder, **how)
    for name, most in _LARGEST.items():
        size = getattr(config.get_text_config(), name, None)
        if type(size) is int and not 0 < size <= most:  # some have a list of them, or null
            raise BdpoError(
                f"{folder / 'config.json'}: {name} is {size}, which is no model's (1 to {most}): copy or download it "
                "again."
            )
    return config


def whole_model(folder: Path, kind: Any = AutoModelForCausalLM, **how: Any) -> Any:
    """`kind.from_pretrained(folder, **how)`, where the files hold exactly the model's tensors.

    `how` may have the `config`, as `config_in` read it.

    transformers fills what is missing, or of another shape, at random, and leaves out what it does not know. A tensor
    that is tied to another may be missing, and so may what the architecture itself says is made anew.

    Raises:
        BdpoError: tensors are missing, unexpected or of other shapes; it names them. Or generation_config.json, which
            transformers passes over where it is damaged, holds no tokens that end a reply.
    """
    whose = f"The model in {folder}"
    _refuse_damaged(folder / "generation_config.json")
    _refuse_elsewhere(folder)
    if not {"gguf_file", "config"} & set(how):
        how["config"] = config_in(folder)
    with _tensors_only(whose), _report_left_out(), no_library_bars():
        model, info = from_files(kind, folder, output_loading_info=True, ignore_mismatched_sizes=True, **how)
    _refuse_missing(whose, info["missing_keys"])
    if info["mismatched_keys"]:
        name, found, expected = min(info["mismatched_keys"])
        raise BdpoError(
            f"{whose} holds {name} with shape {tuple(found)} where its config.json asks for "
            f"{tuple(expected)}: bring back the files that belong together."
        )
    if info["unexpected_keys"]:
        raise BdpoError(
            f"{whose} holds {_some(info['unexpected_keys'])}, which its config.json does not ask for: "
            "bring back the files that belong together."
        )
    if getattr(model.config, "quantization_config", None) is None:  # else its numbers may stand for fractions
        _refuse_cast(whose, model, _weights_in(folder))
    return model


def adapted(model: Any, folder: Path, *, trainable: bool = False, **how: Any) -> Any:
    """Put the adapter in `folder` on the model: a PeftModel, in eval mode unless `trainable`.

    A model whose vocabulary the adapter was trained to enlarge is resized (see `fit_vocabulary`).

    Args:
        how: keyword arguments of `PeftModel.from_pretrained`.

    Raises:
        BdpoError: tensors of the adapter are missing, unexpected or whole numbers, and it names them; or a pattern of
            its config does not end.
    """
    from peft import PeftConfig, PeftModel

    whose = f"The adapter in {folder}"
    if not any((folder / file).exists() for file in ("adapter_model.safetensors", "adapter_model.bin")):
        raise BdpoError(f"{whose} has no weights (adapter_model.safetensors): copy it again.")
    config = PeftConfig.from_pretrained(str(folder))
    with _tensors_only(whose), asking_nobody(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # it is said below
        fit_vocabulary(model, folder)
        names = [name for name, _ in model.named_modules()]
        refuse_endless(config.to_dict(), names, str(folder / "adapter_config.json"))
        try:
            on: Any = PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=trainable, **how)
        except KeyError as error:  # a whole module that the adapter replaces
            raise _lacking(whose, [str(error.args[0])]) from error
    _refuse_cast(whose, on, folder.glob("adapter_model.safetensors"))
    # from_pretrained only warns of what is missing; loading the same once more says it all
    loaded = on.load_adapter(str(folder), "default", is_trainable=trainable, **how)
    missing = [key for key in loaded.missing_keys if not any(part in key for part in _NOT_MISSED)]
    _refuse_missing(whose, missing)
    unexpected = [key for key in loaded.unexpected_keys if not key.endswith(_READ_APART)]
    if unexpected:
        raise BdpoError(
            f"{whose} holds {_some(unexpected)}, which its adapter_config.json does not ask for: "
            "bring back the files that belong together."
        )
    return on


def fit_vocabulary(model: Any, folder: Path) -> None:
    """Resize the model's embedding and head to the rows of those that the adapter in `folder` brings along.

    peft saves them whole where the vocabulary was resized before training.

    Raises:
        BdpoError: it brings only one of the two, and they are not tied.
    """
    from peft.utils import load_peft_weights

    modules = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    names = {module: name for name, module in model.named_modules()}
    stored = {
        key.removeprefix(_PREFIX): len(tensor)
        for key, tensor in load_peft_weights(str(folder), device="cpu").items()
        if key.endswith(".weight") and "lora_" not in key
    }
    found: dict[str, int] = {}
    for what, module in modules.items():
        rows = {n for key, n in stored.items() if module in names and key.startswith(f"{names[module]}.")}
        found |= {what: max(rows)} if rows else {}
    here = len(modules["embedding"].weight)
    if not found or set(found.values()) == {here}:
        return
    tied = modules["head"] is None or modules["head"].weight is modules["embedding"].weight
    if not tied and (len(found) < 2 or len(set(found.values())) > 1):
        lacking = next((what for what in modules if found.get(what, here) == here), "head")
        raise BdpoError(
            f"The adapter in {folder} was trained with a vocabulary of {max(found.values())} tokens, its base has "
            f"{here}, and it does not hold the larger {lacking}: train it with embedding and head both in "
            "modules_to_save, or neither in target_modules."
        )
    model.resize_token_embeddings(max(found.values()), mean_resizing=False)


def _refuse_cast(whose: str, model: Any, files: Iterable[Path]) -> None:
    """Refuse whole numbers in files where the model's weights are fractions: torch casts them without a word.

    Weights that transformers renames while it loads are not seen.
    """
    fractions = {_as_stored(name) for name, weight in model.named_parameters() if weight.is_floating_point()}
    for file in files:
        with safe_open(file, "pt") as stored:
            kinds = {name: stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118  # no mapping
        cast = [name for name, kind in kinds.items() if kind.startswith(_WHOLE) and _as_stored(name) in fractions]
        if cast:
            raise BdpoError(
                f"{whose} holds {_some(cast)} as whole numbers ({kinds[min(cast)]}) where the model has fractions: "
                "save the weights in float32, or copy its files again."
            )


def _as_stored(name: str) -> str:
    """The name of a weight without what peft puts in it once it is loaded."""
    return re.sub(r"\.(modules_to_save|default)(?=\.|$)", "", name)


def _refuse_damaged(generation_config: Path) -> None:
    if not generation_config.exists():
        return
    mend = "copy or download it again"
    ends = read_json(generation_config, mend).get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise BdpoError(f"{generation_config}: eos_token_id is {ends!r} and must be a token's id or several: {mend}.")


def _refuse_elsewhere(folder: Path) -> None:
    """An index may name the files beside it and no others: transformers would open whatever path it holds."""
    for index in folder.glob("*.index.json"):
        for file in read_json(index, "copy or download it again", weight_map=dict)["weight_map"].values():
            if not isinstance(file, str) or Path(file).name != file:
                raise BdpoError(f"{index} names {file!r}, which is no file beside it: copy or download it again.")


def _weights_in(folder: Path) -> list[Path]:
    """The safetensors files that a model's folder is loaded from."""
    indices = [read_json(index, "", weight_map=dict) for index in folder.glob("*.safetensors.index.json")]
    named = {file for index in indices for file in index["weight_map"].values()} or {"model.safetensors"}
    return [folder / name for name in sorted(named) if (folder / name).exists()]


def _refuse_missing(whose: str, names: Collection[str]) -> None:
    if names:
        raise _lacking(whose, names)


def _lacking(whose: str, names: Collection[str]) -> BdpoError:
    return BdpoError(f"{whose} lacks {_some(names)}: copy its files again.")


def _some(names: Collection[str]) -> str:
    plain = sorted(name.removeprefix(_PREFIX).replace(".default.", ".").removesuffix(".default") for name in names)
    return ", ".join(plain[:3]) + (f" and {len(plain) - 3} more" if len(plain) > 3 else "")


@contextmanager
def _tensors_only(whose: str) -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError as error:
        raise BdpoError(
            f"{whose}: the pickle is damaged or holds more than tensors, and then it could run code; save the weights "
            "as safetensors where you trust them."
        ) from error


@contextmanager
def _report_left_out() -> Iterator[None]:
    """transformers logs a table of what did not fit; here it becomes a sentence."""

    def wanted(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
