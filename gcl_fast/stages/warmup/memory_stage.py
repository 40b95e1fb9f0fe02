"""The part that MLC and JVTC share: one memory row per image, SGD, batches over images and their camera-styled copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gcl_fast.config import TrainConfig, WarmupConfig
from gcl_fast.data.plans import Plan, shuffled
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.warmup.warmup_stage import Continuation, WarmupStage


class MemoryStage(WarmupStage):
    """bank [N, D]: one row per training image, at first its L2-normalised feature under the encoder that is given, or zero."""

    def __init__(
        self,
        config: TrainConfig,
        settings: WarmupConfig,
        encoder: IdentityEncoder,
        data: TrainingData,
        continuation: Continuation | None = None,
    ) -> None:
        super().__init__(config, settings, encoder, data, continuation)
        self.settings, self.styled = settings, data.styled(use=settings.camstyle)
        self.loader = self.open_loader(self.styled.records)
        self.num_images = len(self.styled.count)
        self.owner = torch.from_numpy(self.styled.owner).to(self.device)
        self.bank = torch.zeros(self.num_images, encoder.feature_dim, device=self.device)
        self.optimizers = {"encoder": self._sgd()}
        self.ready = False  # whether the bank holds features

    def _sgd(self) -> torch.optim.SGD:
        settings, backbone = self.settings, list(self.encoder.backbone.parameters())
        in_backbone = {id(parameter) for parameter in backbone}
        groups = [
            {"params": backbone, "share": settings.backbone_lr},
            {"params": [p for p in self.encoder.parameters() if id(p) not in in_backbone], "share": 1.0},
        ]
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.sgd_momentum,
            nesterov=settings.sgd_momentum > 0,
            weight_decay=settings.weight_decay,
            fused=self.fused,
        )

    def enter_epoch(self, epoch: int) -> None:
        """Learning rate of the epoch: the backbone's is a share of it."""
        lr = self.rate(epoch)
        for group in self.optimizers["encoder"].param_groups:
            group["lr"] = lr * group["share"]

    def fill_bank(self) -> None:
        """The bank's first features; only once."""
        if not self.ready and self.settings.memory_start == "features":
            self.bank.copy_(F.normalize(self.data.features(self.encoder), dim=1))
        self.ready = True

    def image_batches(self, size: int, age: int) -> Plan:
        """Batches of images, the last incomplete one dropped; `iters` of them where that is set."""
        images = np.arange(self.num_images)
        return shuffled(images, min(size, self.num_images), seed=(self.seed, age), num_batches=self.settings.iters or None)

    def view_rng(self, age: int) -> np.random.Generator:
        """Decides which versions of the images an epoch shows."""
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, age, 0x71E3])))

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        super().go_on_from(state)
        self.load_extra_state({**state["extra"], "planned": self.planned, "epochs": self.epochs})

    def extra_state(self) -> dict[str, Any]:
        return {"bank": self.bank, "ready": self.ready, "planned": self.planned, "epochs": self.epochs}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.bank.copy_(state["bank"])
        self.ready = state["ready"]
        self.load_planned(state)
