"""Memories that a stage learns against: one feature per image, or one centroid per cluster. Both stand on `ops.bank`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.ops import bank_update_, gcl_memory_loss, gcl_memory_step_
from gcl_fast.ops._check import ANY_FLOATS, INTEGERS, Shapes, working_dtype
from gcl_fast.ops._rows import normalised, unit
from gcl_fast.ops.centroids import centroid_cross_entropy


class InstanceMemory(nn.Module):
    """One L2-normalised feature and one pseudo-label per training image (GCL's memory).

    Buffers: `features` [N, D] float32, zero until the first features are copied in; `labels` [N] int64, -1 (no class) until
    pseudo-labels are. Both are saved. Nothing random is kept: the caller's seed decides every draw.
    """

    features: Tensor
    labels: Tensor

    def __init__(
        self,
        num_features: int,
        num_samples: int,
        *,
        temperature: float = 0.04,
        momentum: float = 0.2,
        num_negatives: int | None = 8192,
    ) -> None:
        super().__init__()
        self.temperature, self.momentum, self.num_negatives = temperature, momentum, num_negatives
        self.register_buffer("features", torch.zeros(num_samples, num_features))
        self.register_buffer("labels", torch.full((num_samples,), -1, dtype=torch.int64))

    def forward(self, f: Tensor, f_nv: Tensor, index: Tensor, *, seed: int | Tensor) -> Tensor:
        """The three mean terms [3] of `gcl_memory_loss`. Does not update.

        Arguments:
            f, f_nv: [B, D] float, features of photos and of their novel views, normalised here.
            index: [B] integer, image rows.
            seed: decides every draw.

        Gradient: to f and f_nv.
        """
        return gcl_memory_loss(
            f, f_nv, self.features, self.labels, index, temperature=self.temperature, num_negatives=self.num_negatives, seed=seed
        )

    def step(self, f: Tensor, f_nv: Tensor, index: Tensor, *, seed: int | Tensor) -> Tensor:
        """`forward` and then `update(index, f)` as one op (`gcl_memory_step_`); its backward may follow."""
        return gcl_memory_step_(
            f,
            f_nv,
            self.features,
            self.labels,
            index,
            temperature=self.temperature,
            num_negatives=self.num_negatives,
            seed=seed,
            momentum=self.momentum,
        )

    @torch.no_grad()
    def update(self, index: Tensor, f: Tensor) -> None:
        """Row = normalise(momentum * row + (1 - momentum) * normalise(f)), in batch order; f [B, D] float."""
        Shapes("InstanceMemory.update").tensor("f", f, ("B", self.features.shape[1]), ANY_FLOATS)
        bank_update_(self.features, index, f, self.momentum, normalise=True)

    def extra_repr(self) -> str:
        rows, width = self.features.shape
        return f"{rows} x {width}, temperature={self.temperature}, momentum={self.momentum}, num_negatives={self.num_negatives}"


class ClusterMemory(nn.Module):
    """One L2-normalised centroid per cluster (Cluster Contrast, Dai et al., arXiv 2103.11568).

    Buffer: `features` [C, D] float32, zero until centroids are copied in or `reset` is called. Clusters change in number
    from epoch to epoch: loading a state dict takes the stored number over.
    """

    features: Tensor

    def __init__(
        self, num_features: int, num_clusters: int, *, temperature: float = 0.05, momentum: float = 0.1, use_hard: bool = False
    ) -> None:
        super().__init__()
        self.temperature, self.momentum, self.use_hard = temperature, momentum, use_hard
        self.register_buffer("features", torch.zeros(num_clusters, num_features))

    @property
    def num_clusters(self) -> int:
        return self.features.shape[0]

    @torch.no_grad()
    def reset(self, centroids: Tensor) -> None:
        """Start anew from centroids [C, D] float, finite (normalised here); C may differ from before."""
        Shapes("ClusterMemory.reset").tensor("centroids", centroids, ("C", self.features.shape[1]), ANY_FLOATS)
        self.features = normalised("ClusterMemory.reset", "centroids", centroids).to(self.features)

    def forward(self, f: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of f . features^T / temperature, a scalar (0 for an empty batch). Does not update, and may be
        followed by `update` before its backward.

        Arguments:
            f: [B, D] float, normalised here, of any length whose square is a number of its type.
            targets: [B] integer, their clusters.

        Gradient: to f.
        """
        shapes = Shapes("ClusterMemory")
        shapes.tensor("f", f, ("B", self.features.shape[1]), ANY_FLOATS, device_of=("features", self.features))
        shapes.tensor("targets", targets, ("B",), INTEGERS, device_of=("features", self.features))
        query = unit(f.to(working_dtype(f, self.features)))
        return centroid_cross_entropy(query, self.features, targets, self.temperature)

    @torch.no_grad()
    def update(self, f: Tensor, targets: Tensor) -> None:
        """Row = normalise(momentum * row + (1 - momentum) * normalise(f)) for each sample in batch order; with use_hard
        only for each cluster's least similar sample (the first of equals). f [B, D] float, targets [B]."""
        shapes = Shapes("ClusterMemory.update")
        shapes.tensor("f", f, ("B", self.features.shape[1]), ANY_FLOATS, device_of=("features", self.features))
        shapes.tensor("targets", targets, ("B",), INTEGERS, device_of=("features", self.features))
        bank_update_(self.features, targets, f, self.momentum, normalise=True, hard=self.use_hard)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(prefix + "features")
        if isinstance(stored, Tensor) and stored.dim() == 2 and stored.shape[1] == self.features.shape[1]:
            self.features = self.features.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        rows, width = self.features.shape
        return f"{rows} x {width}, temperature={self.temperature}, momentum={self.momentum}, use_hard={self.use_hard}"
