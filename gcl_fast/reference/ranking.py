"""Retrieval scores and k-reciprocal re-ranking in plain loops: what the public ops must agree with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast._op_types import RankMetrics
from gcl_fast.reference.neighbors import expanded_set


def rank_metrics(
    query: Tensor,
    gallery: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """See `gcl_fast.ops.rank_metrics`."""
    query, gallery = (torch.nn.functional.normalize(x.double(), dim=1, eps=1e-300) for x in (query, gallery))
    similarity = (query[:, None] * gallery).sum(dim=2)  # [Q, G]; summed in one order, so that equal rows tie exactly
    return rank_metrics_from_distances(-similarity, query_pids, gallery_pids, query_camids, gallery_camids, max_rank=max_rank)


def rank_metrics_from_distances(
    distances: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_camids: Tensor,
    gallery_camids: Tensor,
    *,
    max_rank: int = 50,
) -> RankMetrics:
    """See `gcl_fast.ops.rank_metrics_from_distances`."""
    distance, qp, gp, qc, gc = (t.cpu().numpy() for t in (distances, query_pids, gallery_pids, query_camids, gallery_camids))
    precisions, penalties, hits = [], [], []
    for q in range(len(distance)):
        ranking = [g for g in np.argsort(distance[q], kind="stable") if gp[g] != -1 and not (gp[g] == qp[q] and gc[g] == qc[q])]
        ranks = [rank for rank, g in enumerate(ranking, start=1) if gp[g] == qp[q]]  # of the matches
        if not ranks:
            precisions.append(np.nan)
            penalties.append(np.nan)
            continue
        precisions.append(float(np.mean([hits_so_far / rank for hits_so_far, rank in enumerate(ranks, start=1)])))
        penalties.append(len(ranks) / ranks[-1])
        hits.append([rank >= ranks[0] for rank in range(1, max_rank + 1)])
    cmc = torch.from_numpy(np.mean(hits, axis=0)) if hits else torch.full((max_rank,), float("nan"), dtype=torch.float64)
    means = [float(np.nanmean(x)) if hits else float("nan") for x in (precisions, penalties)]
    result = RankMetrics(means[0], cmc, means[1], len(hits))
    result.AP, result.INP = (torch.tensor(x, dtype=torch.float64) for x in (precisions, penalties))
    return result


def rerank(query: Tensor, gallery: Tensor, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """See `gcl_fast.ops.rerank`."""
    x = torch.nn.functional.normalize(torch.cat([query, gallery]).cpu().double(), dim=1, eps=1e-300).numpy()
    total, half = len(x), int(np.around(k1 / 2))
    original = np.stack([np.maximum(2 - 2 * (x * row).sum(axis=1), 0) for row in x]) ** 2  # [Q + G, Q + G]
    np.fill_diagonal(original, 0)
    original = original / original.max(axis=1, keepdims=True)
    index = np.argsort(original, axis=1, kind="stable")[:, : max(k1 + 1, k2)]
    weight = np.zeros((total, total))
    for i in range(total):
        members = np.array(sorted(expanded_set(index, i, k1, half)), dtype=np.int64)
        near = np.exp(-original[i, members])
        weight[i, members] = near / near.sum()
    if k2 != 1:
        weight = np.stack([weight[index[i, :k2]].mean(axis=0) for i in range(total)])
    shared = np.stack([np.minimum(row, weight).sum(axis=1) for row in weight[: len(query)]])  # [Q, Q + G]
    jaccard = 1 - shared / (2 - shared)
    mixed = (1 - lambda_value) * jaccard + lambda_value * original[: len(query)]
    return torch.from_numpy(mixed[:, len(query) :]).to(query.device, torch.promote_types(query.dtype, torch.float32))
