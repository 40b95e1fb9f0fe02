"""The frame of the warm-up methods: one encoder, one loader, going on for a number of updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

from gcl_fast.config import AugmentConfig, TrainConfig
from gcl_fast.data.augment import Augment
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.records import Batch, Record
from gcl_fast.stages.amp import full, use_bfloat16
from gcl_fast.stages.layout import prepare
from gcl_fast.stages.optimizer_state import load_optimizer
from gcl_fast.stages.stage import Stage, stepped_lr
from gcl_fast.stages.training_data import TrainingData


class Schedule(Protocol):
    """The settings of every method that speak of time."""

    epochs: int
    iters: int
    lr: float
    lr_gamma: float
    lr_steps: tuple[int, ...]


@dataclass(frozen=True)
class Continuation:
    """A warm-up that goes on after a finished run of its method, under a name of its own: after so many finished epochs, for so
    many updates (at the last learning rate). average: see `Stage.keep_average`."""

    name: str
    finished_epochs: int
    updates: int
    average: float = 0.0


def augmentation(settings: AugmentConfig) -> Augment:
    """The changes of training images that the settings ask for."""
    values = asdict(settings)
    largest = values.pop("erase_largest")
    return Augment(**values, erase_area=(Augment.erase_area[0], largest))


class WarmupStage(Stage):
    """A warm-up of the identity encoder."""

    name = "stage1"
    loader: Loader
    updates: int | None = None
    """Updates of a continuation; None: `epochs` decides."""

    def __init__(
        self,
        config: TrainConfig,
        schedule: Schedule,
        encoder: IdentityEncoder,
        data: TrainingData,
        continuation: Continuation | None = None,
    ) -> None:
        self.schedule, self.data = schedule, data
        self.seed, self.device, self.epochs = config.seed, data.device, schedule.epochs
        self.eval_every = config.stage1.eval_every
        self.augment = augmentation(config.stage1.augment)
        self.planned = 0  # updates planned so far
        self.first_epoch = 0
        if continuation is not None:
            self.name, self.first_epoch, self.updates = continuation.name, continuation.finished_epochs, continuation.updates
            # Without a fixed number of iterations: at least one an epoch; the last is known when its plan is made.
            self.epochs = -(-continuation.updates // schedule.iters) if schedule.iters else continuation.updates
        self.encoder = encoder.requires_grad_(True)
        self.modules = {"encoder": encoder}
        self.memory_format = prepare(self.modules, config, self.device)
        if continuation is not None:
            self.keep_average(continuation.average)
        self.bf16, self.graphs = use_bfloat16(config.precision, self.device), config.compile == "graphs"
        self.step_graph = config.step_graph
        self.fused = self.device.type == "cuda" or None  # optimisers in one kernel; None: torch decides

    def open_loader(self, records: list[Record] | None = None) -> Loader:
        """A loader of augmented images: the training images, or `records` in their place."""
        return self.data.train_loader(augment=self.augment, records=records)

    def age(self, epoch: int) -> int:
        """Epochs that are over, those before a continuation included."""
        return self.first_epoch + epoch

    def rate(self, epoch: int) -> float:
        """The learning rate of the epoch."""
        schedule = self.schedule
        return stepped_lr(schedule.lr, schedule.lr_gamma, schedule.lr_steps, min(self.age(epoch), schedule.epochs - 1))

    def cut(self, plan: Plan, epoch: int) -> Plan:
        """End the stage when the updates asked for are planned."""
        if self.updates is not None and self.planned + len(plan.batches) >= self.updates:
            plan, self.epochs = Plan(plan.batches[: self.updates - self.planned]), epoch + 1
        self.planned += len(plan.batches)
        return plan

    def load_planned(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint's extra state: how far the updates are planned, and where a continuation found its last epoch; else the
        settings say which is the last."""
        self.planned = state["planned"]
        if self.updates is not None:
            self.epochs = state["epochs"]

    def batches_left(self, plan: Plan, epoch: int, position: int) -> int:
        if self.updates is None:
            return super().batches_left(plan, epoch, position)
        return self.updates - self.planned + len(plan.batches) - position

    def batches(self, plan: Plan, epoch: int, start: int) -> Iterable[Batch]:
        return self.loader.epoch(plan, self.age(epoch), start=start)

    def feature(self, batch: Batch) -> Tensor:
        """[B, D], at least float32, in training mode."""
        self.encoder.train()
        with self.autocast():
            feature: Tensor = self.encoder(batch.image)[1]
        return full(feature)

    def score(self) -> dict[str, float]:
        return self.data.score(self.kept_encoder)

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Take over what a finished run of this method left besides the encoder (a checkpoint's content)."""
        load_optimizer(self.optimizers["encoder"], state["optimizers"]["encoder"])
