"""The losses of MLC and JVTC: pure functions of features, memory and labels.

Sources: Wang and Zhang, CVPR 2020 (MMCL, eq. 8-9); Li and Zhang, ECCV 2020 (JVTC, eq. 3, 5 and 6). Cluster Contrast's loss is in
`gcl_fast.stages.losses`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.ops import bank_nce


def similarities(feature: Tensor, bank: Tensor) -> Tensor:
    """Cosines [B, N] of features [B, D] with memory rows [N, D] (L2-normalised, constant); gradient to the features."""
    return F.normalize(feature, dim=1) @ bank.detach().to(feature.dtype).T


def mmcl_loss(
    similarity: Tensor, positive: Tensor, *, positive_weight: float = 5.0, hard_share: float = 0.01
) -> tuple[Tensor, Tensor]:
    """MMCL's multi-label loss, in its two parts; the loss is their sum. Deterministic.

        positive_weight * mean over the positives of (1 - s)^2,    mean over the hard negatives of (1 + s)^2

    Arguments:
        similarity: [B, N], cosines of features and memory rows.
        positive: [B, N] bool, one a row at least.
        positive_weight: of the first part.
        hard_share: the share of a row's negatives, the most similar ones, that count (rounded down, at least one). A row
            without negatives has 0 there.

    Returns: (positive part, negative part), each the mean over the batch.
    Gradient: to similarity.
    Source: Wang and Zhang, CVPR 2020, eq. 8-9.
    """
    pulled = torch.where(positive, (1 - similarity).square(), 0).sum(1) / positive.sum(1)  # [B]
    negatives = (~positive).sum(1)  # [B]
    hard = (negatives.double() * hard_share + 1e-9).long().clamp_min(1).minimum(negatives)  # [B]; 0.01 * 100 is 1, not 0
    most = max(1, int(similarity.shape[1] * hard_share + 1e-9))
    value = similarity.masked_fill(positive, -torch.inf).topk(most, dim=1).values  # [B, most]
    chosen = torch.arange(most, device=similarity.device)[None] < hard[:, None]
    pushed = torch.where(chosen, (1 + torch.where(chosen, value, 0)).square(), 0).sum(1) / hard.clamp_min(1)  # [B]
    size = max(len(similarity), 1)
    return positive_weight * pulled.sum() / size, pushed.sum() / size


def view_means(feature: Tensor, views: int) -> Tensor:
    """Features [n * views, D], the views of an image side by side -> the L2-normalised mean of each image's views [n, D]."""
    return F.normalize(feature.reshape(len(feature) // views, views, feature.shape[1]).mean(1), dim=1)


def local_loss(feature: Tensor, views: int, temperature: float) -> Tensor:
    """JVTC's local loss: the views of one image belong together, those of the batch's other images do not. Deterministic.

    Arguments:
        feature: [n * views, D], the views of an image side by side; L2-normalised here.
        views: of each image.
        temperature: above 0.

    Returns: a scalar, the mean cross-entropy of each view against the n view means / temperature; its image's mean is the class.
    Gradient: to feature, also through the means.
    Source: Li and Zhang, ECCV 2020, eq. 3.
    """
    means = view_means(feature, views)  # [n, D]
    logits = F.normalize(feature, dim=1) @ means.T / temperature  # [n * views, n]
    return F.cross_entropy(logits, torch.arange(len(means), device=feature.device).repeat_interleave(views))


def global_loss(feature: Tensor, bank: Tensor, labels: Tensor, index: Tensor, temperature: float) -> Tensor:
    """JVTC's global loss: soft multi-label cross-entropy of each view against all memory rows. Deterministic.

    Arguments:
        feature: [n * views, D], the views of an image side by side; L2-normalised here.
        bank: [N, D], L2-normalised, constant.
        labels: [N] int64.
        index: [n] int64, the image's row.
        temperature: above 0.

    Returns: a scalar, the mean over the views of - sum over rows j of w_j log softmax(f . bank^T / temperature)_j, w the
        L2-normalised indicator of the rows that share the image's label: w_j = 1 / sqrt(c) for each of the c of them. Summed
        up, a row's loss is sqrt(c) (log-sum-exp - f . mean row of the cluster / temperature), so no view needs the N
        log-probabilities kept.
    Gradient: to feature.
    Source: Li and Zhang, ECCV 2020, eq. 5-6.
    """
    query = F.normalize(feature, dim=1)
    views = len(feature) // max(len(index), 1)
    row = index.repeat_interleave(views)  # [B]
    each = torch.arange(len(bank), device=bank.device)  # every row a class by itself: all others are negatives
    lse = bank_nce(query, bank, each, row, temperature=temperature)
    lse = lse + (query * bank[row]).sum(1) / temperature  # [B], of all rows
    cluster = (labels[None] == labels[index][:, None]).to(bank.dtype)  # [n, N]
    size = cluster.sum(1)  # [n]
    mean = cluster @ bank / size[:, None]  # [n, D]
    size, mean = size.repeat_interleave(views), mean.repeat_interleave(views, 0)  # [B], [B, D]
    loss = size.sqrt() * (lse - (query * mean).sum(1) / temperature)  # [B]
    return loss.sum() / max(len(loss), 1)
