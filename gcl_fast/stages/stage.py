"""The interface of a training stage: a plan for each epoch, a step for each batch, and its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gcl_fast.constants import LEARNING_ENCODER
from gcl_fast.data.plans import Plan
from gcl_fast.errors import StageError
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.records import Batch
from gcl_fast.stages.amp import autocast
from gcl_fast.stages.labels import ClusterWatch
from gcl_fast.stages.weight_average import WeightAverage


class Stage(ABC):
    """One training stage. The engine alone loops, logs, saves and resumes.

    modules and optimizers are saved and restored by name; extra_state holds whatever else the rest of an epoch needs
    (bank, labels, centroids).
    """

    name: str
    epochs: int
    seed: int
    device: torch.device
    encoder: IdentityEncoder
    """The one that learns."""
    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    eval_every: int = 1
    memory_format: torch.memory_format = torch.preserve_format
    """Of image batches."""
    graphs: bool = False
    """Networks run as CUDA graphs: torch must be told where a step begins."""
    step_graph: bool = False
    """Steps run as one CUDA graph, see `StepGraph`."""
    bf16: bool = False
    """Networks run under bfloat16 autocast."""
    unit: int = 1
    """Rows of a batch that must stay in one process."""
    watch: ClusterWatch | None = None
    """Keeps an eye on the pseudo-labels that `plan_epoch` makes."""
    average: WeightAverage[IdentityEncoder] | None = None
    """Of the encoder, where `keep_average` asked for it."""

    def enter_epoch(self, epoch: int) -> None:  # noqa: B027  a stage without a schedule has nothing to set
        """Set what follows from the epoch's number alone (learning rates, momenta). Called at the start of every epoch, also
        where a killed run goes on inside it, before `plan_epoch`."""

    @abstractmethod
    def plan_epoch(self, epoch: int) -> Plan:
        """Prepare what the checkpoint keeps (pseudo-labels, memory) and say which images the epoch's batches hold. Not called
        where a checkpoint has the plan."""

    def epoch_plan(self, epoch: int) -> Plan:
        """`plan_epoch`; StageError where it has no batch."""
        plan = self.plan_epoch(epoch)
        if not plan.batches:
            raise StageError(f"{self.name}, epoch {epoch + 1}: no batch to train on; lower batch_size")
        return plan

    @abstractmethod
    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        """The batches of the plan from position `start`."""

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """One update; returns every loss as a detached 0-d tensor."""
        return self.update(batch, self.draw(batch, iteration))

    def draw(self, batch: Batch, iteration: int) -> Any:  # noqa: ANN401 - each stage has its own
        """What is random about an iteration, in tensors on the device; from `iteration_rng`, so that a resumed run repeats it."""
        del batch, iteration
        return None

    @abstractmethod
    def update(self, batch: Batch, drawn: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
        """`step` with what `draw` gave; numbers of the host that it reads change between epochs only."""

    def batches_left(self, plan: Plan, epoch: int, position: int) -> int:
        """How many batches the stage still has, this epoch's included: for the ETA."""
        return len(plan.batches) * (self.epochs - epoch) - position

    def epoch_scalars(self) -> dict[str, float]:
        """Figures of the epoch just planned (clusters, outliers, learning rate)."""
        return {}

    def rates(self) -> dict[str, float]:
        """The learning rate of each optimiser, as `lr/<its name>`; of several groups of weights as `lr/<its name>_0` and on."""
        found: dict[str, float] = {}
        for name, optimizer in self.optimizers.items():
            groups = optimizer.param_groups
            found |= {f"lr/{name}" + (f"_{i}" if len(groups) > 1 else ""): float(g["lr"]) for i, g in enumerate(groups)}
        return found

    def score(self) -> dict[str, float]:
        """Scores on held-out people; empty where there are none. The key 'score' decides which checkpoint is best."""
        return {}

    def evaluate(self, epoch: int) -> dict[str, float]:
        """The scores after `epoch`, empty where they are not due."""
        due = (epoch + 1) % self.eval_every == 0 or epoch + 1 == self.epochs
        return self.score() if due else {}

    def pictures(self) -> dict[str, dict[str, Tensor]]:
        """Pictures by name, each a dict of rows: image rows [n, 3, H, W] normalised, mesh rows [n, 1, H, W] in [-1, 1]."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        del state

    def iteration_rng(self, iteration: int, stream: int = 0) -> np.random.Generator:
        """A random stream that depends on seed, stage, iteration and its own number alone."""
        tag = sum(ord(c) << (8 * i) for i, c in enumerate(self.name[-4:]))
        return np.random.Generator(
            np.random.Philox(key=np.array([self.seed, (tag << 32) | iteration], dtype=np.uint64), counter=[0, 0, 0, stream])
        )

    def keep_average(self, decay: float) -> None:
        """What is scored, and saved as the encoder, is from now on a moving average of its weights; decay 0: nothing changes."""
        if decay:
            self.average = WeightAverage(self.encoder, decay)
            self.modules = {**self.modules, "encoder": self.average.module, LEARNING_ENCODER: self.encoder}

    @property
    def kept_encoder(self) -> IdentityEncoder:
        """The encoder that is scored and saved as such."""
        return self.encoder if self.average is None else self.average.module

    def autocast(self) -> torch.autocast:
        """The precision in which this stage's networks run."""
        return autocast(self.bf16, self.device)

    def descend(self, loss: Tensor, *names: str) -> None:
        """One step down `loss` of the optimisers of these names."""
        optimizers = [self.optimizers[name] for name in names]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        if self.average is not None and "encoder" in names:
            self.average.update()


def stepped_lr(base: float, gamma: float, steps: Iterable[int], epoch: int) -> float:
    """base * gamma for each step epoch that is over."""
    return base * gamma ** sum(epoch >= step for step in steps)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
