"""Between host and GPU: what goes there takes pinned memory and waits for nobody, what was asked for is waited for. The GPU is
pretended."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gcl_fast.transfer import Asked, send

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


def test_a_number_that_was_asked_for_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Event:
        def record(self, stream: object) -> None:
            told.append(stream)

        def synchronize(self) -> None:
            told.append("waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    asked = Asked(Pretended(GPU, told))
    assert told == [(CPU, True), "stream of cuda:1"]  # the copy is queued before its end is marked
    assert asked.get() == 5 and told[-1] == "waited"


def test_a_number_on_the_host_is_there() -> None:
    tensor = torch.tensor([1, 2])
    assert Asked(tensor).get() is tensor and send(tensor, CPU) is tensor
