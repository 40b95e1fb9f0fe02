"""JVTC's global loss: soft multi-label cross-entropy of each view against all memory rows (ECCV 2020, eq. 5-6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.ops import bank_nce


def global_loss(feature: Tensor, bank: Tensor, labels: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Mean over the views of - sum over rows j of w_j log softmax(f . bank^T / temperature)_j, w the L2-normalised indicator
    of the rows that share the image's label: w_j = 1 / sqrt(c) for each of the c of them.

    feature [n * views, D] (L2-normalised here), the views of an image side by side; bank [N, D] constant; labels [N] int64;
    index [n] int64, the image's row. Summed up, a row's loss is sqrt(c) (log-sum-exp - f . mean row of the cluster /
    temperature), so no view needs the N log-probabilities kept. A scalar; gradient to feature. Deterministic.
    """
    query = F.normalize(feature, dim=1)
    views = len(feature) // max(len(index), 1)
    own = index.repeat_interleave(views)  # [B]
    each = torch.arange(len(bank), device=bank.device)  # every row a class of its own: all others are negatives
    lse = bank_nce(query, bank, each, own, temperature=temperature)
    lse = lse + (query * bank[own]).sum(1) / temperature  # [B], of all rows
    together = (labels[None] == labels[index][:, None]).to(bank.dtype)  # [n, N]
    size = together.sum(1)  # [n]
    mean = together @ bank / size[:, None]  # [n, D]
    size, mean = size.repeat_interleave(views), mean.repeat_interleave(views, 0)  # [B], [B, D]
    loss = size.sqrt() * (lse - (query * mean).sum(1) / temperature)  # [B]
    return loss.sum() / max(len(loss), 1)
