"""The losses and label rules of the stage-1 methods MLC and JVTC, as plainly as they can be said: loops over rows, dense
matrices. Any floating dtype; the tests use float64."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def _ranked(similarity: Tensor, row: int) -> list[int]:
    """All rows by similarity to `row` (values [N]), itself first, the lower row first among equals."""
    values = similarity.tolist()
    return sorted(range(len(values)), key=lambda j: (j != row, -values[j], j))


def multi_labels(bank: Tensor, index: Tensor, *, threshold: float = 0.6, min_neighbors: int = 10, walk: str = "mutual") -> Tensor:
    """MMCL's positives of memory rows: see `gcl_fast.stages.warmup.multilabel.multi_labels`. [B, N] bool."""
    similarity, total = bank @ bank.T, len(bank)
    positive = torch.zeros(len(index), total, dtype=torch.bool)
    for b, query in enumerate(index.tolist()):
        above = sum(1 for j in range(total) if j == query or similarity[query, j] > threshold)
        reach = min(max(above, min_neighbors), total)
        order = _ranked(similarity[query], query)
        mutual, near = [], reach + (walk == "released")
        for neighbor in order[:reach]:
            if query not in _ranked(similarity[neighbor], neighbor)[:near]:
                break
            mutual.append(neighbor)
        if walk == "released" and len(mutual) < 2:
            mutual = order[:2]
        for neighbor in [query, *mutual[:above]]:
            positive[b, neighbor] = True
    return positive


def mmcl_loss(similarity: Tensor, positive: Tensor, *, positive_weight: float = 5.0, hard_share: float = 0.01) -> Tensor:
    """MMCL's loss, the mean over the rows of similarity [B, N]."""
    losses = []
    for row, chosen in zip(similarity, positive, strict=True):
        loss = positive_weight * ((1 - row[chosen]) ** 2).mean()
        negative = row[~chosen].sort(descending=True).values
        if len(negative):
            share = max(1, math.floor(hard_share * len(negative) + 1e-9))
            loss = loss + ((1 + negative[:share]) ** 2).mean()
        losses.append(loss)
    return torch.stack(losses).mean()


def local_loss(feature: Tensor, views: int, temperature: float) -> Tensor:
    """JVTC's local loss of features [n * views, D]."""
    means = []
    for i in range(0, len(feature), views):
        mean = torch.stack([feature[i + k] for k in range(views)]).sum(0) / views
        means.append(mean / mean.norm())
    losses = []
    for i, row in enumerate(feature):
        scores = torch.stack([row / row.norm() @ mean / temperature for mean in means])
        losses.append(-(scores[i // views].exp() / scores.exp().sum()).log())
    return torch.stack(losses).mean()


def global_loss(
    feature: Tensor, bank: Tensor, labels: Tensor, index: Tensor, temperature: float, target_norm: str = "l2"
) -> Tensor:
    """JVTC's global loss of features [n * views, D] against bank [N, D]."""
    views, losses = len(feature) // len(index), []
    for i, row in enumerate(feature):
        target = (labels == labels[index[i // views]]).to(feature.dtype)  # [N]
        target = target / (target.norm() if target_norm == "l2" else target.sum())
        scores = (bank @ (row / row.norm())) / temperature
        losses.append(-(target * (scores - scores.exp().sum().log())).sum())
    return torch.stack(losses).mean()


def interval_probability(
    cameras: np.ndarray, frames: np.ndarray, labels: np.ndarray, bin_frames: int, smooth_bins: float, within_camera: str = "once"
) -> np.ndarray:
    """Probability [C, C, T] of the bins of the interval from camera b (earlier) to a (later): [a, b]."""
    count, bins = int(cameras.max()) + 1, int(frames.max() - frames.min()) // bin_frames + 1
    histogram = np.zeros((count, count, bins))
    for label in sorted(set(labels.tolist()) - {-1}):
        seen = {c: frames[(labels == label) & (cameras == c)].tolist() for c in range(count)}
        for a in range(count):
            if len(seen[a]) > 1:
                released = within_camera == "released"
                for frame in sorted(seen[a])[0 if released else 1 :]:
                    histogram[a, a, (frame - min(seen[a])) // bin_frames] += len(seen[a]) if released else 1
            for b in range(a):
                if seen[a] and seen[b]:
                    difference = sum(seen[a]) / len(seen[a]) - sum(seen[b]) / len(seen[b])
                    later, earlier = (a, b) if difference >= 0 else (b, a)
                    histogram[later, earlier, int(abs(difference) // bin_frames)] += 1
    smooth = np.zeros_like(histogram)
    for t in range(bins):
        for u in range(bins):
            if abs(t - u) <= int(3 * smooth_bins):
                smooth[:, :, t] += histogram[:, :, u] * math.exp(-((t - u) ** 2) / (2 * smooth_bins**2))
    total = smooth.sum(2, keepdims=True)
    return np.where(total > 0, smooth / np.where(total > 0, total, 1), 0)


def joint_similarity(
    features: Tensor, cameras: np.ndarray, frames: np.ndarray, probability: np.ndarray, bin_frames: int
) -> np.ndarray:
    """Joint visual and temporal similarity of all pairs [N, N] of L2-normalised features, itself 1."""
    visual, total = (features @ features.T).numpy(), len(features)
    joint = np.ones((total, total))
    for i in range(total):
        for j in range(total):
            if i != j:
                later, earlier = (i, j) if (frames[i], cameras[i]) >= (frames[j], cameras[j]) else (j, i)
                place = abs(int(frames[i]) - int(frames[j])) // bin_frames
                known = place < probability.shape[2]
                p = probability[cameras[later], cameras[earlier], place] if known else 0.0
                joint[i, j] = 1 / (1 + math.exp(-5 * visual[i, j])) / (1 + 2 * math.exp(-5 * p))
    return joint
