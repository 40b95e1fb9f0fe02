"""k-reciprocal sets and their overlaps on compressed rows, in NumPy: shared by the Jaccard distance and re-ranking.

A `Rows` holds one short list per image. Work goes in runs of rows that fit a fixed scratch size, so memory stays
proportional to what is stored and never to N x N. All sums run in one fixed order: results are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

SCRATCH = 1 << 21  # entries of dense scratch, and of expanded pairs, that are alive at once


class Rows(NamedTuple):
    """Row i holds columns[start[i]:start[i + 1]], ascending, with values beside them where there are any."""

    start: np.ndarray  # [N + 1] int64
    columns: np.ndarray  # [nnz] int64
    values: np.ndarray | None = None  # [nnz]

    def owners(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))  # [nnz]


def expanded_sets(rank: np.ndarray, k1: int) -> Rows:
    """R*(i) of every row of rank [N, k], the nearest first: R(i, k1) and what its close members add (half of k1)."""
    total = len(rank)
    near = _reciprocal(rank[:, : k1 + 1])
    close = _reciprocal(rank[:, : int(np.around(k1 / 2)) + 1])
    owner, size = near.owners(), np.diff(close.start)
    cost = np.bincount(owner, weights=size[near.columns], minlength=total)
    counts, columns = np.zeros(total, dtype=np.int64), [np.zeros(0, dtype=np.int64)]
    for first, last in _runs(cost, total):
        member = np.zeros((last - first) * total, dtype=bool)
        part = slice(near.start[first], near.start[last])
        candidate, base = near.columns[part], (owner[part] - first) * total  # one entry per (row, candidate)
        keys = base + candidate
        member[keys] = True
        pair = np.repeat(np.arange(len(candidate)), size[candidate])
        offered = base[pair] + close.columns[_ranges(close.start[candidate], size[candidate])]
        inside = member[offered]
        overlap = np.bincount(pair[inside], minlength=len(candidate))
        accepted = 3 * overlap > 2 * size[candidate]
        keys = np.concatenate([keys, np.unique(offered[accepted[pair] & ~inside])])
        keys.sort()
        columns.append(keys % total)
        counts[first:last] = np.bincount(keys // total, minlength=last - first)
    return Rows(_starts(counts), np.concatenate(columns))


def softmax_rows(rows: Rows, logits: np.ndarray) -> Rows:
    """The same lists with softmax(logits) [nnz] along each row as values, in the dtype of logits."""
    owner, total = rows.owners(), len(rows.start) - 1
    top = np.full(total, -np.inf, dtype=logits.dtype)
    np.maximum.at(top, owner, logits)
    weight = np.exp(logits - top[owner])
    return rows._replace(values=(weight / np.bincount(owner, weights=weight, minlength=total)[owner]).astype(logits.dtype))


def mean_rows(rows: Rows, groups: np.ndarray) -> Rows:
    """Row i of the result = mean of the rows groups[i] of a sparse matrix; groups [N, k2]."""
    total, size = len(groups), np.diff(rows.start)
    cost = size[groups].sum(axis=1)

    def terms(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        members = groups[first:last].ravel()
        entry = _ranges(rows.start[members], size[members])
        base = np.repeat(np.arange(last - first) * total, cost[first:last])
        return base + rows.columns[entry], rows.values[entry]

    summed = _summed(terms, cost, total)
    return summed._replace(values=(summed.values / max(groups.shape[1], 1)).astype(rows.values.dtype))


def overlaps(rows: Rows, num_rows: int) -> Rows:
    """m(i, j) = sum over n of min(V[i, n], V[j, n]) for i < num_rows and every j with a common column, in float64."""
    total = len(rows.start) - 1
    order = np.argsort(rows.columns, kind="stable")
    holder, held = rows.owners()[order], rows.values[order]  # the lists turned over: who holds column n, and how much
    size = np.bincount(rows.columns, minlength=total)
    begin = _starts(size)
    cost = np.bincount(rows.owners(), weights=size[rows.columns], minlength=total).astype(np.int64)[:num_rows]

    def terms(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(rows.start[first], rows.start[last])
        column, value = rows.columns[part], rows.values[part]
        entry = _ranges(begin[column], size[column])
        base = np.repeat(np.arange(last - first) * total, cost[first:last])
        return base + holder[entry], np.minimum(np.repeat(value, size[column]), held[entry])

    return _summed(terms, cost, total)


def _reciprocal(rank: np.ndarray) -> Rows:
    """R(i, k) for rank [N, columns in use]: the entries j of row i whose own row holds i."""
    total = len(rank)
    row = np.repeat(np.arange(total), rank.shape[1])
    there, back = row * total + rank.ravel(), rank.ravel() * total + row
    keys = np.sort(there[np.isin(there, back)])
    return Rows(_starts(np.bincount(keys // max(total, 1), minlength=total)), keys % max(total, 1))


def _summed(terms: Callable[[int, int], tuple[np.ndarray, np.ndarray]], cost: np.ndarray, total: int) -> Rows:
    """Adds up terms(first, last) -> (key = (row - first) * total + column, value) into rows; only sums above 0 stay."""
    counts = np.zeros(len(cost), dtype=np.int64)
    columns, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for first, last in _runs(cost, total):
        key, value = terms(first, last)
        dense = np.bincount(key, weights=value, minlength=(last - first) * total)
        found = np.flatnonzero(dense)
        columns.append(found % total)
        values.append(dense[found])
        counts[first:last] = np.bincount(found // total, minlength=last - first)
    return Rows(_starts(counts), np.concatenate(columns), np.concatenate(values))


def _runs(cost: np.ndarray, total: int) -> Iterator[tuple[int, int]]:
    """Cuts the rows into runs [first, last) whose dense scratch (rows x total) and summed cost fit SCRATCH."""
    ends, first = np.cumsum(cost), 0
    longest = max(1, SCRATCH // max(total, 1))
    while first < len(cost):
        spent = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, spent + SCRATCH, side="right"))
        last = min(max(last, first + 1), first + longest, len(cost))
        yield first, last
        first = last


def _ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ... in one array."""
    ends = np.cumsum(count)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - count), count)


def _starts(count: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
