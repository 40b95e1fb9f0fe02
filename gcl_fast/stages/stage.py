"""What the engine asks of a stage: a plan for each epoch, a step for each batch, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast.data.plans import Plan
from gcl_fast.records import Batch


class Stage(ABC):
    """One training stage. The engine alone loops, logs, saves and resumes.

    modules and optimizers are saved and restored by name; extra_state holds whatever else the rest of an epoch needs
    (bank, labels, centroids). step must draw its randomness from iteration_rng, so that a resumed run repeats it.
    """

    name: str
    epochs: int
    seed: int
    device: torch.device
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    encoder: nn.Module
    score: Callable[[nn.Module], dict[str, float]] | None = None
    eval_every: int = 1
    memory_format: torch.memory_format = torch.preserve_format
    """Of image batches."""
    graphs: bool = False
    """Networks run as CUDA graphs: torch must be told where a step begins."""
    unit: int = 1
    """Rows of a batch that must stay in one process."""

    @abstractmethod
    def begin_epoch(self, epoch: int) -> Plan:
        """Prepare the epoch (pseudo-labels, memory, learning rate) and say which images its batches hold."""

    @abstractmethod
    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        """The batches of the plan from position `start`."""

    @abstractmethod
    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One update; returns every loss as a detached 0-d tensor."""

    def batches_left(self, plan: Plan, epoch: int, position: int) -> int:
        """How many batches the stage still has, this epoch's included: for the ETA."""
        return len(plan.batches) * (self.epochs - epoch) - position

    def epoch_scalars(self) -> dict[str, float]:
        """Figures of the epoch just prepared (clusters, outliers, learning rate)."""
        return {}

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Scores of the encoder after `epoch`, empty when it is not due or nothing scores it.

        The key 'score' decides which checkpoint is best.
        """
        due = (epoch + 1) % self.eval_every == 0 or epoch + 1 == self.epochs
        return self.score(self.encoder) if due and self.score is not None else {}

    def pictures(self) -> dict[str, dict[str, Tensor]]:
        """Pictures by name, each a dict of rows: image rows [n, 3, H, W] normalised, mesh rows [n, 1, H, W] in [-1, 1]."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        del state

    def iteration_rng(self, iteration: int) -> np.random.Generator:
        """A random stream that depends on seed, stage and iteration alone."""
        tag = sum(ord(c) << (8 * i) for i, c in enumerate(self.name[-4:]))
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, (tag << 32) | iteration], dtype=np.uint64)))


def send(array: np.ndarray, device: torch.device) -> Tensor:
    """A small array to the device, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def stepped_lr(base: float, gamma: float, steps: Iterable[int], epoch: int) -> float:
    """base * gamma for each step epoch that is over."""
    return base * gamma ** sum(epoch >= step for step in steps)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
