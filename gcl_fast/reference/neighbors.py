"""Neighbours, k-reciprocal Jaccard distance and DBSCAN in plain loops: what the public ops must agree with.

Everything is computed in float64, one row at a time; a graph of N points costs O(N^2) memory here, so keep N small.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast._op_types import Neighbors, SparseDistance


def knn(x: Tensor, k: int, *, backend: str = "auto") -> Neighbors:
    """See `gcl_fast.ops.knn`; backend is ignored."""
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
    return Neighbors(torch.from_numpy(similarity).to(x.device, dtype), torch.from_numpy(index).to(x.device))


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6, *, features: Tensor | None = None) -> SparseDistance:
    """See `gcl_fast.ops.jaccard_distance`."""
    vectors: np.ndarray | None = None
    if x.is_floating_point():
        vectors = _normalised(x)  # [N, D]
        index = knn(x, min(k1, len(x)))[1].cpu().numpy()
        dtype, device = torch.promote_types(x.dtype, torch.float32), x.device
    else:
        if features is not None:
            vectors = features.detach().cpu().double().numpy()
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
    values = torch.from_numpy(distance[row, column]).to(device, dtype)
    return SparseDistance(torch.from_numpy(indptr).to(device), torch.from_numpy(column).to(device), values, (total, total))


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
    """See `gcl_fast.ops.dbscan`."""
    dense = _dense(distance)  # [N, N]
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
            for neighbour in np.flatnonzero(near[point]).tolist():
                if labels[neighbour] == -1:
                    labels[neighbour] = number
                    waiting.append(neighbour)
        number += 1
    return torch.from_numpy(labels).to(distance.indptr.device)


def _dense(distance: SparseDistance) -> np.ndarray:
    indptr, indices, values = (part.cpu().numpy() for part in (distance.indptr, distance.indices, distance.values))
    dense = np.ones(distance.shape, dtype=values.dtype)
    for i in range(len(dense)):
        dense[i, i] = 0
        dense[i, indices[indptr[i] : indptr[i + 1]]] = values[indptr[i] : indptr[i + 1]]
    return dense


def _normalised(x: Tensor) -> np.ndarray:
    rows = x.detach().cpu().double().numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(length > 0, length, 1))
