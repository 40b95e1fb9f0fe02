"""Stage 1 by Cluster Contrast: cluster, one centroid per cluster in a memory, P x K batches against all centroids.

Source: Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, ACCV 2022 (arXiv 2103.11568).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.data.plans import Plan, camera_aware_batches, identity_batches, multiple_gallery_batches
from gcl_fast.memory import ClusterMemory
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.ops._products import exact_products
from gcl_fast.pseudo_labels import centroids
from gcl_fast.records import Batch
from gcl_fast.stages.labels import ClusterWatch, epoch_labels
from gcl_fast.stages.losses import cluster_contrast_loss
from gcl_fast.stages.stage import set_lr
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.warmup.warmup_stage import Continuation, WarmupStage


def cluster_means(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, D] and their clusters [B] -> for each cluster that is there, in ascending order, the mean of its
    L2-normalised features [C, D], and which it is [C]."""
    present, position = torch.unique(targets, return_inverse=True)
    return centroids(F.normalize(features, dim=1), position), present


def means_of_rows(features: Tensor, targets: Tensor) -> Tensor:
    """`cluster_means`, but for each row the mean of its cluster [B, D]: no size depends on the clusters, so nothing waits for a
    GPU. Rows of one cluster get the same bits."""
    same = targets[:, None] == targets  # [B, B]
    first = same.to(torch.uint8).argmax(1)  # [B]: of a row's cluster, the first row
    same = same.to(features.dtype)
    with exact_products(features.device):
        mean = same @ F.normalize(features, dim=1) / same.sum(1, keepdim=True)
    return mean[first]


class ClusterContrastStage(WarmupStage):
    """Each epoch: features, pseudo-labels, centroids; each step: CE(f . M / t), then the centroids move."""

    watch: ClusterWatch

    def __init__(
        self, config: TrainConfig, encoder: IdentityEncoder, data: TrainingData, continuation: Continuation | None = None
    ) -> None:
        super().__init__(config, config.stage1, encoder, data, continuation)
        self.settings = config.stage1
        self.loader = self.open_loader()
        self.cameras = data.cameras
        self.optimizers = {
            "encoder": torch.optim.Adam(
                encoder.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=self.fused
            )
        }
        self.labels = torch.full((len(self.cameras),), -1, dtype=torch.int64, device=self.device)
        self.memory = self._new_memory(1)
        self._figures: dict[str, float] = {}
        self.watch = ClusterWatch("stage1.cluster", self.settings.cluster, config=config, cameras=self.cameras)

    def _new_memory(self, num_clusters: int) -> ClusterMemory:
        settings = self.settings
        return ClusterMemory(
            self.encoder.feature_dim,
            num_clusters,
            temperature=settings.temperature,
            momentum=settings.momentum,
            use_hard=settings.memory == "hard",
        ).to(self.device)

    def enter_epoch(self, epoch: int) -> None:
        set_lr(self.optimizers["encoder"], self.rate(epoch))

    def plan_epoch(self, epoch: int) -> Plan:
        features = self.data.features(self.encoder)
        clusters = epoch_labels("stage1", epoch, features, self.cameras, self.settings.cluster)
        self.labels = clusters.labels.to(self.device)
        self.memory = self._new_memory(clusters.num_clusters)
        self.memory.features.copy_(F.normalize(centroids(features, clusters.labels), dim=1))
        self._figures = {**self.watch.look(clusters), "lr_encoder": self.rate(epoch)}
        return self.cut(self._identity_plan(self.age(epoch)), epoch)

    def _identity_plan(self, age: int) -> Plan:
        settings, labels, seed = self.settings, self.labels.cpu().numpy(), (self.seed, age)
        instances, iterations = settings.num_instances, settings.iters or None
        identities = settings.batch_size // instances
        if settings.sampler == "multiple-gallery" or settings.camera_aware:
            by_camera = camera_aware_batches if settings.camera_aware else multiple_gallery_batches
            return by_camera(labels, self.cameras.numpy(), identities, instances, seed=seed, num_batches=iterations)
        return identity_batches(labels, identities, instances, seed=seed, num_batches=iterations)

    def update(self, batch: Batch, drawn: None) -> dict[str, Tensor]:
        del drawn
        feature, cluster = self.feature(batch), self.labels[batch.index]  # [B, D], [B]
        loss = cluster_contrast_loss(self.memory, feature, cluster)
        self.descend(loss, "encoder")

        feature, cluster = distributed.gather_rows(feature.detach()), distributed.gather_rows(cluster)
        if self.settings.memory == "mean":
            self._move_to_means(feature, cluster)
        else:
            self.memory.update(feature, cluster)
        return {"contrast": loss.detach()}

    def _move_to_means(self, feature: Tensor, cluster: Tensor) -> None:
        if feature.device.type == "cpu":
            self.memory.update(*cluster_means(feature, cluster))
        else:
            self._move_all_to_means(feature, cluster)

    def _move_all_to_means(self, feature: Tensor, cluster: Tensor) -> None:
        """Each row's cluster at its own: nothing waits for a GPU to count those that are there."""
        rows, memory = means_of_rows(feature, cluster), self.memory
        moved = memory.momentum * memory.features[cluster] + (1 - memory.momentum) * F.normalize(rows, dim=1)
        rows = F.normalize(moved, dim=1).to(memory.features.dtype)
        memory.features[cluster] = rows  # those of one cluster write the same

    def epoch_scalars(self) -> dict[str, float]:
        return self._figures

    def extra_state(self) -> dict[str, Any]:
        return {"labels": self.labels, "centroids": self.memory.features, "planned": self.planned, "epochs": self.epochs}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.labels.copy_(state["labels"])  # a label for each image, or it is refused
        self.memory = self._new_memory(len(state["centroids"]))
        self.memory.features.copy_(state["centroids"])
        self.load_planned(state)
