"""k-reciprocal sets and their overlaps for re-ranking, by the native ops of the Jaccard distance."""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast.ops._jaccard import Overlapping, Rows, averaged, distances, half_width, starts_of, transposed


def expanded_sets(rank: Tensor, k1: int) -> tuple[Tensor, Tensor]:
    """R*(i) of every row of rank [N, at most k1 + 1] int32, nearest first: start [N + 1] int64, columns [nnz] int32."""
    ops, rank = torch.ops.gcl_fast, rank.contiguous()
    sets = ops.reciprocal_sets(rank, half_width(k1, rank))
    accepted, count = ops.expansion_count(*sets)
    start, total = starts_of(count)
    none = torch.zeros(0, dtype=torch.float32, device=rank.device)
    return start, ops.expansion_weights(*sets, accepted, rank, none, none, start, total)[0]


def overlap_terms(start: Tensor, columns: Tensor, weight: Tensor, group: Tensor, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """m / (2 - m) of rows i < num_rows and every j: i and j int64, value, each [pairs].

    m(i, j) = sum over n of min(V[i, n], V[j, n]), V the rows averaged over group [N, k2] int32.
    """
    rows = Rows(start, columns, weight)
    if group.shape[1] != 1:
        rows = averaged(rows, group.contiguous(), group.shape[1])
    indptr, indices, distance = distances(Overlapping(rows, transposed(rows)), last=num_rows)
    row = torch.arange(num_rows, device=indptr.device)
    return torch.repeat_interleave(row, indptr.diff(), output_size=len(indices)), indices.long(), 1 - distance
