"""Nearest neighbours, k-reciprocal Jaccard distance and DBSCAN, without ever holding an N x N matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast.reference.neighbors import SparseDistance

from ._check import ANY_FLOATS, INTEGERS, Shapes
from ._sparse import expanded_sets, mean_rows, overlaps, softmax_rows

__all__ = ["SparseDistance", "dbscan", "jaccard_distance", "knn"]

BLOCK = 1 << 24  # similarities alive at once
CLOSE = 4e-7  # cosines nearer than this may swap places by rounding


def knn(x: Tensor, k: int, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The k rows most similar to each row by cosine, itself first.

    x        [N, D] float16, bfloat16, float32 or float64, finite; rows are L2-normalised inside (a zero row stays zero)
    k        1 to N
    backend  "torch": blocked products and top-k on the device of x; "faiss": IndexFlatIP on CPU, rows whose order hangs
             on rounding are decided as in "torch"; "auto": "torch"

    Returns similarity [N, k] (float32, or float64 for float64 x) in descending order after the first column, which is
    the row itself, also where other rows equal it, and index [N, k] int64. Ties go to the lower index; rows of x that
    are exactly equal always tie. Not differentiable. Deterministic; CPU and CUDA agree up to the rounding of the
    products (float32: keep TF32 off). Memory O(N k) and one block of similarities. Reads x for NaN: synchronises.
    """
    shapes = Shapes("knn")
    shapes.tensor("x", x, ("N", "D"), ANY_FLOATS)
    k = integer("knn", "k", k, 1)
    if backend not in ("auto", "torch", "faiss"):
        raise ValueError(f'knn: backend must be "auto", "torch" or "faiss", got {backend!r}')
    total = shapes["N"]
    rows = normalised("knn", "x", x)
    if total == 0:
        return rows.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=x.device)
    if k > total:
        raise ValueError(f"knn: k must be at most N={total}, got {k}")
    if backend == "faiss":
        return _knn_faiss(rows, k)
    return _knn_torch(rows, k, torch.arange(total, device=x.device))


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6, *, features: Tensor | None = None) -> SparseDistance:
    """Jaccard distance of k-reciprocal neighbour sets: Zhong et al., CVPR 2017, in the form ReID clusters with.

    x         [N, D] floating: features, L2-normalised inside; or
              [N, k] int32 or int64: each row's neighbours, nearest first, itself in column 0 (k >= min(k1, N); only the
              first k1 columns are used), as from `knn` or any other index
    k1        neighbours that sets are made of (capped at N)
    k2        rows averaged around each (1: none)
    features  [N, D], only with neighbours for x: members of a set are weighted by softmax(2 features_i . features_j),
              used as they are. Without it the members of a set weigh the same.

    With R(i, k) = those j among i's first k + 1 neighbours (of k1 there are) that have i among theirs,
    R*(i) = R(i, k1) with every R(c, round-half-even(k1 / 2)) of a c in R(i, k1) that shares more than two thirds of it,
    V[i] = softmax over R*(i), averaged over the first k2 neighbours, and m = sum_n min(V[i, n], V[j, n]):
    d(i, j) = 1 - m / (2 - m), in [0, 1], symmetric, d(i, i) = 0.

    Returns a `SparseDistance` on the device of x, float32 (float64 for float64 features). Not differentiable.
    Deterministic. Computed on the CPU after the neighbours; memory is proportional to the pairs stored.
    """
    shapes = Shapes("jaccard_distance")
    k1, k2 = integer("jaccard_distance", "k1", k1, 1), integer("jaccard_distance", "k2", k2, 1)
    if isinstance(x, Tensor) and not x.is_floating_point():
        shapes.tensor("x", x, ("N", "k"), INTEGERS)
        if features is not None:
            shapes.tensor("features", features, ("N", "D"), ANY_FLOATS, device_of=("x", x))
            features = _finite("jaccard_distance", "features", features)
        rank = _neighbours(x, min(k1, shapes["N"]))
    else:
        shapes.tensor("x", x, ("N", "D"), ANY_FLOATS)
        if features is not None:
            raise ValueError("jaccard_distance: features must be None when x is features itself, got a tensor")
        features = normalised("jaccard_distance", "x", x)
        rank = knn(features, min(k1, len(x)))[1].cpu().numpy() if len(x) else np.zeros((0, k1), dtype=np.int64)

    sets = expanded_sets(rank, k1)
    logits = np.zeros(len(sets.columns), dtype=np.float32)
    if features is not None:
        logits = (2 * _products(features, sets.owners(), sets.columns) - 2).cpu().numpy()  # [nnz]
    weight = softmax_rows(sets, logits)
    if k2 != 1:
        weight = mean_rows(weight, rank[:, :k2])
    shared = overlaps(weight, len(rank))
    distance = np.maximum(1 - shared.values / (2 - shared.values), 0)  # [nnz]
    distance[shared.owners() == shared.columns] = 0
    parts = shared.start, shared.columns, distance.astype(logits.dtype)
    return SparseDistance(*(torch.from_numpy(p).to(x.device) for p in parts), shape=(len(rank), len(rank)))


