"""The k-reciprocal Jaccard distance as a chain of native ops on compressed rows.

Where a size depends on the data, one op counts, the total is read on the host, the next op fills: three reads or more in all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gcl_fast import _native

ROOM = {"cpu": 1 << 24, "cuda": 1 << 26}  # entries for which a block of rows gets room
ALL = 2.0  # a distance that none exceeds
SAMPLE = 512  # rows that tell how far the nearest pairs reach


class Rows(NamedTuple):
    """A sparse N x N matrix in compressed rows."""

    start: Tensor
    """[N + 1] int64"""
    columns: Tensor
    """[nnz] int32, ascending in each row"""
    values: Tensor
    """[nnz]"""


class Overlapping(NamedTuple):
    """Rows whose overlaps are asked for, and the same by columns."""

    rows: Rows
    holders: Rows


class Distances(NamedTuple):
    """Pairs in compressed rows."""

    indptr: Tensor
    """[n + 1] int64"""
    indices: Tensor
    """[nnz] int32, ascending in each row"""
    values: Tensor
    """[nnz]"""


def neighbour_sets(rank: Tensor, similarity: Tensor | None, features: Tensor | None, k1: int, k2: int) -> Overlapping:
    """V of neighbours [N, K <= k1], itself first.

    similarity  [N, K] features_i . features_rank, or None: computed from features
    features    [N, D] or None: the members of a set weigh the same
    """
    ops = torch.ops.gcl_fast
    rank = rank.int().contiguous()
    none = torch.zeros(0, dtype=torch.float32 if features is None else features.dtype, device=rank.device)
    sets = ops.reciprocal_sets(rank, half_width(k1, rank))
    accepted, count = ops.expansion_count(*sets)
    start, total = starts_of(count)
    known, vectors = none if similarity is None else similarity, none if features is None else features
    rows = Rows(start, *ops.expansion_weights(*sets, accepted, rank, known, vectors, start, total))
    if k2 != 1 and len(rank):
        rows = averaged(rows, rank, k2)
    return Overlapping(rows, transposed(rows))


def half_width(k1: int, rank: Tensor) -> int:
    """Columns of rank that the smaller sets look at."""
    return min(int(np.around(k1 / 2)) + 1, rank.shape[1])


def averaged(rows: Rows, rank: Tensor, k2: int) -> Rows:
    """For each row of rank [n, K]: the mean of the rows that its first k2 columns name."""
    group = min(k2, rank.shape[1])
    start, total = starts_of(torch.ops.gcl_fast.mean_rows_count(*rows, rank, group))
    return Rows(start, *torch.ops.gcl_fast.mean_rows(*rows, rank, group, start, total))


def distances(sets: Overlapping, max_distance: float = ALL, first: int = 0, last: int | None = None, step: int = 1) -> Distances:
    """Of rows first, first + step ... below last (all): the pairs within max_distance.

    Of all rows, on the CPU, each pair is summed once: the same terms in the same order, whichever of the two is the row.
    """
    total = len(sets.rows.start) - 1
    last = total if last is None else last
    if sets.rows.start.device.type != "cpu" or (first, last, step) != (0, total, 1):
        return _in_blocks(torch.ops.gcl_fast.overlap_rows, sets, max_distance, first, last, step)
    upper = _in_blocks(torch.ops.gcl_fast.overlap_upper_rows, sets, max_distance, first, last, step)
    indptr, entries = starts_of(torch.ops.gcl_fast.mirrored_count(*upper))
    return Distances(indptr, *torch.ops.gcl_fast.mirrored_rows(*upper, indptr, entries))


def _in_blocks(
    overlaps: Callable[..., tuple[Tensor, Tensor, Tensor]],
    sets: Overlapping,
    max_distance: float,
    first: int,
    last: int,
    step: int,
) -> Distances:
    """Rows taken in blocks, each written into room that is surely enough and then packed."""
    room = torch.ops.gcl_fast.overlap_room(*sets.rows, sets.holders.start, first, last, step, max_distance)
    begins, total = starts_of(room)
    blocks = _blocks(begins, total, ROOM.get(room.device.type, ROOM["cuda"]))
    packed, counts = [], []
    for begin, end in blocks:
        if len(blocks) == 1:
            starts, size = begins, total
        else:
            starts = begins[begin : end + 1] - begins[begin]
            size = int(starts[-1])
        span = first + begin * step, min(first + end * step, last), step
        count, indices, values = overlaps(*sets.rows, *sets.holders, *span, max_distance, starts, size)
        packed.append(_packed(starts, count, indices, values))
        counts.append(count)
    if len(packed) == 1:
        return packed[0]
    indptr, total = starts_of(torch.cat(counts) if counts else room)
    return Distances(indptr, *_joined(packed, total, sets.rows.values))


def _blocks(begins: Tensor, total: int, most: int) -> list[tuple[int, int]]:
    """Runs of rows that have `most` room together, or little more; rows have room from begins[r] to begins[r + 1], `total` in
    all."""
    rows = len(begins) - 1
    if rows == 0:
        return []
    if total <= most:
        return [(0, rows)]
    cuts = torch.arange(most, total, most, device=begins.device)
    cuts = torch.unique(torch.searchsorted(begins[1:], cuts, right=True))
    edges = [0, *(cut for cut in cuts.tolist() if 0 < cut < rows), rows]
    return list(itertools.pairwise(edges))


def _packed(starts: Tensor, count: Tensor, indices: Tensor, values: Tensor) -> Distances:
    """The first count[r] entries from starts[r] on, row after row."""
    indptr, total = starts_of(count)
    kept = torch.repeat_interleave(starts[:-1] - indptr[:-1], count, output_size=total)
    kept += torch.arange(total, device=kept.device)
    return Distances(indptr, indices[kept], values[kept])


def _joined(parts: list[Distances], total: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The parts in one; each is freed as soon as it is copied, so that no second copy of all is held."""
    indices, values = (
        torch.empty(total, dtype=torch.int32, device=like.device),
        torch.empty(total, dtype=like.dtype, device=like.device),
    )
    at = 0
    parts.reverse()
    while parts:
        _, some, theirs = parts.pop()
        indices[at : at + len(some)], values[at : at + len(some)] = some, theirs
        at += len(some)
    return indices, values


