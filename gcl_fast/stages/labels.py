"""Pseudo-labels of an epoch, as stages 1 and 3 make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import ClusterConfig
from gcl_fast.errors import StageError
from gcl_fast.pseudo_labels import PseudoLabels, cluster


def epoch_labels(stage: str, epoch: int, features: Tensor, cameras: Tensor, rule: ClusterConfig) -> PseudoLabels:
    """Cluster features [N, D] of the training images (cameras [N]) by `rule`; StageError where there is nothing to train on."""
    (found,) = from_first_rank(
        lambda: [
            cluster(
                features,
                k1=rule.k1,
                k2=rule.k2,
                eps=rule.eps,
                rho=rule.rho,
                min_samples=rule.min_samples,
                debias_cameras=cameras.to(features.device) if rule.debias_cameras else None,
            )
        ],
        features.device,
    )
    if found.num_clusters < 2:
        advice = "raise" if found.num_clusters == 0 else "lower"
        raise StageError(
            f"{stage}, epoch {epoch + 1}: clustering found {found.num_clusters} clusters and {found.num_outliers} outliers among "
            f"{len(features)} images at eps {found.eps:.3f}; at least 2 clusters are needed: {advice} {stage}.cluster.eps or "
            "change min_samples" + ("" if stage == "stage1" else ", or warm the encoder up longer in stage 1")
        )
    return found


def from_first_rank(make: Callable[[], Sequence[PseudoLabels]], device: torch.device) -> list[PseudoLabels]:
    """Clusterings that only the first of several processes makes; their labels on `device`."""
    if distributed.world() == 1:
        return list(make())
    found = distributed.from_first(lambda: [replace(one, labels=one.labels.cpu()) for one in make()])
    return [replace(one, labels=one.labels.to(device)) for one in found]


def label_figures(found: PseudoLabels) -> dict[str, float]:
    """What the log shows of a clustering."""
    return {
        "clusters": float(found.num_clusters),
        "outliers": float(found.num_outliers),
        "largest_cluster": float(found.largest),
        "eps": float(found.eps),
    }
