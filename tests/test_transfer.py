"""From host to GPU: what goes there takes pinned memory and waits for nobody. The GPU is pretended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gcl_fast.transfer import send

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


class Pretended:
    """A tensor that writes down where it goes."""

    def __init__(self, device: torch.device, told: list[Any]) -> None:
        self.device, self.told = device, told

    def pin_memory(self) -> Pretended:
        self.told.append("pinned")
        return self

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> torch.Tensor:
        self.told.append((torch.device(device), non_blocking))
        return torch.tensor(5)


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [(CPU, GPU, ["pinned", (GPU, True)]), (GPU, GPU, [(GPU, False)]), (GPU, CPU, [(CPU, False)]), (CPU, CPU, [(CPU, False)])],
)
def test_only_what_leaves_the_host_takes_pinned_memory(source: torch.device, target: torch.device, told: list[Any]) -> None:
    """A copy to the host that nobody waits for would be read before it is there."""
    found: list[Any] = []
    send(Pretended(source, found), target)
    assert found == told