def dbscan(distance: SparseDistance, eps: float, min_samples: int) -> Tensor:
    """Density-based clusters (Ester et al., KDD 1996): the labels scikit-learn gives on `distance.to_dense()`.

    distance     values in [0, 1]; pairs not stored are 1.0 apart
    eps          two points are neighbours when their distance is at most eps (rounded to the dtype of the distances)
    min_samples  a point is core when at least so many points, itself counted, are its neighbours

    Returns labels [N] int64 on the device of distance: -1 outlier, clusters numbered from 0 by their first core point;
    a border point goes to the first cluster that reaches it. Not differentiable. Deterministic. Computed on the CPU.
    """
    if not isinstance(distance, SparseDistance):
        raise TypeError(f"dbscan: distance must be a SparseDistance, got {type(distance).__name__}")
    eps = float(Shapes("dbscan").number("eps", eps, 0.0, open_low=True))
    min_samples = integer("dbscan", "min_samples", min_samples, 1)
    total = distance.shape[0]
    columns, values, owner = (t.cpu().numpy() for t in (distance.indices, distance.values, distance.rows()))
    if not ((values >= 0) & (values <= 1)).all():  # NaN too
        raise ValueError("dbscan: distance must hold values from 0 to 1, as pairs not stored are 1 apart, got others")
    if values.dtype.type(eps) >= 1:  # every pair is within eps
        return torch.full((total,), 0 if total >= min_samples else -1, dtype=torch.int64, device=distance.indptr.device)
    near = values <= values.dtype.type(eps)
    itself = np.ones(total, dtype=bool)  # 0 from itself, unless something else is stored
    itself[owner[(owner == columns) & ~near]] = False
    near &= owner != columns
    columns, count = columns[near], np.bincount(owner[near], minlength=total)
    core = count + itself >= min_samples
    start = np.concatenate([[0], np.cumsum(count)])
    labels = _flood(start, columns, core)
    return torch.from_numpy(labels).to(distance.indptr.device)


