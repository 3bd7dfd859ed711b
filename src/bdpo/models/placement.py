"""A model that is spread over devices: accelerate's dispatch over GPUs, CPU and disk (`device_map`).

Its weights come to a device when a module is called, so that a model larger than one device, or than memory, can be
scored and asked. It is not trained that way: FSDP and DeepSpeed shard what is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from bdpo.errors import BdpoError
from bdpo.files import cache_dir
from bdpo.processes import processes

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
DeviceMap = str | dict[str, str | int] | None


def placed(device_map: DeviceMap) -> dict[str, Any]:
    """Keywords of `from_pretrained` for a device map: a name of DEVICE_MAPS, or modules and the device of each.

    Raises:
        BdpoError: no such map, or several processes, each of which would spread the model over the same devices.
    """
    if device_map is None:
        return {}
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise BdpoError(f"model.device_map is '{device_map}': take {', '.join(DEVICE_MAPS)}, or modules with devices.")
    if processes().num_processes > 1:
        raise BdpoError("model.device_map spreads a model over the devices of one process: start one.")
    cache_dir().mkdir(parents=True, exist_ok=True)
    offload = tempfile.TemporaryDirectory(dir=cache_dir(), prefix="offload-")  # goes when nobody holds it
    return {"device_map": device_map, "offload_folder": offload}


def is_spread(model: nn.Module) -> bool:
    """Whether the model was loaded with a device map."""
    return getattr(model, "hf_device_map", None) is not None


def device_of(model: nn.Module) -> torch.device:
    """Where a model's inputs go: the device of its first weight that is on one, else the CPU."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a state dict, by name; what lies on disk is read one module at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.device.type != "meta":
            yield name, tensor
            continue
        module, _, attribute = name.rpartition(".")
        with align_module_device(model.get_submodule(module), "cpu"):
            yield name, getattr(model.get_submodule(module), attribute)
