"""The state of an optimiser, taken over from a checkpoint or from another optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SETTINGS = ("weight_decay", "betas", "momentum", "nesterov")  # of the configuration; the learning rate is set by every epoch


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes over `state` (of `optimizer.state_dict()`), each moment laid out in memory as its parameter is: fused optimisers on a
    GPU refuse others, and the state may come from a network of another layout (on a CPU channels_last is off).

    `SETTINGS` stay the optimiser's own: what is edited in a run's config.yaml applies where the run goes on."""
    own = [{name: group[name] for name in SETTINGS if name in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
        for parameter in group["params"]:
            kept = optimizer.state.get(parameter, {})
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
