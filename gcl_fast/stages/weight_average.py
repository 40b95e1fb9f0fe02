"""A network whose weights are the moving average of another's: single steps shake the one that learns, not the average."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class WeightAverage(Generic[Network]):
    """After each update: average = decay * average + (1 - decay) * weights; batch norm's averages alike, its counters copied.

    It starts as the network as it is. Nothing waits for the device.
    Source: the mean teacher of Tarvainen and Valpola, arXiv 1703.01780.
    """

    def __init__(self, learning: Network, decay: float) -> None:
        """decay: the share of the average that stays, 0 to below 1."""
        self.decay = decay
        self.module = deepcopy(learning).requires_grad_(False)
        own, theirs = ([*network.parameters(), *network.buffers()] for network in (self.module, learning))
        pairs = list(zip(own, theirs, strict=True))
        self.real = [pair for pair in pairs if pair[0].is_floating_point()]
        self.whole = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_([own for own, _ in self.real], [theirs for _, theirs in self.real], 1 - self.decay)
        for own, theirs in self.whole:
            own.copy_(theirs)
