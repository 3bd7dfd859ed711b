"""A run -> plain weights that any engine loads: an adapter merged into its base, or whole weights as they are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from bdpo.errors import BdpoError
from bdpo.files import folder_made_whole
from bdpo.models.loading import LoadedModel, load
from bdpo.models.names import resolve
from bdpo.terminal import no_library_bars

_PROMPTS = ("The capital of France is", "How do I bake bread?", "1 2 3 4 5 6 7 8", "def main():\n    return")
# how far rounding may move the logits: root mean square, by that of the logits about their mean. Three times and more
# what 30 layers with adapters of any strength show (5e-6, 0.015, 0.08)
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}


def merge(run: str | Path, out: str | Path, *, dtype: str = "auto") -> Path:
    """Write the adapter in `run` merged into its base as plain weights that any engine loads.

    A head that shares the embedding's weights gets weights of its own where the adapter is on one of the two. What was
    written is read again, and its logits on a few prompts are compared with those of the adapter on its base; chat
    template and special tokens must be the same.

    Raises:
        BdpoError: `run` is not an adapter folder, its kind cannot be merged, `out` already holds something or another
            process writes it, or what was written is another model.
    """
    folder = resolve(run)
    if not (folder / "adapter_config.json").exists():
        raise BdpoError(f"{folder} holds no adapter (adapter_config.json): there is nothing to merge.")
    return plain_weights(run, out, dtype=dtype)


def plain_weights(run: str | Path, out: str | Path, *, dtype: str = "auto") -> Path:
    """`merge`, for a run of whole weights too, whose weights are written as they are. Raises BdpoError as it does."""
    out, folder = Path(out), resolve(run)
    with folder_made_whole(out, wait=False) as work:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise BdpoError(f"{out} is not empty: choose another --out or empty it.")
        loaded = load(folder, dtype=dtype)
        adapter = (folder / "adapter_config.json").exists()
        if adapter and not hasattr(loaded.model.base_model, "merge_and_unload"):
            kind = loaded.model.active_peft_config.peft_type.value
            raise BdpoError(
                f"{folder} holds an adapter of the kind {kind}, which cannot be merged: load it on its base."
            )
        expected = _logits(loaded)
        with no_library_bars():
            (_merged(loaded.model) if adapter else loaded.model).save_pretrained(work)
        loaded.tokenizer.save_pretrained(work)
        stored, texts = loaded.model.dtype, _texts(loaded.tokenizer)
        del loaded
        written = load(work, dtype="auto")
        _compare(expected, _logits(written), stored, folder)
        _refuse_other_texts(texts, _texts(written.tokenizer), folder)
    return out


def _texts(tokenizer: Any) -> dict[str, Any]:
    """What a server must read and end replies by, as the run has it."""
    return {
        "chat template": tokenizer.chat_template,
        "special tokens": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "token ids": [tokenizer(prompt)["input_ids"] for prompt in _PROMPTS],
    }


def _refuse_other_texts(expected: dict[str, Any], found: dict[str, Any], folder: Path) -> None:
    for what, said in expected.items():
        if found[what] != said:
            raise BdpoError(
                f"The {what} that were written are not those of {folder}: mend its tokenizer's files. Nothing was "
                "written."
            )


def _merged(model: Any) -> Any:
    """The plain model; its head has weights of its own where the adapter makes them differ from the embedding's."""
    base = model.get_base_model()
    placed = [base.get_input_embeddings(), base.get_output_embeddings()]
    plain = [_plain(module) for module in placed]
    shared = plain[1] is not None and plain[1].weight is plain[0].weight
    if shared and placed != plain:  # merging into one would change the other
        plain[1].weight = nn.Parameter(plain[1].weight.detach().clone())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's advice about tied weights
        merged = model.merge_and_unload()
    embedding, head = merged.get_input_embeddings(), merged.get_output_embeddings()
    if shared:
        tied = torch.equal(embedding.weight, head.weight)
        head.weight = embedding.weight if tied else head.weight
        merged.config.tie_word_embeddings = merged.config.get_text_config().tie_word_embeddings = tied
    return merged


def _plain(module: Any) -> Any:
    """The embedding or head under what peft has put on it."""
    if isinstance(module, AuxiliaryTrainingWrapper):
        return module.original_module
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


@torch.no_grad()
def _logits(loaded: LoadedModel) -> list[Tensor]:
    """Logits of the prompts, each (length, vocabulary), in float32."""
    ids = [torch.tensor([loaded.tokenizer(prompt)["input_ids"]]) for prompt in _PROMPTS]
    return [loaded.model.eval()(input_ids=prompt.to(loaded.model.device)).logits[0].float().cpu() for prompt in ids]


def _compare(expected: list[Tensor], found: list[Tensor], dtype: torch.dtype, folder: Path) -> None:
    """Raise BdpoError where the merged model's logits are not the adapter's."""
    wanted, given = torch.cat(expected), torch.cat(found)
    if wanted.shape == given.shape:
        spread = (wanted - wanted.mean(-1, keepdim=True)).square().mean().sqrt()
        apart = (given - wanted).square().mean().sqrt() / spread
        if apart <= _TOLERANCE.get(dtype, max(_TOLERANCE.values())):
            return
        how = f"by {apart:.1%} of their spread (largest difference {(given - wanted).abs().max():.2g})"
    else:
        how = f"in shape, {tuple(given.shape)} for {tuple(wanted.shape)}"
    raise BdpoError(
        f"The merged weights are not the model that {folder} is on its base: their logits differ {how}. Nothing was "
        "written; serve the adapter on its base, or merge with --dtype float32 where the base is stored in less."
    )
