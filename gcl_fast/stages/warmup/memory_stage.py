"""The part that MLC and JVTC share: one memory row per image, SGD, batches over images and their camera-styled copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.config import TrainConfig, WarmupConfig
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan, shuffled
from gcl_fast.records import Batch
from gcl_fast.stages.amp import autocast, full
from gcl_fast.stages.warmup.warmup_stage import WarmupStage


class MemoryStage(WarmupStage):
    """bank [N, D]: one L2-normalised row per training image, at first its feature under the encoder that is given."""

    def __init__(
        self,
        config: TrainConfig,
        settings: WarmupConfig,
        encoder: nn.Module,
        loader: Loader,
        styled: StyledRecords,
        **options: Any,
    ) -> None:
        """loader: reads `styled.records`; options as in WarmupStage."""
        super().__init__(config, settings, encoder, loader, **options)
        self.settings, self.styled = settings, styled
        self.num_images = len(styled.count)
        self.owner = torch.from_numpy(styled.owner).to(self.device)
        self.bank = torch.zeros(self.num_images, encoder.feature_dim, device=self.device)
        self.optimizers = {"encoder": self._sgd()}
        self.ready = False  # whether the bank holds features

    def _sgd(self) -> torch.optim.SGD:
        settings, own = self.settings, {id(p) for p in self.encoder.backbone.parameters()}
        groups = [
            {"params": list(self.encoder.backbone.parameters()), "share": settings.backbone_lr},
            {"params": [p for p in self.encoder.parameters() if id(p) not in own], "share": 1.0},
        ]
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.sgd_momentum,
            nesterov=settings.sgd_momentum > 0,
            weight_decay=settings.weight_decay,
            fused=self.fused,
        )

    def begin(self, epoch: int) -> float:
        """Learning rate of the epoch, and the bank's first features."""
        lr = self.rate(epoch)
        for group in self.optimizers["encoder"].param_groups:
            group["lr"] = lr * group["share"]
        if not self.ready:
            self.bank.copy_(F.normalize(self.features(self.encoder), dim=1))
            self.ready = True
        return lr

    def image_batches(self, size: int, age: int) -> Plan:
        """Batches of images, the last incomplete one dropped; `iters` of them where that is set."""
        images = np.arange(self.num_images)
        return shuffled(images, min(size, self.num_images), seed=(self.seed, age), num_batches=self.settings.iters or None)

    def view_rng(self, age: int) -> np.random.Generator:
        """Decides which versions of the images an epoch shows."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, age, 0x71E3])))

    def feature(self, batch: Batch) -> Tensor:
        """[B, D], at least float32, in training mode."""
        self.encoder.train()
        with autocast(self.bf16, self.device):
            feature = self.encoder(batch.image)[1]
        return full(feature)

    def go_on_from(self, state: dict) -> None:
        super().go_on_from(state)
        self.load_extra_state({**state["extra"], "planned": self.planned, "epochs": self.epochs})

    def extra_state(self) -> dict[str, Any]:
        return {"bank": self.bank, "ready": self.ready, "planned": self.planned, "epochs": self.epochs}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.bank.copy_(state["bank"])
        self.ready, self.planned, self.epochs = state["ready"], state["planned"], state["epochs"]
