"""Stage 1 by joint visual and temporal consistency, without a source domain.

Source: Li and Zhang, Joint Visual and Temporal Consistency for Unsupervised Domain Adaptive Person Re-Identification,
ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.data.datasets.camstyle import several_views
from gcl_fast.data.plans import Plan
from gcl_fast.errors import StageError
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.ops import bank_update_
from gcl_fast.pseudo_labels import PseudoLabels
from gcl_fast.records import Batch
from gcl_fast.stages.labels import ClusterWatch, from_first_rank, radius_named
from gcl_fast.stages.losses import global_loss, local_loss, view_means
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.warmup.joint_labels import visual_labels
from gcl_fast.stages.warmup.memory_stage import MemoryStage
from gcl_fast.stages.warmup.recordings import labels_by_rule, recordings_of
from gcl_fast.stages.warmup.temporal import frames_of
from gcl_fast.stages.warmup.warmup_stage import Continuation


class JVTCStage(MemoryStage):
    """Local loss from the start; from `global_from` on labels of the memory rows and the global loss, too."""

    watch: ClusterWatch

    def __init__(
        self, config: TrainConfig, encoder: IdentityEncoder, data: TrainingData, continuation: Continuation | None = None
    ) -> None:
        super().__init__(config, config.stage1.jvtc, encoder, data, continuation)
        self.rule = rule = config.stage1.jvtc
        self.unit = rule.views
        records = self.styled.records[: self.num_images]
        self.cameras = torch.tensor([r.camera for r in records], dtype=torch.int64, device=self.device)
        self.recordings = torch.from_numpy(recordings_of(records)).to(self.device)
        # before training: a missing frame number must not end it after thirty epochs
        self.frames = torch.from_numpy(frames_of(records)).to(self.device) if rule.reads_frames else None
        self.labels = torch.arange(self.num_images, device=self.device)  # each image alone
        self.number = 1  # the epoch, as the paper counts
        self._figures: dict[str, float] = {}
        self.watch = ClusterWatch("stage1.jvtc.cluster", rule.cluster, config=config, cameras=self.cameras)

    def enter_epoch(self, epoch: int) -> None:
        super().enter_epoch(epoch)
        self.number = self.age(epoch) + 1

    @property
    def momentum(self) -> float:
        return min(self.rule.momentum_step * self.number, self.rule.momentum_max)

    def plan_epoch(self, epoch: int) -> Plan:
        self.fill_bank()
        self._figures = {"lr_encoder": self.rate(epoch), "memory_momentum": self.momentum}
        since = self.number - self.rule.global_from
        if since >= 0 and since % self.rule.label_every == 0:
            self._relabel()
        images = self.image_batches(self.settings.batch_size // self.rule.views, self.age(epoch))
        rng = self.view_rng(self.age(epoch))
        views = (several_views(self.styled, batch, self.rule.views, rng) for batch in images)
        return self.cut(Plan(tuple(v.astype(np.int64).reshape(-1) for v in views)), epoch)

    def _relabel(self) -> None:
        with radius_named("stage1", self.number - 1, "--stage1.jvtc.cluster"):
            clusters = self._joint_clusters() if self.number >= self.rule.temporal_from else self._visual_clusters()
        if clusters.num_clusters == 1 and clusters.num_outliers == 0:
            raise StageError(
                f"stage1, epoch {self.number}: all {self.num_images} images fell into one cluster at eps "
                f"{clusters.eps:.3f}: lower stage1.jvtc.cluster.rho (or eps), or stage1.jvtc.eps_scale"
            )
        self._figures.update(self.watch.look(clusters))
        alone = clusters.num_clusters + torch.arange(self.num_images, device=self.device)
        self.labels = torch.where(clusters.labels < 0, alone, clusters.labels)  # an outlier is a class of its own

    def _visual_clusters(self) -> PseudoLabels:
        rule = self.rule
        (clusters,) = from_first_rank(
            lambda: [visual_labels(self.bank, self.cameras, rule.cluster, rule.eps_scale, rule.euclidean_share)], self.device
        )
        return clusters

    def _joint_clusters(self) -> PseudoLabels:
        rule, frames = self.rule, self.frames
        if frames is None:
            return self._visual_clusters()
        several = rule.per_recording and int(self.recordings.max()) > 0
        apart = self.recordings if several else None
        clusters, visual = from_first_rank(lambda: labels_by_rule(self.bank, self.cameras, frames, rule, apart), self.device)
        self._figures["visual_clusters"] = float(visual.num_clusters)
        return clusters

    def update(self, batch: Batch, drawn: None) -> dict[str, Tensor]:
        del drawn
        rule = self.rule
        index = self.owner[batch.index][:: rule.views]  # [n]
        feature = self.feature(batch)  # [n * views, D]
        joint = distributed.gather_rows(feature)  # each image is told from all of the joint batch
        losses = {"local": local_loss(joint, rule.views, rule.local_temperature)}
        total = losses["local"]
        if self.number >= rule.global_from:
            temperature, norm = rule.global_temperature, rule.target_norm
            losses["global"] = global_loss(feature, self.bank, self.labels, index, temperature, norm)
            total = total + rule.global_weight * losses["global"]
        self.descend(total, "encoder")

        means, moved = view_means(joint.detach(), rule.views), distributed.gather_rows(index)
        if rule.renormalise:
            bank_update_(self.bank, moved, means, self.momentum)
        else:  # no image is twice in a batch
            self.bank[moved] = ((1 - self.momentum) * means + self.momentum * self.bank[moved]).to(self.bank.dtype)
        return {name: loss.detach() for name, loss in {**losses, "total": total}.items()}

    def epoch_scalars(self) -> dict[str, float]:
        return self._figures

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "labels": self.labels}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.labels = state["labels"].to(self.device)
