"""The k-reciprocal Jaccard distance as a chain of native ops on compressed rows.

Where a size depends on the data, one op counts, the total is read on the host, the next op fills: three reads in all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gcl_fast import _native


def distance(rank: Tensor, similarity: Tensor | None, features: Tensor | None, k1: int, k2: int) -> tuple[Tensor, Tensor, Tensor]:
    """indptr [N + 1], indices [nnz] int64, values [nnz] from neighbours [N, K <= k1], itself first.

    similarity  [N, K] features_i . features_rank, or None: computed from features
    features    [N, D] or None: the members of a set weigh the same
    """
    ops = torch.ops.gcl_fast
    rank = rank.int().contiguous()
    none = torch.zeros(0, dtype=torch.float32 if features is None else features.dtype, device=rank.device)
    half = min(int(np.around(k1 / 2)) + 1, rank.shape[1])
    sets = ops.reciprocal_sets(rank, half)
    accepted, count = ops.expansion_count(*sets)
    start, total = _starts(count)
    known, vectors = none if similarity is None else similarity, none if features is None else features
    columns, weight = ops.expansion_weights(*sets, accepted, rank, known, vectors, start, total)
    if k2 != 1 and len(rank):
        group = min(k2, rank.shape[1])
        rows = start, columns, weight
        start, total = _starts(ops.mean_rows_count(*rows, rank, group))
        columns, weight = ops.mean_rows(*rows, rank, group, start, total)
    matrix = start, columns, weight
    holders = _transposed(*matrix)
    indptr, total = _starts(ops.overlap_count(*matrix, *holders))
    indices, values = ops.overlap_distance(*matrix, *holders, indptr, total)
    return indptr, indices, values


def _starts(count: Tensor) -> tuple[Tensor, int]:
    start = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=start[1:])
    return start, int(start[-1])


def _transposed(start: Tensor, columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The matrix by columns: who holds column n, ascending, and how much."""
    if columns.device.type == "cpu":
        by_column: tuple[Tensor, Tensor, Tensor] = torch.ops.gcl_fast.transpose_rows(start, columns, values)
        return by_column
    total = len(start) - 1
    owner = torch.repeat_interleave(torch.arange(total, device=start.device), start.diff(), output_size=len(columns))
    column, order = torch.sort(columns, stable=True)
    every = torch.arange(total + 1, dtype=columns.dtype, device=start.device)
    return torch.searchsorted(column, every), owner[order].int(), values[order]


def _fake_sets(rank: Tensor, half_width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, width = rank.shape
    return rank.new_empty(rows, width), rank.new_empty(rows), rank.new_empty(rows, half_width), rank.new_empty(rows)


def _fake_expansion_count(near: Tensor, num_near: Tensor, close: Tensor, num_close: Tensor) -> tuple[Tensor, Tensor]:
    return near.new_empty(near.shape, dtype=torch.uint8), near.new_empty(near.shape[0], dtype=torch.int64)


def _fake_weights(
    near: Tensor,
    num_near: Tensor,
    close: Tensor,
    num_close: Tensor,
    accepted: Tensor,
    rank: Tensor,
    similarity: Tensor,
    features: Tensor,
    start: Tensor,
    total: int,
) -> tuple[Tensor, Tensor]:
    return near.new_empty(total), similarity.new_empty(total)


def _fake_count(start: Tensor, columns: Tensor, values: Tensor, *others: object) -> Tensor:
    return start.new_empty(start.shape[0] - 1)


def _fake_mean(
    start: Tensor, columns: Tensor, values: Tensor, rank: Tensor, group: int, out_start: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    return columns.new_empty(total), values.new_empty(total)


def _fake_transpose(start: Tensor, columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(start), torch.empty_like(columns), torch.empty_like(values)


def _fake_overlap(
    start: Tensor,
    columns: Tensor,
    values: Tensor,
    holder_start: Tensor,
    holder_rows: Tensor,
    holder_values: Tensor,
    indptr: Tensor,
    total: int,
) -> tuple[Tensor, Tensor]:
    return start.new_empty(total), values.new_empty(total)


FAKES: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "reciprocal_sets": _fake_sets,
    "expansion_count": _fake_expansion_count,
    "expansion_weights": _fake_weights,
    "mean_rows_count": _fake_count,
    "mean_rows": _fake_mean,
    "transpose_rows": _fake_transpose,
    "overlap_count": _fake_count,
    "overlap_distance": _fake_overlap,
}
if _native.loaded:
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"gcl_fast::{_name}", _fake)
