"""What the public code of Cluster Contrast, MLC, JVTC and GCL does in a step and in a clustering, written plainly with dense
matrices and loops in float64: the oracle of test_published_steps.py. Nothing here calls the package's stages or ops."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import DBSCAN
from torch import Tensor, nn


def reciprocal(order: np.ndarray, i: int, k: int) -> set[int]:
    """The first k columns of i's ranking that rank i among their first k."""
    return {j for j in order[i, :k].tolist() if i in order[j, :k]}


def jaccard(order: np.ndarray, closeness: np.ndarray, columns: int, half: int, k2: int) -> np.ndarray:
    """Distance [N, N] of the expanded reciprocal sets; order [N, N] ranks all, itself first; a set's members weigh by
    closeness [N, N], normalised."""
    total = len(order)
    weight = np.zeros((total, total))
    for i in range(total):
        start = reciprocal(order, i, columns)
        members = set(start)
        for j in start:
            more = reciprocal(order, j, half)
            if len(more & start) > 2 / 3 * len(more):
                members |= more
        chosen = sorted(members)
        weight[i, chosen] = closeness[i, chosen] / closeness[i, chosen].sum()
    weight = np.stack([weight[order[i, :k2]].mean(0) for i in range(total)])
    shared = np.array([np.minimum(row, weight).sum(1) for row in weight])
    return np.maximum(1 - shared / (2 - shared), 0)


def cluster_contrast_labels(features: Tensor, *, k1: int, k2: int, eps: float, min_samples: int) -> np.ndarray:
    """Also GCL's: k1 columns of neighbours, weights softmax(-distance^2), DBSCAN at eps."""
    rows = F.normalize(features, dim=1).numpy()
    squared = np.maximum(2 - 2 * rows @ rows.T, 0)
    ranked = squared.copy()
    np.fill_diagonal(ranked, -1)
    order = np.argsort(ranked, axis=1, kind="stable")
    half = int(np.around(k1 / 2)) + 1
    distance = jaccard(order, np.exp(-squared), k1, half, k2)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance)


def jvtc_labels(
    distance: np.ndarray,
    *,
    k1: int,
    k2: int,
    share: float,
    rho: float,
    scale: float,
    closeness: np.ndarray | None = None,
    symmetric: bool = False,
) -> np.ndarray:
    """JVTC: k1 neighbours besides itself, the scaled distance mixed in, eps from the smallest. As published, a set's members
    weigh exp(-scaled distance) and a pair is scaled by its first row; `closeness` gives other weights, and symmetric takes the
    mean of both scales, ranks each image first for itself and leaves out pairs whose sets share nothing, as the package does."""
    low = distance.min(1, keepdims=True)
    scaled = (distance - low) / (distance - low).max(1, keepdims=True)
    ranked = scaled - 2 * np.eye(len(scaled)) if symmetric else scaled
    order = np.argsort(ranked, axis=1, kind="stable")
    half = int(np.around(k1 / 2)) + 1
    sets = jaccard(order, np.exp(-scaled) if closeness is None else closeness, k1 + 1, half, k2)
    final = (1 - share) * sets + share * ((scaled + scaled.T) / 2 if symmetric else scaled)
    if symmetric:
        final[sets == 1] = 1
        np.fill_diagonal(final, 0)
    upper = final[np.triu_indices(len(final), 1)]
    wanted = int(np.round(rho * (upper != 0).sum()))
    eps = np.sort(upper[upper != 0])[:wanted].mean() * scale
    return DBSCAN(eps=eps, min_samples=1, metric="precomputed").fit_predict(final)


def squared_distances(bank: Tensor) -> np.ndarray:
    rows = bank.numpy()
    return np.array([((rows - row) ** 2).sum(1) for row in rows])


