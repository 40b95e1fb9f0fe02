"""JVTC's local loss: the views of one image belong together, those of the batch's other images do not (ECCV 2020, eq. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def view_means(feature: Tensor, views: int) -> Tensor:
    """Features [n * views, D], the views of an image side by side -> the L2-normalised mean of each image's views [n, D]."""
    return F.normalize(feature.unflatten(0, (-1, views)).mean(1), dim=1)


def local_loss(feature: Tensor, views: int, temperature: float) -> Tensor:
    """Mean cross-entropy of each L2-normalised view [n * views, D] against the n view means / temperature; its own image's
    mean is the class. A scalar; gradient also through the means. Deterministic."""
    means = view_means(feature, views)  # [n, D]
    logits = F.normalize(feature, dim=1) @ means.T / temperature  # [n * views, n]
    return F.cross_entropy(logits, torch.arange(len(means), device=feature.device).repeat_interleave(views))
