"""What the numbers of a model depend on."""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedModel

from bdpo.models.placement import tensors_of

_NO_NUMBERS = {"name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype", "use_cache",
               "bos_token_id", "eos_token_id", "pad_token_id", "output_attentions", "output_hidden_states",
               "return_dict"}  # fmt: skip  # of a config


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 over names, dtypes and bytes of all weights (an adapter that is on included): what scores depend on.

    What changes the numbers and is no weight counts too: an adapter's scaling, and the config but for names,
    versions, dropout (which scoring leaves off) and what else changes none.
    """
    digest = hashlib.sha256()
    for key, tensor in tensors_of(model):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    config = model.config.get_text_config().to_dict()
    settings = {k: v for k, v in config.items() if k not in _NO_NUMBERS and not k.startswith("_") and "drop" not in k}
    scalings = {name: getattr(module, "scaling", None) for name, module in model.named_modules()}
    adapters = {name: scaling for name, scaling in scalings.items() if isinstance(scaling, dict)}
    digest.update(json.dumps([settings, adapters], sort_keys=True, default=str).encode())
    return digest.hexdigest()
