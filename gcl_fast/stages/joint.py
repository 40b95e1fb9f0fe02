"""Stage 3: generator, discriminator and identity encoder learn together, with memory and identity contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import Stage3Config, TrainConfig
from gcl_fast.data.plans import Plan
from gcl_fast.guides import Variance, draw_variance
from gcl_fast.memory import InstanceMemory
from gcl_fast.models.modes import frozen
from gcl_fast.models.three_networks import Networks
from gcl_fast.pseudo_labels import centroids
from gcl_fast.records import Batch
from gcl_fast.stages.adversarial_stage import AdversarialStage
from gcl_fast.stages.amp import full
from gcl_fast.stages.labels import ClusterWatch, epoch_labels
from gcl_fast.stages.losses import discriminator_losses, generative_losses, identity_losses, joint_total, logged, memory_step
from gcl_fast.stages.running_stats import kept_running_stats
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.views import Mix, batch_mix
from gcl_fast.transfer import send


@dataclass(frozen=True)
class Drawn:
    """What is random about an iteration. seed [] int64: of the memory's negatives and positives."""

    mix: Mix
    seed: Tensor
    variance: Variance | None


class JointStage(AdversarialStage):
    """The joint iteration of GCL-extended (arXiv 2301.00725). The bank starts as the features of the training images.

    memory   features [N, D] of the training images and their pseudo-labels [N]
    centers  [C, D], the mean memory feature of each cluster
    """

    name = "stage3"
    settings: Stage3Config
    watch: ClusterWatch

    def __init__(self, config: TrainConfig, networks: Networks, data: TrainingData) -> None:
        super().__init__(config, config.stage3, networks, data)
        settings, encoder = self.settings, self.encoder.requires_grad_(True)
        self.eval_every = settings.eval_every
        self.memory = InstanceMemory(
            encoder.feature_dim,
            len(data.cameras),
            temperature=settings.temperature,
            momentum=settings.bank_momentum,
            num_negatives=settings.num_negatives,
        ).to(self.device)
        self.centers = torch.zeros(0, encoder.feature_dim, device=self.device)
        self.optimizers["encoder"] = torch.optim.SGD(
            encoder.parameters(),
            lr=settings.lr_encoder,
            momentum=settings.momentum_encoder,
            nesterov=settings.momentum_encoder > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.keep_average(settings.average_encoder)
        self._figures: dict[str, float] = {}
        self.watch = ClusterWatch("stage3.cluster", settings.cluster, config=config, cameras=data.cameras)

    def lr_steps(self, name: str) -> tuple[int, ...]:
        own = self.settings.lr_steps_encoder
        return own if name == "encoder" and own is not None else self.settings.lr_steps

    def plan_epoch(self, epoch: int) -> Plan:
        memory = self.memory
        if epoch == 0:
            memory.features.copy_(self.data.features(self.encoder))
        clusters = epoch_labels(self.name, epoch, memory.features, self.data.cameras, self.settings.cluster)
        labels = clusters.labels.to(self.device)
        memory.labels.copy_(labels)
        self.centers = centroids(memory.features, labels)
        self._figures = {**self.watch.look(clusters), "lr_encoder": self.optimizers["encoder"].param_groups[0]["lr"]}
        return self.plan_of(np.flatnonzero(labels.cpu().numpy() >= 0), epoch)

    def draw(self, batch: Batch, iteration: int) -> Drawn:
        mix = batch_mix(len(batch), self.settings.loss.mixup_alpha, self.iteration_rng(iteration), self.device)
        seed = np.array(self.iteration_rng(iteration).integers(2**31))
        return Drawn(mix, send(torch.from_numpy(seed), self.device), self.variance(batch, iteration))

    def update(self, batch: Batch, drawn: Drawn) -> dict[str, Tensor]:
        encoder, discriminator, mix = self.encoder, self.discriminator, drawn.mix
        memory, settings, image = self.memory, self.settings, batch.image
        for module in self.modules.values():
            module.train()
        only_real = settings.running_stats == "real"  # generated images leave batch norm's averages as they are

        with self.autocast():
            code, feature = encoder(image)  # [B, C], [B, D]
            with kept_running_stats(encoder, only_real):
                views = self.views(batch, code, mix, self.bodies, drawn.variance)
                feature_mixed = encoder(views.mixed)[1]  # [B, D]

        # The discriminator learns first, on the detached views.
        dis_total, dis_losses = discriminator_losses(
            discriminator, image, views.fakes, penalty_weight=settings.loss.penalty, bf16=self.bf16, told=views.told
        )
        self.descend(dis_total, "discriminator")

        # Then generator and encoder, against the updated discriminator, the memory (whose rows of the batch then move) and the
        # cluster centres.
        with frozen(discriminator), self.autocast(), kept_running_stats(encoder, only_real):
            gen_losses = generative_losses(encoder, discriminator, image, code, views, self.pixel_weights(batch))
        told, feature_novel = views.told, full(views.feature_novel)
        if told is not None:  # where no new view could be made, the photo stands for it
            feature_novel = torch.where(told[:, None] > 0, feature_novel, full(feature))
        contrast = memory_step(memory, full(feature), feature_novel, batch.index, seed=drawn.seed)
        label = memory.labels[batch.index]  # [B]
        partner_label = distributed.gather_rows(label)[mix.partner]  # [B]
        contrast["id"], contrast["id_mix"] = identity_losses(
            full(feature), full(feature_mixed), self.centers, label, partner_label, mix.weight, told
        )
        total = joint_total(gen_losses, contrast, settings)
        self.descend(total, "generator", "encoder")
        return logged({**dis_losses, **gen_losses, **contrast, "total": total})

    def variance(self, batch: Batch, iteration: int) -> Variance | None:
        """What changes in the new views beside the turn; None where nothing does."""
        config, size = self.settings.variance, (batch.image.shape[2], batch.image.shape[3])
        if not config.any():
            return None
        return draw_variance(config, len(batch), size, self.iteration_rng(iteration, stream=1), self.device)

    def score(self) -> dict[str, float]:
        return self.data.score(self.kept_encoder)

    def epoch_scalars(self) -> dict[str, float]:
        return self._figures

    def extra_state(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict(), "centers": self.centers}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
        self.centers = state["centers"].to(self.device)
