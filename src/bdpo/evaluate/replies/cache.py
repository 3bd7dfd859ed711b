"""The keys and values of the replies that are being made, with room to grow, and the replies that leave them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

_ROOM = 64  # tokens that a layer grows by: `DynamicLayer` copies all it holds at every token
_FEWEST = 8  # replies that leave a batch together: fewer would not pay for the copy of what stays


class RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views of tensors that have room behind them."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, K, L, D) keys and values; returns all there are, each (B, K, length, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _appended(self.keys, key_states)
        self.values = _appended(self.values, value_states)
        return self.keys, self.values


def _appended(held: Tensor | None, new: Tensor) -> Tensor:
    """`held` with `new` behind it: in the room behind `held`, where it is a view with enough of it."""
    start = held.shape[-2] if held is not None and held.numel() else 0
    end = start + new.shape[-2]
    whole = None if held is None else held._base
    if whole is None or whole.dim() != 4 or whole.shape[-2] < end or whole.shape[:2] != new.shape[:2]:
        whole = new.new_empty(*new.shape[:2], end + _ROOM, new.shape[-1])
        if held is not None and start:
            whole[:, :, :start] = held
    whole[:, :, start:end] = new
    return whole[:, :, :end]


def roomy_cache(model: Any) -> DynamicCache | None:
    """An empty cache for generation that rows may leave; None where the model keeps its past in another way."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "past_key_values" not in inspect.signature(base.forward).parameters or base.config.is_encoder_decoder:
        return None
    if not base._supports_default_dynamic_cache():
        return None
    cache = DynamicCache(config=base.config.get_text_config(decoder=True))
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer) for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Leaving(StoppingCriteria):
    """Stops a batch where a quarter of its replies have ended, so that the others go on without them."""

    def __init__(self, stop: Tensor, rows: int) -> None:
        self.stop, self.ended = stop, torch.zeros(rows, dtype=torch.bool, device=stop.device)
        self.enough = max(_FEWEST, rows // 4)

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """input_ids (B, L) -> (B,) bool."""
        self.ended |= torch.isin(input_ids[:, -1], self.stop)
        return self.ended.new_full((len(input_ids),), bool(self.ended.sum() >= self.enough))
