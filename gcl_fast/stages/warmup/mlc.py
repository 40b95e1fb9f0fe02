"""Stage 1 by multi-label classification: each image is a class at first, then shares the classes of its mutual neighbours.

Source: Wang and Zhang, Unsupervised Person Re-identification via Multi-label Classification, CVPR 2020 (MMCL, MLC).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.data.datasets.camstyle import StyledRecords, one_view
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.data.plans import Plan
from gcl_fast.ops import bank_update_
from gcl_fast.records import Batch
from gcl_fast.stages.warmup.memory_stage import MemoryStage
from gcl_fast.stages.warmup.multilabel import mmcl_loss, multi_labels, similarities


class MLCStage(MemoryStage):
    """Each step: multi-labels of the batch from the memory, the multi-label loss, then the memory rows of the batch move."""

    def __init__(self, config: TrainConfig, encoder: nn.Module, loader: Loader, styled: StyledRecords, **options: Any) -> None:
        super().__init__(config, config.stage1.mlc, encoder, loader, styled, **options)
        self.rule = config.stage1.mlc
        self.momentum, self.single_label = 0.0, True
        self._figures: dict[str, float] = {}

    def begin_epoch(self, epoch: int) -> Plan:
        lr = self.begin(epoch)
        self._set_age(epoch)
        images = self.image_batches(self.settings.batch_size, self.age(epoch))
        rng = self.view_rng(self.age(epoch))
        self._figures = {"lr_encoder": lr, "memory_momentum": self.momentum}
        return self.cut(Plan(tuple(one_view(self.styled, batch, rng) for batch in images)), epoch)

    def _set_age(self, epoch: int) -> None:
        number, rule = self.age(epoch) + 1, self.rule  # the papers count from 1
        self.momentum = rule.momentum * min(number / rule.momentum_epochs, 1.0)
        self.single_label = number <= rule.single_label_epochs

    def batches(self, plan: Plan, epoch: int, start: int):
        self._set_age(epoch)  # begin_epoch is not called where a killed run goes on
        return super().batches(plan, epoch, start)

    def step(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        del iteration
        rule, index = self.rule, self.owner[batch.index]
        if self.single_label:
            positive = F.one_hot(index, self.num_images).bool()  # [B, N]
        else:
            positive = multi_labels(self.bank, index, threshold=rule.threshold, min_neighbors=rule.min_neighbors)
        feature = self.feature(batch)
        pulled, pushed = mmcl_loss(
            similarities(feature, self.bank), positive, positive_weight=rule.positive_weight, hard_share=rule.hard_share
        )
        self.update(pulled + pushed)
        moved = map(distributed.gather_rows, (index, F.normalize(feature.detach(), dim=1)))
        bank_update_(self.bank, *moved, self.momentum)
        figures = {"total": pulled + pushed, "positive": pulled, "negative": pushed, "labels": positive.sum(1).float().mean()}
        return {name: value.detach() for name, value in figures.items()}

    def epoch_scalars(self) -> dict[str, float]:
        return self._figures