def _flood(start: np.ndarray, columns: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Spreads a new label from each core point that has none, in order; only core points pass it on."""
    labels, number = np.full(len(core), -1, dtype=np.int64), 0
    for seed in np.flatnonzero(core):
        if labels[seed] >= 0:
            continue
        labels[seed] = number
        waiting = [seed]
        while waiting:
            point = waiting.pop()
            row = columns[start[point] : start[point + 1]]
            fresh = row[labels[row] < 0]
            labels[fresh] = number
            waiting.extend(fresh[core[fresh]])
        number += 1
    return labels


def normalised(op: str, name: str, x: Tensor) -> Tensor:
    """Rows of unit length, float32 at least, contiguous, outside autograd."""
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)  # [N, 1]
    if not bool(torch.isfinite(length).all()):
        _finite(op, name, x)  # names what is wrong, or the squares alone were too large
    return (x / length.clamp_min(1e-12)).contiguous()


def _finite(op: str, name: str, x: Tensor) -> Tensor:
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{op}: {name} must be finite, got NaN or infinity in {int((~torch.isfinite(x)).any(dim=1).sum())} rows")
    return x


def integer(op: str, name: str, value: int, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{op}: {name} must be an integer, got {type(value).__name__}")
    if value < low:
        raise ValueError(f"{op}: {name} must be at least {low}, got {value}")
    return int(value)


def _neighbours(index: Tensor, k: int) -> np.ndarray:
    """The first k columns of a user's neighbours, checked."""
    op, rank = "jaccard_distance", index.cpu().numpy().astype(np.int64)
    total = len(rank)
    if rank.shape[1] < k:
        raise ValueError(f"{op}: x must have at least min(k1, N)={k} neighbours a row, got {rank.shape[1]}")
    rank = np.ascontiguousarray(rank[:, :k])
    if total == 0:
        return rank
    if rank.min() < 0 or rank.max() >= total:
        raise ValueError(f"{op}: x must hold row numbers from 0 to {total - 1}, got {rank.min()} to {rank.max()}")
    wrong = np.flatnonzero(rank[:, 0] != np.arange(total))
    if len(wrong):
        raise ValueError(f"{op}: x must have each row itself in column 0, got {rank[wrong[0], 0]} in row {wrong[0]}")
    ordered = np.sort(rank, axis=1)
    twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(twice):
        raise ValueError(f"{op}: x must name each neighbour once a row, got a repeated one in row {twice[0]}")
    return rank


def _products(x: Tensor, row: np.ndarray, column: np.ndarray) -> Tensor:
    """x[row] . x[column] for many pairs [nnz], each unordered pair multiplied once."""
    pair, back = np.unique(np.minimum(row, column) * len(x) + np.maximum(row, column), return_inverse=True)
    left, right = (torch.from_numpy(a).to(x.device) for a in (pair // max(len(x), 1), pair % max(len(x), 1)))
    result = x.new_empty(len(pair))
    step = max(1, (1 << 22) // max(x.shape[1], 1))
    for first in range(0, len(pair), step):
        part = slice(first, first + step)
        result[part] = (x[left[part]] * x[right[part]]).sum(dim=1)
    return result[torch.from_numpy(back).to(x.device)]


def nearest_by_distance(x: Tensor, k: int) -> Tensor:
    """The k rows nearest to each row of x [N, D] by Euclidean distance, itself first, ties by the lower index: [N, k]."""
    if len(x) == 0:
        return torch.zeros(0, k, dtype=torch.int64, device=x.device)
    return _knn_torch(x, k, torch.arange(len(x), device=x.device), 0.5 * x.square().sum(dim=1))[1]


def _knn_torch(x: Tensor, k: int, which: Tensor, penalty: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of x with the largest product (less their penalty [N]) for each of the rows `which` [n]."""
    copies, originals = _duplicates(x)
    similarity, index = x.new_empty(len(which), k), torch.empty(len(which), k, dtype=torch.int64, device=x.device)
    step = max(1, BLOCK // len(x))
    for first in range(0, len(which), step):
        own = which[first : first + step]
        with torch.autocast(x.device.type, enabled=False):
            block = x[own] @ x.T  # [b, N]
        if penalty is not None:
            block -= penalty
        block[:, copies] = block[:, originals]  # a product may round equal columns differently
        similarity[first : first + step], index[first : first + step] = _first_k(block, own, k)
    return similarity, index


def _duplicates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that equal a row before them, and the first such row of each."""
    bits = x.contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int64)
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(x.device) * 2 + 1
    step = max(1, BLOCK // max(x.shape[1], 1))
    hashed = torch.cat([(bits[i : i + step].long() * odd).sum(dim=1) for i in range(0, len(x), step)])  # wraps around
    value, order = torch.sort(hashed, stable=True)
    new = torch.ones_like(value, dtype=torch.bool)
    new[1:] = value[1:] != value[:-1]
    first = order[new][new.cumsum(0) - 1]  # of each run of equal hashes, in sorted order
    copies, originals = order[~new], first[~new]
    same = (x[copies] == x[originals]).all(dim=1)
    return copies[same], originals[same]


def _first_k(block: Tensor, own: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of block [b, N], column own[i] first, then descending, ties by the lower column."""
    at = torch.arange(len(block), device=block.device)
    itself = block[at, own]
    block[at, own] = torch.inf
    value, index = block.topk(min(k + 1, block.shape[1]), dim=1)
    tied = (value[:, k:] == value[:, k - 1 : k]).any(dim=1).nonzero()[:, 0]  # which of them topk took was chance
    index, order = index[:, :k].sort(dim=1)
    value, order = value[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    for some in tied.split(max(1, len(block) // 16)):
        ordered, columns = block[some].sort(dim=1, descending=True, stable=True)
        value[some], index[some] = ordered[:, :k], columns[:, :k]
    value[:, 0] = itself
    return value, index


def _knn_faiss(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('knn: backend "faiss" needs faiss: pip install faiss-cpu (or faiss-gpu)') from error
    rows = x.float().cpu().numpy()
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    found, neighbours = flat.search(rows, min(k + 1, len(rows)))
    similarity, index = torch.from_numpy(found).to(x), torch.from_numpy(neighbours).to(x.device)
    unsure = ((similarity[:, :-1] - similarity[:, 1:]) <= CLOSE).any(dim=1)
    unsure |= index[:, 0] != torch.arange(len(x), device=x.device)
    again = unsure.nonzero()[:, 0]
    similarity, index = similarity[:, :k].contiguous(), index[:, :k].contiguous()
    if len(again):
        similarity[again], index[again] = _knn_torch(x, k, again)
    return similarity, index
