"""Several models, one after the other, where those on the same base share it in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bdpo.files import read_json
from bdpo.models import (
    STARTER,
    STARTER_LABEL,
    LoadedModel,
    adapted,
    base_folder,
    device_of,
    is_spread,
    load,
    load_tokenizer,
    loading_of,
    resolve,
)

_PLAIN_STARTS = (True, False, "gaussian")  # others (PiSSA, OLoRA, ...) take something from the base when they start


def models_sharing_base(names: Sequence[str | Path], **how: Any) -> Iterator[tuple[str, LoadedModel]]:
    """Load each of the models in turn, as `models.load` would, but every base only once.

    Names on one base follow each other, in the order in which they stand; an adapter is put on the base for its turn
    and taken off after it, so a model is good only until the next one is asked for. Weights, log-probabilities and
    `weights_hash` are those of the model loaded by itself. An adapter that changes more than it adds (trained biases
    or embeddings, a start that alters the base) is loaded by itself.

    Args:
        how: keyword arguments of `models.load`, for all of them.

    Raises:
        BdpoError: as `models.load`.
    """
    folders = {name: resolve(name).resolve() for name in names}  # two spellings of one folder are one
    by_base: dict[Path, list[str | Path]] = {}
    for name in names:
        by_base.setdefault(base_folder(folders[name]).resolve(), []).append(name)
    for base, members in by_base.items():
        sharing = {name for name in members if _can_share(folders[name], base)}
        shared = load(base, **how) if sharing else None
        for name in members:
            label = STARTER_LABEL if str(name) == STARTER else str(name)
            if shared is None or name not in sharing:
                alone = load(name, **how)
                yield str(name), alone
                _let_go(alone)
            elif folders[name] == base:
                yield str(name), replace(shared, label=label)
            else:
                model = _adapted(shared.model, folders[name])
                tokenizer = load_tokenizer(folders[name])
                tokenizer.chat_template = how.get("chat_template") or tokenizer.chat_template
                yield str(name), LoadedModel(model, tokenizer, label)
                model.unload()
        if shared is not None:
            _let_go(shared)


def _let_go(loaded: LoadedModel) -> None:
    """Free a model's weights, whoever still holds it, before the next one is loaded."""
    if not getattr(loaded.model, "is_quantized", False) and not is_spread(loaded.model):  # those cannot be moved
        loaded.model.to("meta")


def _adapted(base: Any, folder: Path) -> Any:
    device = device_of(base)
    with loading_of(f"the adapter in {folder}"):
        return adapted(base, folder, torch_device=str(device))


def _can_share(folder: Path, base: Path) -> bool:
    """Whether the model in `folder` is its base, or a LoRA adapter that leaves no trace on it."""
    if folder == base:
        return True
    weights = folder / "adapter_model.safetensors"
    config = read_json(folder / "adapter_config.json", "mend it or copy the adapter again")
    if not weights.exists() or config.get("peft_type") != "LORA":
        return False
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        return False
    try:
        with safe_open(weights, "pt") as tensors:
            return all(".lora_" in key for key in tensors.keys())  # noqa: SIM118  # it is no dict
    except SafetensorError:
        return False  # loading it by itself says what is wrong
