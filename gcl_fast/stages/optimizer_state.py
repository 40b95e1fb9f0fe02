"""The state of an optimiser, taken over from a checkpoint or from another optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes over `state` (of `optimizer.state_dict()`), each moment laid out in memory as its parameter is: fused optimisers on a
    GPU refuse others, and the state may come from a network of another layout (on a CPU channels_last is off)."""
    optimizer.load_state_dict(dict(state))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            kept = optimizer.state.get(parameter, {})
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
