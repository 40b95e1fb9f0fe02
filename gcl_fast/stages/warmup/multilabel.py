"""Memory-based multi-labels and the multi-label loss of MMCL (Wang and Zhang, CVPR 2020: MPLP, eq. 3-5; MMCL, eq. 8-9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1 << 24  # similarities alive at once
FIRST_STEPS = 16  # candidates of each query looked at in the first go; doubled from go to go


@torch.no_grad()
def multi_labels(bank: Tensor, index: Tensor, *, threshold: float = 0.6, min_neighbors: int = 10) -> Tensor:
    """Positives of each query among the memory rows: [B, N] bool.

    bank   [N, D] L2-normalised; index [B] int64, the memory rows that ask (their current rows are the queries)
    A query has n = rows more similar to it than threshold, t = max(n, min_neighbors) (at most N). Its neighbours are walked
    from the nearest (itself first; the lower row wins a tie), and the walk stops at the first whose own t nearest do not
    hold the query. Positives are those before it, the first n of them at most; itself always.

    Memory: B x N, and blocks of similarities of the candidates that the walks reach; never N x N. Deterministic.
    """
    batch, total = len(index), len(bank)
    similarity = bank[index] @ bank.T  # [B, N]
    similarity.scatter_(1, index[:, None], torch.inf)  # itself first
    near = (similarity > threshold).sum(1)  # [B], itself counted
    reach = near.clamp_min(min_neighbors).clamp_max(total)  # [B] t
    positive = torch.zeros(batch, total, dtype=torch.bool, device=bank.device)
    positive.scatter_(1, index[:, None], True)
    limit = int(near.max()) if batch else 0  # no walk need go further
    if limit <= 1:
        return positive
    _, order = similarity.sort(dim=1, descending=True, stable=True)
    order = order[:, :limit]  # [B, limit]
    walking = torch.ones(batch, dtype=torch.bool, device=bank.device)
    start, steps = 1, FIRST_STEPS
    while start < limit:
        stop = min(start + steps, limit)
        turn = torch.arange(start, stop, device=bank.device)
        asked = walking[:, None] & (turn[None] < near[:, None])  # [B, steps]
        if not bool(asked.any()):
            break
        query, column = asked.nonzero(as_tuple=True)
        candidate = order[query, start + column]  # [P]
        mutual = torch.zeros_like(asked)
        mutual[query, column] = _rank(bank, candidate, index[query]) < reach[query]
        reached = (mutual | ~asked).cumprod(1).bool() & asked  # no stop up to here
        row, column = reached.nonzero(as_tuple=True)
        positive[row, order[row, start + column]] = True
        walking &= (mutual | ~asked).all(1) & (near > stop)
        start, steps = stop, 2 * steps
    return positive


def _rank(bank: Tensor, candidate: Tensor, query: Tensor) -> Tensor:
    """Place of memory row query[p] in the neighbour list of row candidate[p], whose first (0) is itself: [P] int64."""
    unique, own = candidate.unique(return_inverse=True)  # [U]: a candidate of several queries is multiplied once
    order = own.argsort(stable=True)
    rank = torch.empty_like(query)
    sizes = torch.bincount(own, minlength=len(unique))
    ends = sizes.cumsum(0).tolist()
    step = max(1, BLOCK // len(bank))
    columns = torch.arange(len(bank), device=bank.device)
    for first in range(0, len(unique), step):
        last = min(first + step, len(unique))
        block = bank[unique[first:last]] @ bank.T  # [u, N]
        block.scatter_(1, unique[first:last, None], torch.inf)
        pairs = order[(ends[first - 1] if first else 0) : ends[last - 1]]
        for part in pairs.split(step):
            row = block[own[part] - first]  # [p, N]
            mine = row.gather(1, query[part, None])  # [p, 1]
            before = (row > mine) | ((row == mine) & (columns[None] < query[part, None]))
            rank[part] = before.sum(1)
    return rank


def mmcl_loss(
    similarity: Tensor, positive: Tensor, *, positive_weight: float = 5.0, hard_share: float = 0.01
) -> tuple[Tensor, Tensor]:
    """(positive part, negative part), each the mean over the batch; the loss is their sum.

        positive_weight * mean over the positives of (1 - s)^2,    mean over the hard negatives of (1 + s)^2

    similarity [B, N] of normalised features and memory rows; positive [B, N] bool, one a row at least. Hard negatives of a
    row: the hard_share of its negatives that are most similar (rounded down, at least one). A row without negatives has 0
    there. Gradient to similarity. Deterministic.
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


def similarities(feature: Tensor, bank: Tensor) -> Tensor:
    """Cosines [B, N] of features [B, D] with memory rows [N, D] (L2-normalised, constant); gradient to the features."""
    return F.normalize(feature, dim=1) @ bank.detach().to(feature.dtype).T
