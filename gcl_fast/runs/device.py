"""The device of this process."""

from __future__ import annotations

import torch

from gcl_fast import distributed
from gcl_fast.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """The device asked for; where torchrun started several processes, each gets a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r} but torch finds no CUDA GPU; see gcl-fast doctor")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ConfigError(f"device is {name!r} but there are {torch.cuda.device_count()} CUDA GPUs, counted from 0")
    if device.type == "cuda" and distributed.launched() > 1:
        if device.index is not None:
            raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda' with {distributed.launched()} processes, got {name!r}")
        return distributed.own_gpu()
    return device
