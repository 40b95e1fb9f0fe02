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
        raise ConfigError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {name!r} but torch finds no CUDA GPU; see gcl-fast doctor")
    if device.type == "cuda" and distributed.launched() > 1:
        if device.index is not None:
            raise ConfigError(f"device must be 'auto', 'cpu' or 'cuda' with {distributed.launched()} processes, got {name!r}")
        return distributed.own_gpu()
    return device
