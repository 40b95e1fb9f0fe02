"""Stage 3: generator, discriminator and identity encoder learn together, with memory and identity contrast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import Stage3Config, TrainConfig
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan
from gcl_fast.memory import InstanceMemory
from gcl_fast.pseudo_labels import centroids
from gcl_fast.records import Batch
from gcl_fast.stages.amp import autocast, full
from gcl_fast.stages.generative import GenerativeStage, frozen
from gcl_fast.stages.labels import epoch_labels, label_figures
from gcl_fast.stages.running_stats import kept_running_stats
from gcl_fast.stages.views import Views, generative_losses


def identity_losses(
    feature: Tensor, mixed: Tensor, centers: Tensor, target: Tensor, partner: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """(CE(f . C^T, y), soft-label CE(f_mix . C^T, weight y + (1 - weight) y')), y' the class mixed in.

    feature, mixed [B, D] not normalised; centers [C, D] without gradient; target, partner [B] in [0, C): y and y'. Means
    over the batch.
    """
    mixed_logits = mixed @ centers.T  # [B, C]
    soft = weight * F.cross_entropy(mixed_logits, target) + (1 - weight) * F.cross_entropy(mixed_logits, partner)
    return F.cross_entropy(feature @ centers.T, target), soft


class JointStage(GenerativeStage):
    """The joint iteration of GCL-extended (arXiv 2301.00725). The bank starts as the features of the training images."""

    name = "stage3"

    def __init__(
        self,
        config: TrainConfig,
        encoder: nn.Module,
        generator: nn.Module,
        discriminator: nn.Module,
        loader: Loader,
        cameras: Tensor,
        *,
        device: torch.device,
        features: Callable[[nn.Module], Tensor],
        score: Callable[[nn.Module], dict[str, float]] | None = None,
        samples: dict[str, Batch] | None = None,
    ) -> None:
        """cameras [N] int64 of the training images; features: their L2-normalised features [N, D]; score: held-out metrics,
        {} without a test set."""
        self.settings: Stage3Config = config.stage3
        self._set_up(config, encoder, generator, discriminator, loader, len(cameras), device, samples)
        encoder.requires_grad_(True)
        settings = self.settings
        self.cameras, self.features, self.score = cameras, features, score
        self.eval_every = settings.eval_every
        self.memory = InstanceMemory(
            encoder.feature_dim,
            len(cameras),
            temperature=settings.temperature,
            momentum=settings.bank_momentum,
            num_negatives=settings.num_negatives,
        ).to(device)
        self.centers = torch.zeros(0, encoder.feature_dim, device=device)
        self.optimizers["encoder"] = torch.optim.SGD(
            encoder.parameters(),
            lr=settings.lr_encoder,
            momentum=settings.momentum_encoder,
            nesterov=settings.momentum_encoder > 0,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._clusters: dict[str, float] = {}

    def begin_epoch(self, epoch: int) -> Plan:
        settings = self.settings
        if epoch == 0:
            self.memory.features.copy_(self.features(self.encoder))
        found = epoch_labels(self.name, epoch, self.memory.features, self.cameras, settings.cluster)
        candidates = np.flatnonzero(found.labels.cpu().numpy() >= 0)
        labels = found.labels.to(self.device)
        self.memory.labels.copy_(labels)
        self.centers = centroids(self.memory.features, labels)
        self.set_rates(epoch)
        self._clusters = {**label_figures(found), "lr_encoder": self.optimizers["encoder"].param_groups[0]["lr"]}
        return self.plan(candidates, epoch)

    def encode_generated(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.settings.running_stats == "all":
            return self.encoder(image)
        with kept_running_stats(self.encoder):
            return self.encoder(image)

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        settings = self.settings
        for module in self.modules.values():
            module.train()
        with autocast(self.bf16, self.device):
            views = self.views(batch, iteration, encoder_grad=True)
            mixed_feature = self.encode_generated(views.mixed)[1]
        losses = self.update_discriminator(batch, views)
        with frozen(self.discriminator), autocast(self.bf16, self.device):
            total, generative = generative_losses(self.encode_generated, self.discriminator, batch, views, settings.loss)
        contrast = self.contrast(batch, views, full(mixed_feature), iteration)
        total = total + settings.memory_w * sum(contrast[k] for k in ("mem_self", "mem_class", "mem_real"))
        total = total + settings.id_w * (contrast["id"] + contrast["id_mix"])
        for name in ("generator", "encoder"):
            self.optimizers[name].zero_grad(set_to_none=True)
        total.backward()
        for name in ("generator", "encoder"):
            self.optimizers[name].step()
        self.memory.update(*map(distributed.gather_rows, (batch.index, full(views.feature.detach()))))
        return {name: loss.detach().float() for name, loss in {**losses, **generative, **contrast, "total": total}.items()}

    def contrast(self, batch: Batch, views: Views, mixed: Tensor, iteration: int) -> dict[str, Tensor]:
        """Memory contrast (three terms) and identity contrast (real and mixed)."""
        seed = int(self.iteration_rng(iteration).integers(2**31))
        feature = full(views.feature)
        # The joint batch on every rank: which negatives a row has depends on its place there.
        rows = map(distributed.gather_rows, (feature, full(views.feature_novel), batch.index))
        joint_feature, joint_novel, joint_index = rows
        terms = self.memory(joint_feature, joint_novel, joint_index, seed=seed)
        target, partner = self.memory.labels[batch.index], self.memory.labels[joint_index][views.permutation]
        identity, mixture = identity_losses(feature, mixed, self.centers, target, partner, views.mix_weight)
        return {"mem_self": terms[0], "mem_class": terms[1], "mem_real": terms[2], "id": identity, "id_mix": mixture}

    def epoch_scalars(self) -> dict[str, float]:
        return self._clusters

    def extra_state(self) -> dict[str, Any]:
        return {"memory": self.memory.state_dict(), "centers": self.centers}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state["memory"])
        self.centers = state["centers"].to(self.device)
