"""Stage 1 by Cluster Contrast: cluster, one centroid per cluster in a memory, P x K batches against all centroids.

Source: Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022 (arXiv 2103.11568).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.config import TrainConfig
from gcl_fast.data.batch import Batch
from gcl_fast.data.base import Loader
from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches
from gcl_fast.memory import ClusterMemory
from gcl_fast.pseudo_labels import centroids
from gcl_fast.stages.amp import autocast, full, use_bfloat16
from gcl_fast.stages.labels import epoch_labels, label_figures
from gcl_fast.stages.stage import Stage, set_lr, stepped_lr


class ClusterContrastStage(Stage):
    """Each epoch: features, pseudo-labels, centroids; each step: CE(f . M / t), then the centroids move."""

    name = "stage1"

    def __init__(
        self,
        config: TrainConfig,
        encoder: nn.Module,
        loader: Loader,
        cameras: Tensor,
        *,
        device: torch.device,
        features: Callable[[nn.Module], Tensor],
        score: Callable[[nn.Module], dict[str, float]] | None = None,
        name: str = "stage1",
        first_epoch: int = 0,
        updates: int | None = None,
    ) -> None:
        """cameras [N] int64 of the training images; features: L2-normalised features [N, D] of them; score: held-out metrics.

        first_epoch, updates: go on after `first_epoch` finished epochs for that many updates (at the last learning rate).
        """
        self.settings = config.stage1
        self.name, self.first_epoch, self.updates = name, first_epoch, updates
        self.seed, self.device, self.epochs = config.seed, device, self.settings.epochs
        self.planned = 0  # updates planned so far
        if updates is not None:
            # Without a fixed number of iterations: at least one an epoch; the last is known when its plan is made.
            self.epochs = -(-updates // self.settings.iters) if self.settings.iters else updates
        self.encoder = encoder.to(device).requires_grad_(True)
        self.loader, self.cameras, self.features, self.score = loader, cameras.cpu(), features, score
        self.eval_every = self.settings.eval_every
        self.bf16 = use_bfloat16(config.amp, device)
        self.modules = {"encoder": encoder}
        self.optimizers = {
            "encoder": torch.optim.Adam(encoder.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay)
        }
        self.labels = torch.full((len(cameras),), -1, dtype=torch.int64, device=device)
        self.memory = self._new_memory(1)
        self._clusters: dict[str, float] = {}

    def _new_memory(self, num_clusters: int) -> ClusterMemory:
        settings = self.settings
        return ClusterMemory(
            self.encoder.feature_dim, num_clusters, temperature=settings.temperature, momentum=settings.momentum,
            use_hard=settings.use_hard,
        ).to(self.device)

    def begin_epoch(self, epoch: int) -> Plan:
        settings = self.settings
        features = self.features(self.encoder)
        found = epoch_labels("stage1", epoch, features, self.cameras, settings.cluster)
        self.labels = found.labels.to(self.device)
        self.memory = self._new_memory(found.num_clusters)
        self.memory.features.copy_(F.normalize(centroids(features, found.labels), dim=1))
        age = self.first_epoch + epoch
        lr = stepped_lr(settings.lr, settings.lr_gamma, settings.lr_steps, min(age, settings.epochs - 1))
        set_lr(self.optimizers["encoder"], lr)
        self._clusters = {**label_figures(found), "lr_encoder": lr}
        return self._cut(self._plan(age), epoch)

    def _plan(self, age: int) -> Plan:
        settings = self.settings
        labels, instances = self.labels.cpu().numpy(), settings.num_instances
        identities, choice = settings.batch_size // instances, {"seed": (self.seed, age), "num_batches": settings.iters or None}
        if settings.camera_aware:
            return camera_aware_batches(labels, self.cameras.numpy(), identities, instances, **choice)
        return identity_batches(labels, identities, instances, **choice)

    def _cut(self, plan: Plan, epoch: int) -> Plan:
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
        return self.loader.epoch(plan, self.first_epoch + epoch, start=start)

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        del iteration
        self.encoder.train()
        with autocast(self.bf16, self.device):
            feature = self.encoder(batch.image)[1]
        feature, target = full(feature), self.labels[batch.index]
        loss = self.memory(feature, target)
        self.optimizers["encoder"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["encoder"].step()
        self.memory.update(feature.detach(), target)
        return {"contrast": loss.detach()}

    def epoch_scalars(self) -> dict[str, float]:
        return self._clusters

    def extra_state(self) -> dict[str, Any]:
        return {"labels": self.labels, "centroids": self.memory.features, "planned": self.planned, "epochs": self.epochs}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.labels = state["labels"].to(self.device)
        self.memory = self._new_memory(len(state["centroids"]))
        self.memory.features.copy_(state["centroids"])
        self.planned, self.epochs = state["planned"], state["epochs"]
