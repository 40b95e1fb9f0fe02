"""Memory-based multi-labels of MMCL (Wang and Zhang, CVPR 2020: MPLP, eq. 3-5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gcl_fast.ops._products import exact_product
from gcl_fast.ops._walk import mutual_walk

BLOCK = 1 << 24  # similarities alive at once
FIRST_STEPS = 16  # neighbours of each query looked at in the first go; doubled from go to go


@torch.no_grad()
def multi_labels(
    bank: Tensor, index: Tensor, threshold: float, min_neighbors: int, walk: Literal["released", "mutual"]
) -> Tensor:
    """Positives of each query among the memory rows: [B, N] bool. Deterministic; on a GPU nothing is read on the host.

    Arguments:
        bank: [N, D], L2-normalised.
        index: [B] int64, the memory rows that ask (their current rows are the queries).
        threshold: a cosine. A query has n = rows more similar to it than threshold, t = max(n, min_neighbors) (at most N).
        min_neighbors: at least 1.
        walk: "mutual", as below; "released": as the authors' code has it, the nearest other row is a positive always (where it is
            above the threshold), and the query may also be the first row after a neighbour's own t nearest.

    A query's neighbours are walked from the nearest (itself first; the lower row wins a tie), and the walk stops at the first
    whose own t nearest do not hold the query. Positives are those before it, the first n of them at most; itself always. Memory:
    B x N, and on the CPU blocks of similarities of the neighbours that the walks reach; never N x N.

    Source: Wang and Zhang, CVPR 2020, eq. 3-5.
    """
    total, released = len(bank), walk == "released"
    similarity = exact_product(bank[index], bank)  # [B, N]
    similarity.scatter_(1, index[:, None], torch.inf)  # itself first
    near = (similarity > threshold).sum(1)  # [B], itself counted
    reach = near.clamp_min(min_neighbors).clamp_max(total) + released  # [B] t
    order = similarity.sort(dim=1, descending=True, stable=True).indices  # [B, N]
    steps = (_walk_by_products if _on_host(bank) else mutual_walk)(bank, index, order, near, reach)
    if released:  # the nearest other row
        steps = steps.maximum((near > 1).long())
    counted = torch.arange(total, device=bank.device) <= steps[:, None]
    return torch.zeros_like(counted).scatter_(1, order, counted)


def _on_host(bank: Tensor) -> bool:
    return bank.device.type == "cpu"


def _walk_by_products(bank: Tensor, index: Tensor, order: Tensor, near: Tensor, reach: Tensor) -> Tensor:
    """`mutual_walk` for the CPU, whose matrix product is faster there: a neighbour of several queries is multiplied once."""
    steps, walking = torch.zeros_like(index), near > 1  # [B]
    start, size = 1, FIRST_STEPS
    while bool(walking.any()):
        turn = torch.arange(start, min(start + size, len(bank)))
        query, column = (walking[:, None] & (turn < near[:, None])).nonzero(as_tuple=True)
        held = torch.zeros(len(index), len(turn), dtype=torch.bool)
        held[query, column] = _rank(bank, order[query, start + column], index[query]) < reach[query]
        run = held.long().cumprod(1).sum(1)  # up to the first that does not hold its query
        steps += run
        walking &= (run == len(turn)) & (near > start + size)
        start, size = start + size, 2 * size
    return steps


def _rank(bank: Tensor, candidate: Tensor, query: Tensor) -> Tensor:
    """Place of memory row query[p] in the neighbour list of row candidate[p], whose first (0) is itself: [P] int64."""
    unique, place = torch.unique(candidate, return_inverse=True)  # [U]: a candidate of several queries is multiplied once
    order = place.argsort(stable=True)
    rank = torch.empty_like(query)
    sizes = torch.bincount(place, minlength=len(unique))
    ends = sizes.cumsum(0).tolist()
    step = max(1, BLOCK // len(bank))
    columns = torch.arange(len(bank), device=bank.device)
    for first in range(0, len(unique), step):
        last = min(first + step, len(unique))
        block = exact_product(bank[unique[first:last]], bank)  # [u, N]
        block.scatter_(1, unique[first:last, None], torch.inf)
        pairs = order[(ends[first - 1] if first else 0) : ends[last - 1]]
        for part in torch.split(pairs, step):
            row = block[place[part] - first]  # [p, N]
            asking = row.gather(1, query[part, None])  # [p, 1]
            before = (row > asking) | ((row == asking) & (columns[None] < query[part, None]))
            rank[part] = before.sum(1)
    return rank
