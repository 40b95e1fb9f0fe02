"""JVTC's pseudo-labels: clusters by visual similarity, later by joint visual and temporal similarity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gcl_fast.config import ClusterConfig
from gcl_fast.ops import SparseDistance, dbscan, jaccard_distance, knn
from gcl_fast.ops._products import exact_product
from gcl_fast.pseudo_labels import PseudoLabels, described, eps_by_rho, remove_camera_bias
from gcl_fast.stages.warmup.mixed_distance import mixed_distance, squared_distances
from gcl_fast.stages.warmup.temporal import IntervalModel, interval_model, joint_similarity

ROWS = 4096  # rows whose candidates are compared at a time


def clusters(distance: SparseDistance, rule: ClusterConfig, eps_scale: float, cameras: Tensor) -> PseudoLabels:
    """DBSCAN with eps = eps_scale * the mean of the smallest rho share of the distances (rule.eps as it is without rho)."""
    eps = rule.eps if rule.rho is None else eps_scale * eps_by_rho(distance, rule.rho)
    return described(dbscan(distance, eps, rule.min_samples), eps, cameras)


def joint_neighbors(features: Tensor, cameras: Tensor, frames: Tensor, model: IntervalModel, k: int, candidates: int) -> Tensor:
    """The k images of highest joint similarity to each image, itself first. Deterministic.

    Arguments:
        features: [N, D] floating.
        cameras, frames: [N] int64 on the same device.
        model: the intervals, there too.
        k: neighbours.
        candidates: the joint similarity is computed for so many visually nearest images of each (at least k) alone: an image
            that looks less alike than 200 others hardly gets among the 20 or 30 nearest by its time, which weighs 1/3 to 1,
            and nothing N x N is ever held.

    Returns: [N, k] int64. Ties go to the visually nearer.
    """
    total = len(features)
    visual, index = knn(features, min(total, max(k, candidates)))  # [N, M]
    chosen = []
    for part in torch.split(torch.arange(total, device=features.device), ROWS):
        other = index[part]  # [n, M]
        interval = model(cameras[part, None], frames[part, None], cameras[other], frames[other])
        joint = joint_similarity(visual[part], interval.to(visual))
        joint[:, 0] = torch.inf  # itself
        order = joint.sort(dim=1, descending=True, stable=True).indices[:, :k]
        chosen.append(other.gather(1, order))
    return torch.cat(chosen) if chosen else index[:, :k]


@torch.no_grad()
def visual_labels(
    features: Tensor, cameras: Tensor, rule: ClusterConfig, eps_scale: float, euclidean_share: float = 0.0
) -> PseudoLabels:
    """Clusters of features [N, D] by the Jaccard distance of their visual neighbours, mixed with their squared distance; cameras
    [N] int64."""
    if rule.debias_cameras:
        features = remove_camera_bias(features, cameras)
    jaccard = jaccard_distance(features, rule.k1, rule.k2)
    return clusters(mixed_distance(jaccard, squared_distances(features), euclidean_share), rule, eps_scale, cameras)


@torch.no_grad()
def joint_labels(
    features: Tensor,
    cameras: Tensor,
    frames: Tensor,
    rule: ClusterConfig,
    eps_scale: float,
    *,
    bin_frames: int,
    smooth_bins: float,
    candidates: int,
    within_camera: Literal["released", "once"] = "once",
    euclidean_share: float = 0.0,
    joint_share: float = 0.0,
) -> tuple[PseudoLabels, PseudoLabels]:
    """Clusters by joint visual and temporal similarity. Deterministic.

    Arguments:
        features: [N, D] floating.
        cameras, frames: [N] int64.
        rule: neighbours and DBSCAN.
        eps_scale: as in `clusters`.
        bin_frames, smooth_bins, within_camera: as in `interval_model`.
        candidates: as in `joint_neighbors`.
        euclidean_share, joint_share: of the squared distance in the visual distance, and of 1 - joint similarity in the joint
            one; the rest is the Jaccard distance of the neighbours (`mixed_distance`).

    Returns: (clusters by joint similarity, the visual clusters that the intervals were estimated from). The members of a
        k-reciprocal set weigh the same: the published weight, the softmax of minus a joint distance that lies between 0.3 and
        0.9, is nearly that.
    Source: Li and Zhang, ECCV 2020.
    """
    if rule.debias_cameras:
        features = remove_camera_bias(features, cameras)
    jaccard = jaccard_distance(features, rule.k1, rule.k2)
    visual = clusters(mixed_distance(jaccard, squared_distances(features), euclidean_share), rule, eps_scale, cameras)
    model = interval_model(
        cameras,
        frames,
        visual.labels,
        bin_frames=bin_frames,
        smooth_bins=smooth_bins,
        within_camera=within_camera,
        num_cameras=int(cameras.max()) + 1 if len(cameras) else 1,
    )
    neighbors = joint_neighbors(features, cameras, frames, model, min(rule.k1, len(features)), candidates)

    def apart(rows: Tensor) -> Tensor:
        interval = model(cameras[rows, None], frames[rows, None], cameras[None], frames[None])
        return 1 - joint_similarity(exact_product(features[rows], features), interval.to(features))

    jaccard = jaccard_distance(neighbors, rule.k1, rule.k2)
    return clusters(mixed_distance(jaccard, apart, joint_share), rule, eps_scale, cameras), visual
