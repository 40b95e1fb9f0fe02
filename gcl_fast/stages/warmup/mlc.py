"""Stage 1 by multi-label classification: each image is a class at first, then shares the classes of its mutual neighbours.

Source: Wang and Zhang, Unsupervised Person Re-identification via Multi-label Classification, CVPR 2020 (MMCL, MLC).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import MLCConfig, TrainConfig
from gcl_fast.data.datasets.camstyle import one_view
from gcl_fast.data.plans import Plan
from gcl_fast.models.before_norm import BeforeNorm
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.ops import bank_update_
from gcl_fast.records import Batch
from gcl_fast.stages.losses import mmcl_loss, similarities
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.warmup.memory_stage import MemoryStage
from gcl_fast.stages.warmup.multilabel import multi_labels
from gcl_fast.stages.warmup.warmup_stage import Continuation


def as_tested(encoder: IdentityEncoder, rule: MLCConfig) -> IdentityEncoder | BeforeNorm:
    """The encoder with the feature that is scored."""
    return BeforeNorm(encoder) if rule.test_feature == "before-norm" else encoder


class MLCStage(MemoryStage):
    """Each step: multi-labels of the batch from the memory, the multi-label loss, then the memory rows of the batch move."""

    def __init__(
        self, config: TrainConfig, encoder: IdentityEncoder, data: TrainingData, continuation: Continuation | None = None
    ) -> None:
        super().__init__(config, config.stage1.mlc, encoder, data, continuation)
        self.rule = config.stage1.mlc
        if self.rule.freeze_norm_bias:
            encoder.freeze_norm_bias()
        self.momentum, self.single_label = 0.0, True
        self._figures: dict[str, float] = {}

    def enter_epoch(self, epoch: int) -> None:
        super().enter_epoch(epoch)
        rule = self.rule
        number = self.age(epoch) + rule.first_epoch
        self.momentum = rule.momentum * min(number / rule.momentum_epochs, 1.0)
        self.single_label = number <= rule.single_label_epochs

    def plan_epoch(self, epoch: int) -> Plan:
        self.fill_bank()
        self._figures = {"lr_encoder": self.rate(epoch), "memory_momentum": self.momentum}
        images, rng = self.image_batches(self.settings.batch_size, self.age(epoch)), self.view_rng(self.age(epoch))
        return self.cut(Plan(tuple(one_view(self.styled, batch, rng) for batch in images)), epoch)

    def update(self, batch: Batch, drawn: None) -> dict[str, Tensor]:
        del drawn
        rule, index = self.rule, self.owner[batch.index]  # [B]
        feature = self.feature(batch)  # [B, D]
        if self.single_label:
            positive = index[:, None] == torch.arange(self.num_images, device=index.device)  # [B, N]
        else:
            positive = multi_labels(self.bank, index, rule.threshold, rule.min_neighbors, rule.walk)
        pulled, pushed = mmcl_loss(
            similarities(feature, self.bank), positive, positive_weight=rule.positive_weight, hard_share=rule.hard_share
        )
        total = pulled + pushed
        self.descend(total, "encoder")

        rows = distributed.gather_rows(F.normalize(feature.detach(), dim=1))
        bank_update_(self.bank, distributed.gather_rows(index), rows, self.momentum)
        figures = {"total": total, "positive": pulled, "negative": pushed, "labels": positive.sum(1).float().mean()}
        return {name: value.detach() for name, value in figures.items()}

    def score(self) -> dict[str, float]:
        return self.data.score(as_tested(self.kept_encoder, self.rule))

    def epoch_scalars(self) -> dict[str, float]:
        return self._figures
