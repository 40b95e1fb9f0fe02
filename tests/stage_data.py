"""A data set for tests of the stages alone: what a stage asks for, without files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.data.datasets.camstyle import StyledRecords

CPU = torch.device("cpu")


@dataclass
class StageData:
    """cameras [N]; loader: for every kind of batch; read: the features [N, D] of an encoder, zeros where it is not given."""

    cameras: Tensor
    device: torch.device = CPU
    loader: Any = None
    read: Callable[[nn.Module], Tensor] | None = None
    styled_records: StyledRecords | None = None
    samples: dict[str, Any] = field(default_factory=dict)
    bodies: Any = None
    people: Tensor | None = None
    sample_bodies: dict[str, Any] = field(default_factory=dict)

    def train_loader(self, **options: Any) -> Any:
        return self.loader

    def styled(self, *, use: bool = True) -> StyledRecords:
        assert self.styled_records is not None
        return self.styled_records

    def features(self, encoder: nn.Module) -> Tensor:
        return torch.zeros(len(self.cameras), encoder.feature_dim) if self.read is None else self.read(encoder)

    def score(self, encoder: nn.Module) -> dict[str, float]:
        return {}