def nearest_distances(
    sets: Overlapping,
    share: float,
    first: int = 0,
    last: int | None = None,
    add_up: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> tuple[Distances, float]:
    """Of rows `first` to `last` (all): every pair up to a distance within which the smallest `share` of the non-zero distances of
    unordered pairs lies, and few others; and that distance.

    A sample of rows says how far that share reaches, with a tenth to spare; where it was too little, farther and farther.

    Arguments:
        add_up: adds up what processes that have different rows counted.
    """
    total = len(sets.rows.start) - 1
    sample = distances(sets, step=max(1, total // SAMPLE))
    near = sample.values[sample.values > 0].sort().values  # of ordered pairs
    wanted = int(1.1 * share * (len(sample.indptr) - 1) * (total - 1)) + SAMPLE
    reach = float(near[wanted]) if wanted < len(near) else ALL
    while True:
        found = distances(sets, reach, first, last)
        counts = add_up(torch.tensor([len(found.values), int((found.values == 0).sum())], device="cpu"))
        entries, zeros = (int(n) for n in counts)  # each pair twice; the zeros have the diagonal
        pairs = total * (total - 1) // 2 - (zeros - total) // 2
        if reach >= 1 or entries - zeros >= 2 * int(np.around(share * pairs)):
            return found, reach
        reach += max(0.25 * (1 - reach), 0.01)


def starts_of(count: Tensor) -> tuple[Tensor, int]:
    start = torch.zeros(len(count) + 1, dtype=torch.int64, device=count.device)
    torch.cumsum(count, 0, out=start[1:])
    return start, int(start[-1])


def transposed(rows: Rows) -> Rows:
    """The matrix by columns: who holds column n, ascending, and how much."""
    start, columns, values = rows
    if columns.device.type == "cpu":
        return Rows(*torch.ops.gcl_fast.transpose_rows(start, columns, values))
    total = len(start) - 1
    owner = torch.repeat_interleave(torch.arange(total, device=start.device), start.diff(), output_size=len(columns))
    column, order = torch.sort(columns, stable=True)
    every = torch.arange(total + 1, dtype=columns.dtype, device=start.device)
    return Rows(torch.searchsorted(column, every), owner[order].int(), values[order])


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
    finished: bool = True,
) -> tuple[Tensor, Tensor]:
    return near.new_empty(total), similarity.new_empty(total)


def _fake_products(left: Tensor, right: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return left.new_empty(row.shape[0])


def _fake_softmax(start: Tensor, values: Tensor) -> None:
    return None


def _fake_count(start: Tensor, columns: Tensor, values: Tensor, rank: Tensor, group: int) -> Tensor:
    return start.new_empty(rank.shape[0])


def _fake_mean(
    start: Tensor, columns: Tensor, values: Tensor, rank: Tensor, group: int, out_start: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    return columns.new_empty(total), values.new_empty(total)


def _fake_transpose(start: Tensor, columns: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(start), torch.empty_like(columns), torch.empty_like(values)


def _fake_room(
    start: Tensor, columns: Tensor, values: Tensor, holder_start: Tensor, first: int, last: int, step: int, max_distance: float
) -> Tensor:
    return start.new_empty((last - first + step - 1) // step)


def _fake_overlap(
    start: Tensor,
    columns: Tensor,
    values: Tensor,
    holder_start: Tensor,
    holder_rows: Tensor,
    holder_values: Tensor,
    first: int,
    last: int,
    step: int,
    max_distance: float,
    room: Tensor,
    total: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return start.new_empty((last - first + step - 1) // step), columns.new_empty(total), values.new_empty(total)


def _fake_mirrored_count(start: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    return start.new_empty(start.shape[0] - 1)


def _fake_mirrored(start: Tensor, columns: Tensor, values: Tensor, out_start: Tensor, total: int) -> tuple[Tensor, Tensor]:
    return columns.new_empty(total), values.new_empty(total)


FAKES: dict[str, Callable[..., Tensor | tuple[Tensor, ...] | None]] = {
    "reciprocal_sets": _fake_sets,
    "expansion_count": _fake_expansion_count,
    "expansion_weights": _fake_weights,
    "row_products": _fake_products,
    "softmax_rows_": _fake_softmax,
    "mean_rows_count": _fake_count,
    "mean_rows": _fake_mean,
    "transpose_rows": _fake_transpose,
    "overlap_room": _fake_room,
    "overlap_rows": _fake_overlap,
    "overlap_upper_rows": _fake_overlap,
    "mirrored_count": _fake_mirrored_count,
    "mirrored_rows": _fake_mirrored,
}
if _native.loaded:
    for _name, _fake in FAKES.items():
        torch.library.register_fake(f"gcl_fast::{_name}", _fake)
