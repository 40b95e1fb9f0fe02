"""Stage 1 by Cluster Contrast: cluster, one centroid per cluster in a memory, P x K batches against all centroids.

Source: Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022 (arXiv 2103.11568).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches
from gcl_fast.memory import ClusterMemory
from gcl_fast.pseudo_labels import centroids
from gcl_fast.records import Batch
from gcl_fast.stages.amp import autocast, full
from gcl_fast.stages.labels import epoch_labels, label_figures
from gcl_fast.stages.stage import set_lr
from gcl_fast.stages.warmup.warmup_stage import WarmupStage


def cluster_means(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, D] and their clusters [B] -> for each cluster that is there, in ascending order, the mean of its
    L2-normalised features [C, D], and which it is [C]."""
    there, own = targets.unique(return_inverse=True)
    return centroids(F.normalize(features, dim=1), own), there


class ClusterContrastStage(WarmupStage):
    """Each epoch: features, pseudo-labels, centroids; each step: CE(f . M / t), then the centroids move."""

    def __init__(self, config: TrainConfig, encoder: nn.Module, loader: Loader, cameras: Tensor, **options: Any) -> None:
        """cameras [N] int64 of the training images; options as in WarmupStage."""
        self.settings = config.stage1
        super().__init__(config, self.settings, encoder, loader, **options)
        self.cameras = cameras.cpu()
        self.optimizers = {
            "encoder": torch.optim.Adam(
                encoder.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=self.fused
            )
        }
        self.labels = torch.full((len(cameras),), -1, dtype=torch.int64, device=self.device)
        self.memory = self._new_memory(1)
        self._clusters: dict[str, float] = {}

    def _new_memory(self, num_clusters: int) -> ClusterMemory:
        settings = self.settings
        return ClusterMemory(
            self.encoder.feature_dim,
            num_clusters,
            temperature=settings.temperature,
            momentum=settings.momentum,
            use_hard=settings.memory == "hard",
        ).to(self.device)

    def begin_epoch(self, epoch: int) -> Plan:
        features = self.features(self.encoder)
        found = epoch_labels("stage1", epoch, features, self.cameras, self.settings.cluster)
        self.labels = found.labels.to(self.device)
        self.memory = self._new_memory(found.num_clusters)
        self.memory.features.copy_(F.normalize(centroids(features, found.labels), dim=1))
        lr = self.rate(epoch)
        set_lr(self.optimizers["encoder"], lr)
        self._clusters = {**label_figures(found), "lr_encoder": lr}
        return self.cut(self._plan(self.age(epoch)), epoch)

    def _plan(self, age: int) -> Plan:
        settings = self.settings
        labels, instances = self.labels.cpu().numpy(), settings.num_instances
        identities, choice = settings.batch_size // instances, {"seed": (self.seed, age), "num_batches": settings.iters or None}
        if settings.camera_aware:
            return camera_aware_batches(labels, self.cameras.numpy(), identities, instances, **choice)
        return identity_batches(labels, identities, instances, **choice)

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        del iteration
        self.encoder.train()
        with autocast(self.bf16, self.device):
            feature = self.encoder(batch.image)[1]
        feature, target = full(feature), self.labels[batch.index]
        loss = self.memory(feature, target)
        self.update(loss)
        moved = tuple(map(distributed.gather_rows, (feature.detach(), target)))
        if self.settings.memory == "mean":
            moved = cluster_means(*moved)
        self.memory.update(*moved)
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
