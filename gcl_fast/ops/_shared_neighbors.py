"""Neighbours, Jaccard distance and DBSCAN by several processes, each of which has some rows: what is large stays shared.

A process holds its features (and, for a while, another's) and the pairs of its rows. All hold what is short for each row: its k
neighbours, their similarities, its weights before and after averaging; about 1.5 KB a row, whatever the features' width.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.ops import _jaccard
from gcl_fast.ops._knn import Copies, Lists, Products, repeated, row_hashes


class Share:
    """This process's rows among those of all.

    sizes   rows of every process
    first   number of this one's first row
    last    and of the one behind its last
    total   all rows
    """

    def __init__(self, rows: Tensor) -> None:
        self.rank, self.world = distributed.rank(), distributed.world()
        self.sizes = distributed.share_sizes(rows) if self.world > 1 else [len(rows)]
        self.starts = [0, *itertools.accumulate(self.sizes)]
        self.first, self.last = self.starts[self.rank], self.starts[self.rank + 1]
        self.total = self.starts[-1]

    def rounds(self, rows: Tensor, most: int) -> Iterator[tuple[int, Tensor]]:
        """The rows of the next process, of the one after it ... `most` of them: its rank and its rows."""
        for away in range(1, most + 1):
            to, source = (self.rank - away) % self.world, (self.rank + away) % self.world
            yield source, distributed.exchange(rows, to, source, self.sizes[source])


def unit_rows(own: Tensor) -> Tensor:
    """Rows of length 1, float32 at least. A length is summed up in one order, whatever rows stand beside it: rows that are equal
    on different processes stay so."""
    x = own.detach().to(torch.promote_types(own.dtype, torch.float32)).contiguous()
    number = torch.arange(len(x), device=x.device)
    length: Tensor = torch.ops.gcl_fast.row_products(x, x, number, number).sqrt()
    return x / length.clamp_min(1e-12)[:, None]


def nearest(own: Tensor, k: int, share: Share) -> Lists:
    """`_knn.nearest` of all rows for this process's, unit rows [n, D]: value, index [n, k], numbers among all.

    Each pair of rows is multiplied once, by one process. Rows go half the way round; the lists that others made for them come
    back. Where the two halves meet, each of two processes takes half of their pairs.

    Equal rows are told by 128 bits of hash, as no process has them all.
    """
    copies = _copies(own, share)
    products, lists = Products(own, copies), Lists.empty(len(own), k, own)
    with torch.no_grad(), torch.autocast(own.device.type, enabled=False):
        products.within(own, share.first, lists)
        for away, (source, rows) in enumerate(share.rounds(own, share.world // 2), start=1):
            found = Lists.empty(len(rows), k, own)
            mine, theirs = _part(share, source, len(own), len(rows), both=2 * away == share.world)
            taken = Lists(lists.value[mine], lists.index[mine]), Lists(found.value[theirs], found.index[theirs])
            begin = share.first + (mine.start or 0), share.starts[source] + (theirs.start or 0)
            products.between(own[mine], begin[0], taken[0], rows[theirs], begin[1], taken[1])
            back, maker = source, (share.rank - away) % share.world
            returned = (distributed.exchange(part, back, maker, len(own)) for part in found)
            lists = lists.merged(Lists(*returned))
    return lists


def _part(share: Share, other: int, mine: int, theirs: int, *, both: bool) -> tuple[slice, slice]:
    """Which of this process's rows meet which of the other's; `both`: the other has this one's rows too."""
    if not both:
        return slice(0, mine), slice(0, theirs)
    if share.rank < other:
        return slice(0, mine), slice(0, theirs // 2)
    return slice(mine // 2, mine), slice(0, theirs)


def _copies(own: Tensor, share: Share) -> Copies:
    numbers = [distributed.gather_uneven(row_hashes(own, seed)) for seed in (0, 1)]
    copies, originals = repeated(numbers[0])
    same = numbers[1][copies] == numbers[1][originals]
    return Copies(copies[same], originals[same], share.total)


def neighbour_sets(own: Tensor, k1: int, k2: int, share: Share) -> _jaccard.Overlapping:
    """`_jaccard.neighbour_sets` of all rows' features, the same on every process; own [n, D] are this one's unit rows."""
    ops = torch.ops.gcl_fast
    found = nearest(own, min(k1, share.total), share)
    similarity, rank = distributed.gather_uneven(found.value), distributed.gather_uneven(found.index.int())
    sets = ops.reciprocal_sets(rank, _jaccard.half_width(k1, rank))
    accepted, count = ops.expansion_count(*sets)
    start, total = _jaccard.starts_of(count)
    none = own.new_zeros(0)
    columns, values = ops.expansion_weights(*sets, accepted, rank, similarity, none, start, total, False)
    begin, end = (int(start[n]) for n in (share.first, share.last))
    mine = _weighted(own, start[share.first : share.last + 1] - begin, columns[begin:end], values[begin:end], share)
    rows = _jaccard.Rows(start, columns, distributed.gather_uneven(mine))
    if k2 != 1 and share.total:
        part = _jaccard.averaged(rows, rank[share.first : share.last].contiguous(), k2)
        start, _ = _jaccard.starts_of(distributed.gather_uneven(part.start.diff()))
        rows = _jaccard.Rows(start, *(distributed.gather_uneven(x) for x in (part.columns, part.values)))
    return _jaccard.Overlapping(rows, _jaccard.transposed(rows))


def _weighted(own: Tensor, start: Tensor, columns: Tensor, values: Tensor, share: Share) -> Tensor:
    """Weights [nnz] of this process's rows, from similarities that are NaN where the other row's features are wanted."""
    values, owner = values.clone(), torch.repeat_interleave(start.diff(), output_size=len(columns))  # [nnz] row of own
    unknown = torch.isnan(values).nonzero()[:, 0]
    for source, rows in itertools.chain([(share.rank, own)], share.rounds(own, share.world - 1)):
        theirs = columns[unknown] - share.starts[source]
        asked = unknown[(theirs >= 0) & (theirs < len(rows))]
        column = columns[asked].long() - share.starts[source]
        values[asked] = torch.ops.gcl_fast.row_products(own, rows, owner[asked], column)
    torch.ops.gcl_fast.softmax_rows_(start, values)
    return values


def own_pairs(sets: _jaccard.Overlapping, reach: float, share: Share) -> _jaccard.Distances:
    """The pairs of this process's rows with any, within reach."""
    return _jaccard.distances(sets, reach, share.first, share.last)


def labels(pairs: _jaccard.Distances, eps: float, min_samples: int, share: Share) -> Tensor:
    """`ops.dbscan`'s labels [N], the same on every process; pairs: of this process's rows, at least those within eps < 1."""
    own = torch.arange(share.first, share.last, device=pairs.indptr.device)
    row = torch.repeat_interleave(own, pairs.indptr.diff(), output_size=len(pairs.indices))
    near = pairs.values <= torch.tensor(eps, dtype=pairs.values.dtype)
    others = torch.zeros_like(own).index_add_(0, row - share.first, (near & (pairs.indices != row)).long())
    core = distributed.gather_uneven(others + 1 >= min_samples)  # [N]

    edge = near & core[row] & core[pairs.indices.long()]
    roots = _roots(row[edge], pairs.indices[edge], pairs.values, share.total)
    every = [roots] if share.world == 1 else distributed.gather_uneven(roots[None]).unbind()
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
    return distributed.gather_uneven(found[share.first : share.last])


def _roots(row: Tensor, column: Tensor, like: Tensor, total: int) -> Tensor:
    """The smallest member [N] int32 of the part of the graph that each row is in; edges with rows ascending."""
    start, _ = _jaccard.starts_of(torch.bincount(row, minlength=total))
    zeros = like.new_zeros(len(column))
    roots: Tensor = torch.ops.gcl_fast.dbscan_roots(start, column.int().contiguous(), zeros, 0.5, 1)
    return roots
