"""Plain definition of the cross-entropy over centroids: one query at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def centroid_cross_entropy(query: Tensor, centroids: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """See `gcl_fast.ops.centroids.centroid_cross_entropy`: the mean of -log softmax(query . centroids / temperature)[target]."""
    if len(query) == 0:
        return query.sum()
    constants = centroids.detach().to(query.dtype)
    losses = []
    for vector, target in zip(query, targets.tolist(), strict=True):
        logits = (constants * vector).sum(1) / temperature  # [C]
        largest = logits.detach().max()
        losses.append(largest + (logits - largest).exp().sum().log() - logits[target])
    return torch.stack(losses).mean()
