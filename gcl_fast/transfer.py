"""Between host and GPU without either waiting: tensors sent ahead, and a number asked for before it is needed."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; a copy to a GPU goes through pinned memory, and nothing waits for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Asked:
    """A tensor of a GPU whose numbers the host will want: the copy is queued now and waited for in `get`.

    What is queued in between keeps the GPU busy while the host waits, as it would not if the number were read in its place.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor
        self._done: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._host = tensor.to("cpu", non_blocking=True)  # torch takes pinned memory for it
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(tensor.device))

    def get(self) -> Tensor:
        """The numbers on the CPU."""
        if self._done is not None:
            self._done.synchronize()
        return self._host
