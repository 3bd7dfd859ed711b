"""What a model name means; loading; merging.

licence.py  what a card says of the licence of a base
names.py    a name -> where the model lies (starter, folder, adapter, .gguf file, hub)
gguf.py     GGUF files and the starter model -> float32 folders in the cache
remote_code.py  whether Python code beside a model may run; what transformers loads goes through it
placement.py   a model spread over devices
patterns.py    an adapter's patterns, which may never end
strict.py   weights from files, whole or not at all
loading.py  a name -> model and tokenizer in memory
weights.py  what the numbers of a model depend on
merging.py  a run -> plain weights
exporting.py   ... and a GGUF file
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdpo.later import later

if TYPE_CHECKING:
    from bdpo.models.exporting import export
    from bdpo.models.gguf import STARTER, STARTER_LABEL
    from bdpo.models.loading import LoadedModel, load, load_tokenizer, tokenizer_in, without_weights
    from bdpo.models.merging import merge
    from bdpo.models.names import base_folder, known_as, resolve
    from bdpo.models.placement import DeviceMap, device_of, is_spread
    from bdpo.models.remote_code import from_config, from_files, trust_remote_code
    from bdpo.models.strict import adapted, config_in, fit_vocabulary, loading_of, whole_model
    from bdpo.models.weights import weights_hash

__all__ = [
    "STARTER",
    "STARTER_LABEL",
    "DeviceMap",
    "LoadedModel",
    "adapted",
    "base_folder",
    "config_in",
    "device_of",
    "export",
    "fit_vocabulary",
    "from_config",
    "from_files",
    "is_spread",
    "known_as",
    "load",
    "load_tokenizer",
    "loading_of",
    "merge",
    "resolve",
    "tokenizer_in",
    "trust_remote_code",
    "weights_hash",
    "whole_model",
    "without_weights",
]

__getattr__ = later(
    __name__,
    {
        "exporting": ["export"],
        "gguf": ["STARTER", "STARTER_LABEL"],
        "loading": ["LoadedModel", "load", "load_tokenizer", "tokenizer_in", "without_weights"],
        "merging": ["merge"],
        "names": ["base_folder", "known_as", "resolve"],
        "placement": ["DeviceMap", "device_of", "is_spread"],
        "remote_code": ["from_config", "from_files", "trust_remote_code"],
        "strict": ["adapted", "config_in", "fit_vocabulary", "loading_of", "whole_model"],
        "weights": ["weights_hash"],
    },
)