def joint_distances(bank: Tensor, cameras: np.ndarray, frames: np.ndarray, intervals: np.ndarray, bin_frames: int) -> np.ndarray:
    """1 - visual and temporal similarity [N, N]; intervals [C, C, T]: later camera, earlier camera, bin."""
    total = len(bank)
    visual = (bank @ bank.T).numpy()
    result = np.zeros((total, total))
    for i in range(total):
        for j in range(total):
            later, earlier = (i, j) if frames[i] > frames[j] else (j, i)
            p = intervals[cameras[later], cameras[earlier], abs(int(frames[i]) - int(frames[j])) // bin_frames]
            result[i, j] = 1 - 1 / (1 + np.exp(-5 * visual[i, j])) / (1 + 2 * np.exp(-5 * p))
    return result


def jvtc_intervals(cameras: np.ndarray, frames: np.ndarray, labels: np.ndarray, bins: int, bin_frames: int, deviation: float):
    """[C, C, T] of the code: means between cameras, and within one each image to the first, as often as there are images."""
    count = int(cameras.max()) + 1
    histogram = np.zeros((count, count, bins))
    for label in sorted(set(labels.tolist())):
        frames_in = [frames[(labels == label) & (cameras == c)] for c in range(count)]
        for a in range(count):
            if len(frames_in[a]) > 1:
                for frame in frames_in[a]:
                    histogram[a, a, (frame - frames_in[a].min()) // bin_frames] += len(frames_in[a])
            for b in range(a + 1, count):
                if len(frames_in[a]) and len(frames_in[b]):
                    gap = frames_in[a].mean() - frames_in[b].mean()
                    later, earlier = (a, b) if gap > 0 else (b, a)
                    histogram[later, earlier, int(abs(gap) // bin_frames)] += 1
    kernel = np.exp(-(np.subtract.outer(np.arange(bins), np.arange(bins)) ** 2) / (2 * deviation**2))
    kernel[np.abs(np.subtract.outer(np.arange(bins), np.arange(bins))) > 3 * deviation] = 0
    smooth = histogram @ kernel / (deviation * np.sqrt(2 * np.pi))
    return smooth / (smooth.sum(2, keepdims=True) + 1e-7)


def mlc_positives(memory: Tensor, query: int, threshold: float) -> list[int]:
    """The rows that are positives of one memory row."""
    similarity = memory @ memory[query]
    order = similarity.argsort(descending=True, stable=True).tolist()
    above = int((similarity > threshold).sum())
    reach, step = max(above, 10), 1
    for j in range(min(reach, len(order))):
        place = (memory @ memory[order[j]]).argsort(descending=True, stable=True).tolist().index(order[0])
        if place > reach:
            break
        step = max(step, j)
    return sorted({query, *order[: min(step + 1, above)]})


def mlc_loss(logits: Tensor, positives: list[list[int]], hard_share: float) -> Tensor:
    losses = []
    for row, chosen in zip(logits, positives, strict=True):
        mask = torch.zeros(len(row), dtype=torch.bool)
        mask[chosen] = True
        negative = row[~mask].sort(descending=True).values
        hard = negative[: int(hard_share * len(negative))]
        losses.append(5 * (1 - row[mask]).square().mean() + (1 + hard).square().mean())
    return torch.stack(losses).mean()


def jvtc_losses(feature: Tensor, views: int, bank: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """(local, global) of the features of images' views, side by side."""
    means = F.normalize(feature.unflatten(0, (-1, views)).mean(1), dim=1)
    rows = F.normalize(feature, dim=1)
    local = F.cross_entropy(rows @ means.T / 0.1, torch.arange(len(means)).repeat_interleave(views))
    target = (labels[index][:, None] == labels[None]).to(bank.dtype)
    target = (target / target.abs().sum(1, keepdim=True)).repeat_interleave(views, 0)
    return local, -(target * (rows @ bank.T / 0.05).log_softmax(1)).sum(1).mean()


def sgd(encoder: nn.Module, lr: float, backbone_share: float) -> torch.optim.SGD:
    backbone = [p for n, p in encoder.named_parameters() if n.startswith("backbone.")]
    head = [p for n, p in encoder.named_parameters() if not n.startswith("backbone.")]
    groups = [{"params": backbone, "lr": lr * backbone_share}, {"params": head, "lr": lr}]
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
