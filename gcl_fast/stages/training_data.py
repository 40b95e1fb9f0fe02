"""The data set as a stage sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from gcl_fast.data.augment import Augment
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.data.loaders.loader_base import Loader
from gcl_fast.guides import Bodies
from gcl_fast.records import Batch, Record


class TrainingData(Protocol):
    """An opened data set: its training images, and held-out people to score an encoder on."""

    device: torch.device

    @property
    def cameras(self) -> Tensor:
        """[N] int64 on the CPU, the camera of each training image."""

    @property
    def samples(self) -> Mapping[str, Batch]:
        """Batches by name (train, test) whose generated views are pictured; none without meshes."""

    @property
    def bodies(self) -> Bodies | None:
        """Of the training images, where the generator is guided by the photos' pixels."""

    @property
    def people(self) -> Tensor | None:
        """[N, 1, H, W] bool on the device, where the training images show their person; None where no loss asks for it."""

    @property
    def sample_bodies(self) -> Mapping[str, Bodies]:
        """Of the samples, by their names; row i of a batch is body i. Empty where the generator is not guided."""

    def train_loader(
        self, *, augment: Augment | None = None, meshes: bool = False, records: list[Record] | None = None
    ) -> Loader:
        """A loader of the training images, or of `records` in their place; meshes: its batches have meshes and yaws, or
        yaws alone where `bodies` has what meshes are made of."""

    def styled(self, *, use: bool = True) -> StyledRecords:
        """The training images with their camera-styled copies; without them where `use` is False or there are none."""

    def features(self, encoder: nn.Module) -> Tensor:
        """L2-normalised features [N, D] of the training images."""

    def score(self, encoder: nn.Module) -> dict[str, float]:
        """Scores of the encoder on held-out people, with the key 'score'; empty where there are none."""
