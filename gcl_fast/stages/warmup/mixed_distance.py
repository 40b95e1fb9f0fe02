"""JVTC clusters a mixture: the Jaccard distance of neighbour sets, and the distance that the neighbours were found by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcl_fast.ops import SparseDistance
from gcl_fast.ops._products import exact_product

ROWS = 512  # of the whole matrix alive at once


def squared_distances(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows [n] -> their squared Euclidean distances to all features [n, N]."""
    norms = features.square().sum(1)

    def rows(index: Tensor) -> Tensor:
        return (norms[index, None] + norms - exact_product(2 * features[index], features)).clamp_min(0)

    return rows


def mixed_distance(jaccard: SparseDistance, apart: Callable[[Tensor], Tensor], share: float) -> SparseDistance:
    """(1 - share) * Jaccard + share * distance, that scaled to [0, 1] by the nearest and the farthest of a row. Deterministic.

    Arguments:
        jaccard: symmetric.
        apart: rows [n] int64 -> distances to all [n, N], symmetric, not negative.
        share: in [0, 1); 0 gives the Jaccard distance back.

    Returns: for the pairs that `jaccard` stores; of the two scales of a pair the mean is taken, so that it stays symmetric. Other
        pairs are 1 apart in it, truly 1 - share or more. Memory: blocks of rows, never N x N.
    """
    if share == 0:
        return jaccard
    total, row = jaccard.shape[0], jaccard.rows()
    raw = torch.empty_like(jaccard.values)
    low, high = torch.empty(total, dtype=raw.dtype, device=raw.device), torch.empty(total, dtype=raw.dtype, device=raw.device)
    firsts = range(0, total, ROWS)
    bounds = [*jaccard.indptr[::ROWS].tolist()[: len(firsts)], len(raw)]
    for first, begin, end in zip(firsts, bounds, bounds[1:], strict=False):
        last = min(first + ROWS, total)
        block = apart(torch.arange(first, last, device=raw.device)).to(raw.dtype)  # [n, N]
        low[first:last], high[first:last] = block.amin(1), block.amax(1)
        stored = slice(begin, end)
        raw[stored] = block[row[stored] - first, jaccard.indices[stored]]
    span = (high - low).clamp_min(torch.finfo(raw.dtype).tiny)
    scaled = sum(((raw - low[end]) / span[end]).clamp(0, 1) for end in (row, jaccard.indices)) / 2
    values = ((1 - share) * jaccard.values + share * scaled).clamp(0, 1)
    values = torch.where(row == jaccard.indices, 0, values)
    return SparseDistance(jaccard.indptr, jaccard.indices, values, shape=jaccard.shape)
