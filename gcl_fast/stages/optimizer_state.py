"""The state of an optimiser, taken over from a checkpoint or from another optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

SETTINGS = ("weight_decay", "betas", "momentum", "nesterov")  # of the configuration; the learning rate is set by every epoch
WAYS = ("fused", "foreach", "capturable", "differentiable")  # how an optimiser computes, not what


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Takes over `state` (of `optimizer.state_dict()`), each moment laid out in memory as its parameter is: fused optimisers on a
    GPU refuse others, and the state may come from a network of another layout (on a CPU channels_last is off).

    `SETTINGS` stay the optimiser's own: what is edited in a run's config.yaml applies where the run goes on. So do `WAYS`: with
    those of a CPU an optimiser on a GPU would wait for each weight's counter of steps.
    """
    own, groups = optimizer.param_groups, state["param_groups"]
    if len(groups) == len(own):  # else torch says what does not fit
        of_here = [{name: mine[name] for name in (*SETTINGS, *WAYS) if name in mine} for mine in own]
        groups = [{**group, **here} for group, here in zip(groups, of_here, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            kept = optimizer.state.get(parameter, {})
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                    kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
