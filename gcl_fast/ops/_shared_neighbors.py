"""Neighbours, Jaccard distance and DBSCAN by several processes, each of which has some rows: what is large stays shared.

A process holds its features (and, for a while, another's) and the pairs of its rows. All hold what is short for each row: its k
neighbours, their similarities, its weights before and after averaging; about 1.5 KB a row, whatever the features' width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gcl_fast.ops import _jaccard
from gcl_fast.ops._knn_halves import nearest_rows
from gcl_fast.ops._knn_shared import pair_products
from gcl_fast.ops._rows import moderate, widened
from gcl_fast.ops._share import Share


def unit_rows(own: Tensor) -> Tensor:
    """Rows of length 1, float32 at least. A length is summed up in one order, whatever rows stand beside it: rows that are equal
    on different processes stay so."""
    x = moderate(widened(own)).contiguous()
    number = torch.arange(len(x), device=x.device)
    length: Tensor = torch.ops.gcl_fast.row_products(x, x, number, number).sqrt()
    return x / torch.where(length > 0, length, 1)[:, None]


def neighbour_sets(own: Tensor, k1: int, k2: int, share: Share) -> _jaccard.Overlapping:
    """`_jaccard.neighbour_sets` of all rows' features, the same on every process; own [n, D] are this one's unit rows."""
    ops = torch.ops.gcl_fast
    found = nearest_rows(own, min(k1, share.total), share)
    similarity, rank = share.gather(found.value), share.gather(found.index.int())
    sets = ops.reciprocal_sets(rank, _jaccard.half_width(k1, rank))
    accepted, count = ops.expansion_count(*sets)
    start, total = _jaccard.starts_of(count)
    none = own.new_zeros(0)
    columns, values = ops.expansion_weights(*sets, accepted, rank, similarity, none, start, total, False)
    begin, end = (int(start[n]) for n in (share.first, share.last))
    mine = _weighted(own, start[share.first : share.last + 1] - begin, columns[begin:end], values[begin:end], share)
    rows = _jaccard.Rows(start, columns, share.gather(mine))
    if k2 != 1 and share.total:
        part = _jaccard.averaged(rows, rank[share.first : share.last].contiguous(), k2)
        start, _ = _jaccard.starts_of(share.gather(part.start.diff()))
        rows = _jaccard.Rows(start, *(share.gather(x) for x in (part.columns, part.values)))
    return _jaccard.Overlapping(rows, _jaccard.transposed(rows))


def _weighted(own: Tensor, start: Tensor, columns: Tensor, values: Tensor, share: Share) -> Tensor:
    """Weights [nnz] of this process's rows, from similarities that are NaN where the other row's features are wanted."""
    values, owner = values.clone(), torch.repeat_interleave(start.diff(), output_size=len(columns))  # [nnz] row of own
    unknown = torch.isnan(values).nonzero()[:, 0]
    values[unknown] = pair_products(own, owner[unknown], columns[unknown].long(), share)
    torch.ops.gcl_fast.softmax_rows_(start, values)
    return values


def own_pairs(sets: _jaccard.Overlapping, reach: float, share: Share) -> _jaccard.Distances:
    """The pairs of this process's rows with any, within reach."""
    return _jaccard.distances(sets, reach, share.first, share.last)


def labels(pairs: _jaccard.Distances, eps: float, min_samples: int, share: Share) -> Tensor:
    """`ops.dbscan`'s labels [N], the same on every process; pairs: of this process's rows, at least those within eps < 1."""
    own = torch.arange(share.first, share.last, device=pairs.indptr.device)
    row = torch.repeat_interleave(own, pairs.indptr.diff(), output_size=len(pairs.indices))
    near = pairs.values <= torch.tensor(eps, dtype=pairs.values.dtype, device="cpu")
    others = torch.zeros_like(own).index_add_(0, row - share.first, (near & (pairs.indices != row)).long())
    core = share.gather(others + 1 >= min_samples)  # [N]

    edge = near & core[row] & core[pairs.indices.long()]
    roots = _roots(row[edge], pairs.indices[edge], pairs.values, share.total)
    every = share.gather(roots[None]).unbind()
    if len(every) > 1:  # an edge from each row to its root in each process's forest
        number = torch.arange(share.total, device=row.device)
        roots = _roots(number.repeat_interleave(len(every)), torch.stack(every, 1).reshape(-1), pairs.values, share.total)
    first = core & (roots == torch.arange(share.total, device=row.device))  # a cluster's first core point
    number = first.cumsum(0) - 1
    core_label = torch.where(core, number[roots.long()], -1)  # [N]
    start = torch.zeros(share.total + 1, dtype=torch.int64, device=row.device)
    start[share.first : share.last + 1] = pairs.indptr
    start[share.last + 1 :] = pairs.indptr[-1]
    found = torch.ops.gcl_fast.dbscan_labels(start, pairs.indices, pairs.values, eps, core_label)
    return share.gather(found[share.first : share.last])


def _roots(row: Tensor, column: Tensor, like: Tensor, total: int) -> Tensor:
    """The smallest member [N] int32 of the part of the graph that each row is in; edges with rows ascending."""
    start, _ = _jaccard.starts_of(torch.bincount(row, minlength=total))
    zeros = like.new_zeros(len(column))
    roots: Tensor = torch.ops.gcl_fast.dbscan_roots(start, column.int().contiguous(), zeros, 0.5, 1)
    return roots
