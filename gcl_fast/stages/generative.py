"""Stage 2: structure encoder, generator and discriminator learn; the identity encoder is frozen in eval mode."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast.config import TrainConfig
from gcl_fast.data.plans import Plan
from gcl_fast.models.modes import frozen
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch
from gcl_fast.stages.adversarial_stage import AdversarialStage
from gcl_fast.stages.losses import discriminator_losses, generative_losses, generative_total, logged
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.views import Mix, batch_mix


class GenerativeStage(AdversarialStage):
    """One update: discriminator first on detached fakes, then the generator against the updated discriminator."""

    name = "stage2"

    def __init__(self, config: TrainConfig, networks: Networks, data: TrainingData) -> None:
        super().__init__(config, config.stage2, networks, data)
        self.num_images = len(data.cameras)
        self.encoder.eval().requires_grad_(False)

    def plan_epoch(self, epoch: int) -> Plan:
        return self.plan_of(np.arange(self.num_images), epoch)

    def draw(self, batch: Batch, iteration: int) -> Mix:
        return batch_mix(len(batch), self.settings.loss.mixup_alpha, self.iteration_rng(iteration), self.device)

    def update(self, batch: Batch, drawn: Mix) -> dict[str, Tensor]:
        encoder, generator, discriminator, weights = self.encoder, self.generator, self.discriminator, self.settings.loss
        generator.train()
        discriminator.train()
        with self.autocast():
            with torch.no_grad():
                code = encoder(batch.image)[0]  # [B, C]
            views = self.views(batch, code, drawn, self.bodies)

        dis_total, dis_losses = discriminator_losses(
            discriminator, batch.image, views.fakes, penalty_weight=weights.penalty, bf16=self.bf16, told=views.told
        )
        self.descend(dis_total, "discriminator")

        with frozen(discriminator), self.autocast():
            gen_losses = generative_losses(encoder, discriminator, batch.image, code, views, self.pixel_weights(batch))
        total = generative_total(gen_losses, weights)
        self.descend(total, "generator")
        return logged({**dis_losses, **gen_losses, "total": total})
