"""What the warm-up methods have in common: one encoder, one loader, going on for a number of updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from gcl_fast.config import TrainConfig
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan
from gcl_fast.records import Batch
from gcl_fast.stages.amp import use_bfloat16
from gcl_fast.stages.layout import prepare
from gcl_fast.stages.stage import Stage, stepped_lr

Features = Callable[[nn.Module], Tensor]
Score = Callable[[nn.Module], dict[str, float]]


class Schedule(Protocol):
    """What every method's settings say of time."""

    epochs: int
    iters: int
    lr: float
    lr_gamma: float
    lr_steps: tuple[int, ...]


class WarmupStage(Stage):
    """A warm-up of the identity encoder.

    first_epoch, updates: go on after `first_epoch` finished epochs for that many updates (at the last learning rate).
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        encoder: nn.Module,
        loader: Loader,
        *,
        device: torch.device,
        features: Features,
        score: Score | None = None,
        name: str = "stage1",
        first_epoch: int = 0,
        updates: int | None = None,
    ) -> None:
        """features: L2-normalised features [N, D] of the training images; score: held-out metrics."""
        self.schedule, self.name, self.first_epoch, self.updates = schedule, name, first_epoch, updates
        self.seed, self.device, self.epochs = config.seed, device, schedule.epochs
        self.eval_every = config.stage1.eval_every
        self.planned = 0  # updates planned so far
        if updates is not None:
            # Without a fixed number of iterations: at least one an epoch; the last is known when its plan is made.
            self.epochs = -(-updates // schedule.iters) if schedule.iters else updates
        self.encoder = encoder.requires_grad_(True)
        self.loader, self.features, self.score = loader, features, score
        self.bf16 = use_bfloat16(config.precision, device)
        self.modules = {"encoder": encoder}
        self.memory_format = prepare(self.modules, config, device)
        self.graphs = config.compile == "graphs"
        self.fused = device.type == "cuda" or None  # optimisers in one kernel; None: torch decides

    def age(self, epoch: int) -> int:
        """Epochs that are over, those before `first_epoch` included."""
        return self.first_epoch + epoch

    def rate(self, epoch: int) -> float:
        schedule = self.schedule
        return stepped_lr(schedule.lr, schedule.lr_gamma, schedule.lr_steps, min(self.age(epoch), schedule.epochs - 1))

    def cut(self, plan: Plan, epoch: int) -> Plan:
        """End the stage when the updates asked for are planned."""
        if self.updates is not None and self.planned + len(plan.batches) >= self.updates:
            plan, self.epochs = Plan(plan.batches[: self.updates - self.planned]), epoch + 1
        self.planned += len(plan.batches)
        return plan

    def batches_left(self, plan: Plan, epoch: int, position: int) -> int:
        if self.updates is None:
            return super().batches_left(plan, epoch, position)
        return self.updates - self.planned + len(plan.batches) - position

    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        return self.loader.epoch(plan, self.age(epoch), start=start)

    def update(self, loss: Tensor) -> None:
        """One step of the encoder's optimiser down `loss`."""
        self.optimizers["encoder"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["encoder"].step()

    def go_on_from(self, state: dict) -> None:
        """Take over what a finished run of this method left besides the encoder (a checkpoint's content)."""
        self.optimizers["encoder"].load_state_dict(state["optimizers"]["encoder"])
