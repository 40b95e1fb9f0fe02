"""Neighbours, k-reciprocal Jaccard distance and DBSCAN in plain loops: what the public ops must agree with.

Everything is computed in float64, one row at a time; a graph of N points costs O(N^2) memory here, so keep N small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class SparseDistance:
    """A symmetric distance matrix in compressed rows: row i holds indices[indptr[i]:indptr[i+1]], ascending.

    indptr   [N + 1] int64
    indices  [nnz] int64, column numbers; the diagonal is stored (0)
    values   [nnz] float32 or float64, distances; a pair that is not stored is 1.0 apart (0.0 from itself)
    shape    (N, N)
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    shape: tuple[int, int]

    def rows(self) -> Tensor:
        """[nnz] int64, the row of each stored entry."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff())

    def to_dense(self) -> Tensor:
        """[N, N], dtype and device of values."""
        dense = torch.ones(self.shape, dtype=self.values.dtype, device=self.values.device)
        dense.fill_diagonal_(0.0)
        dense[self.rows(), self.indices] = self.values
        return dense

    def to_scipy(self) -> Any:
        """scipy.sparse.csr_matrix of the stored entries, zeros included; SciPy reads what is not stored as 0, not as 1."""
        try:
            from scipy.sparse import csr_matrix
        except ImportError as error:
            raise ImportError("SparseDistance.to_scipy needs SciPy: pip install scipy") from error
        parts = (self.values, self.indices, self.indptr)
        return csr_matrix(tuple(p.detach().cpu().numpy() for p in parts), shape=self.shape)


def knn(x: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The k rows most similar to each row by cosine, itself first, ties by the lower index.

    x [N, D] -> similarity [N, k] dtype of x (float32 at least), index [N, k] int64. backend is ignored.
    """
    del backend
    rows = _normalised(x)  # [N, D]
    similarity = np.zeros((len(rows), k))
    index = np.zeros((len(rows), k), dtype=np.int64)
    for i, row in enumerate(rows):
        against = (rows * row).sum(axis=1)  # [N]; summed in one order, so that equal rows are exactly equally similar
        rank = against.copy()
        rank[i] = np.inf
        index[i] = np.argsort(-rank, kind="stable")[:k]
        similarity[i] = against[index[i]]
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.from_numpy(similarity).to(x.device, dtype), torch.from_numpy(index).to(x.device)


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6, *, features: Tensor | None = None) -> SparseDistance:
    """Jaccard distance of k-reciprocal neighbour sets (Zhong et al., CVPR 2017, as clustering-based ReID uses it).

    x [N, D] floating: features, normalised inside; or x [N, k] integer: neighbours, itself first, whose members are
    weighted by softmax(2 features_i . features_j), or equally where features is None.
    """
    if x.is_floating_point():
        vectors = _normalised(x)  # [N, D]
        index = knn(x, min(k1, len(x)))[1].cpu().numpy()
        dtype, device = torch.promote_types(x.dtype, torch.float32), x.device
    else:
        vectors = None if features is None else features.detach().cpu().double().numpy()
        index = x.cpu().numpy()[:, :k1]
        dtype, device = torch.float32 if features is None else torch.promote_types(features.dtype, torch.float32), x.device
    total, half = len(index), int(np.around(k1 / 2))

    weight = np.zeros((total, total))  # V: row i spreads a sum of 1 over its expanded set
    for i in range(total):
        members = np.array(sorted(expanded_set(index, i, k1, half)))
        logit = np.zeros(len(members)) if vectors is None else -(2 - 2 * vectors[members] @ vectors[i])
        softmax = np.exp(logit - logit.max())
        weight[i, members] = softmax / softmax.sum()
    if k2 != 1:
        weight = np.stack([weight[index[i, :k2]].mean(axis=0) for i in range(total)]) if total else weight

    shared = np.zeros((total, total))  # m
    for i in range(total):
        shared[i] = np.minimum(weight[i], weight).sum(axis=1)
    distance = np.maximum(1 - shared / (2 - shared), 0)
    np.fill_diagonal(distance, 0)
    stored = (shared > 0) | np.eye(total, dtype=bool)
    row, column = np.nonzero(stored)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=total))])
    parts = torch.from_numpy(indptr), torch.from_numpy(column), torch.from_numpy(distance[row, column]).to(dtype)
    return SparseDistance(*(p.to(device) for p in parts), shape=(total, total))


def reciprocal_set(index: np.ndarray, i: int, k: int) -> set[int]:
    """R(i, k): those among i's first k + 1 neighbours that have i among their own first k + 1."""
    return {int(j) for j in index[i, : k + 1] if i in index[j, : k + 1]}


def expanded_set(index: np.ndarray, i: int, k1: int, half: int) -> set[int]:
    """R*(i): R(i, k1) with R(c, half) of every member c that shares more than two thirds of it."""
    core = reciprocal_set(index, i, k1)
    expanded = set(core)
    for candidate in core:
        theirs = reciprocal_set(index, candidate, half)
        if 3 * len(theirs & core) > 2 * len(theirs):
            expanded |= theirs
    return expanded


def dbscan(distance: SparseDistance, eps: float, min_samples: int) -> Tensor:
    """Labels [N] int64 of Ester et al., KDD 1996, numbered as scikit-learn does; -1 = outlier.

    A point is core when min_samples points, itself counted, lie within eps. Clusters are numbered by their first core
    point; a border point belongs to the first cluster that reaches it. eps is rounded to the dtype of the distances.
    """
    dense = distance.to_dense().cpu().numpy()
    near = dense <= dense.dtype.type(eps)  # [N, N]
    core = near.sum(axis=1) >= min_samples
    labels = np.full(len(near), -1, dtype=np.int64)
    number = 0
    for seed in range(len(near)):
        if labels[seed] != -1 or not core[seed]:
            continue
        labels[seed] = number
        waiting = [seed]
        while waiting:
            point = waiting.pop()
            if not core[point]:
                continue
            for neighbour in np.flatnonzero(near[point]):
                if labels[neighbour] == -1:
                    labels[neighbour] = number
                    waiting.append(neighbour)
        number += 1
    return torch.from_numpy(labels).to(distance.indptr.device)


def _normalised(x: Tensor) -> np.ndarray:
    rows = x.detach().cpu().double().numpy()
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
