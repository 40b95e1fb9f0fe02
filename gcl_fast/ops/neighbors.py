"""Nearest neighbours, k-reciprocal Jaccard distance and DBSCAN, without ever holding an N x N matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast._op_types import IndexRangeError, Neighbors, SparseDistance
from gcl_fast.ops import _jaccard, _knn, _knn_halves
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes, check_index, integer
from gcl_fast.ops._rows import finite, normalised, widened

__all__ = ["SparseDistance", "dbscan", "jaccard_distance", "knn"]

NO_ROW, NOT_ITSELF, TWICE, NOT_FINITE = 1, 2, 4, 8  # what is wrong with given neighbours,
NO_DISTANCE, MALFORMED = 1, 2  # or with a graph: as csrc/neighbors/faults.h has them


def knn(x: Tensor, k: int, *, backend: str = "auto") -> Neighbors:
    """The k rows most similar to each row by cosine, itself first.

    Each pair is multiplied once, as a block of a symmetric product, and handed to the lists of both rows: memory O(N k) and one
    block. Waits for the GPU twice; some times more where rows are sought in float32, which looks for equal rows first.

    Deterministic; CPU and CUDA agree up to the rounding of float32's products, whatever the program allows for its own (TF32).

    Arguments:
        x: [N, D] float16, bfloat16, float32 or float64, finite; rows are L2-normalised inside (a zero row stays zero).
        k: 1 to N.
        backend: "torch": blocked products and top-k on the device of x; "faiss": IndexFlatIP on CPU, rows whose order hangs on
            rounding are decided as in "torch"; "auto": for k from 2 to 256, from 4,096 float32 rows on (on the CPU: of 2^21
            numbers, and where it multiplies bfloat16), candidates by half-precision products and their order by float32 ones,
            which is as exact (`_knn_halves` has the proof); else "torch".

    Returns:
        Neighbors(similarity [N, k], index [N, k] int64). Similarities are float32 (float64 for float64 x), in descending order
        after the first column, which is the row itself, also where other rows equal it. Ties go to the lower index; rows of x
        that are exactly equal always tie.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or range.
        MissingPackageError: backend "faiss" without faiss.
    """
    shapes = Shapes("knn")
    shapes.tensor("x", x, ("N", "D"), ANY_FLOATS)
    k = integer("knn", "k", k, 1)
    if backend not in ("auto", "torch", "faiss"):
        raise ValueError(f'knn: backend must be "auto", "torch" or "faiss", got {backend!r}')
    total = shapes["N"]
    rows = normalised("knn", "x", x)
    if total == 0:
        return Neighbors(rows.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=x.device))
    if k > total:
        raise ValueError(f"knn: k must be at most N={total}, got {k}")
    _native.require("knn", x.device)
    search: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
        "auto": _knn_halves.nearest_rows,
        "torch": _knn.nearest,
        "faiss": _knn.by_faiss,
    }
    return Neighbors(*search[backend](rows, k))


def jaccard_distance(
    x: Tensor, k1: int = 30, k2: int = 6, *, features: Tensor | None = None, max_distance: float | None = None
) -> SparseDistance:
    """Jaccard distance of k-reciprocal neighbour sets, in the form ReID clusters with.

    With R(i, k) = those j among i's first k + 1 neighbours (of k1 there are) that have i among theirs,
    `R*(i)` = R(i, k1) with every R(c, round-half-even(k1 / 2)) of a c in R(i, k1) that shares more than two thirds of it,
    V[i] = softmax over `R*(i)`, averaged over the first k2 neighbours, and m = sum_n min(V[i, n], V[j, n]):
    d(i, j) = 1 - m / (2 - m), in [0, 1], symmetric, d(i, i) = 0.

    Memory is proportional to the pairs stored, and to N (k1 and the sizes of the sets). With max_distance those are few: of
    50,000 images' pairs that share a neighbour 5% lie within 0.55. On CUDA the sizes of some results depend on the data: totals
    are read on the host, besides what `knn` reads, or the check of given neighbours.

    Deterministic: of given neighbours the same for any number of threads, of features but for what torch's products round
    differently then.

    Arguments:
        x: [N, D] float: features, L2-normalised inside; or [N, k] int32 or int64: each row's neighbours, nearest first, itself
            in column 0 (k >= min(k1, N); only the first k1 columns are used), as from `knn` or any other index.
        k1: neighbours that sets are made of (capped at N).
        k2: rows averaged around each (1: none).
        features: [N, D] float, only with neighbours for x: members of a set are weighted by softmax(2 features_i . features_j),
            used as they are; such products must be finite. Without it the members of a set weigh the same.
        max_distance: at least 0; pairs farther apart (rounded to the dtype of the distances) are not stored. None: all are.

    Returns:
        `SparseDistance` on the device of x, float32 (float64 for float64 features), int32 indices; stored are the pairs whose V
        share a column and that are not beyond max_distance. `dbscan` up to that radius gives the same labels with it and without.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or range, neighbours that repeat or do not begin with the row.
        IndexRangeError: a neighbour that is no row, on every device.

    Source:
        Zhong et al., CVPR 2017, section 3.
    """
    reach = _jaccard.ALL
    if max_distance is not None:
        reach = float(Shapes("jaccard_distance").number("max_distance", max_distance, 0.0))
    sets = _overlapping(x, k1, k2, features)
    return _sparse(_jaccard.distances(sets, reach), reach)


def jaccard_of_nearest(x: Tensor, k1: int, k2: int, share: float) -> SparseDistance:
    """`jaccard_distance` of features x, where at least the smallest `share` of the non-zero distances of unordered pairs is asked
    for: few others are stored."""
    return _sparse(*_jaccard.nearest_distances(_overlapping(x, k1, k2, None), share))


def _sparse(parts: _jaccard.Distances, reach: float) -> SparseDistance:
    total = len(parts.indptr) - 1
    return SparseDistance(*parts, shape=(total, total), max_distance=min(reach, 1.0))


def _overlapping(x: Tensor, k1: int, k2: int, features: Tensor | None) -> _jaccard.Overlapping:
    """What `jaccard_distance` compares, of its arguments, which are checked."""
    shapes = Shapes("jaccard_distance")
    k1, k2 = integer("jaccard_distance", "k1", k1, 1), integer("jaccard_distance", "k2", k2, 1)
    if isinstance(x, Tensor) and not x.is_floating_point():
        shapes.tensor("x", x, ("N", "k"), INTEGERS)
        if features is not None:
            shapes.tensor("features", features, ("N", "D"), ANY_FLOATS, device_of=("x", x))
            features = widened(features)
        _native.require("jaccard_distance", x.device)
        rank, similarity = _neighbours(x, min(k1, shapes["N"]), features), None
    else:
        shapes.tensor("x", x, ("N", "D"), ANY_FLOATS)
        if features is not None:
            raise ValueError("jaccard_distance: features must be None when x is features itself, got a tensor")
        features = normalised("jaccard_distance", "x", x)
        _native.require("jaccard_distance", x.device)
        none = None, torch.zeros(0, 0, dtype=torch.int64, device=x.device)
        similarity, rank = _knn_halves.nearest_rows(features, min(k1, len(x))) if len(x) else none
    _native.require("jaccard_distance", x.device)
    return _jaccard.neighbour_sets(rank, similarity, features, k1, k2)


def dbscan(distance: SparseDistance, eps: float, min_samples: int) -> Tensor:
    """Density-based clusters: the labels that scikit-learn gives on `distance.to_dense()`.

    Deterministic: the same for any number of threads. Waits for the GPU once, to see that distance is one.

    Arguments:
        distance: values in [0, 1], indices int32 or int64; pairs not stored are 1.0 apart.
        eps: above 0, at most distance.max_distance (where that is below 1); two points are neighbours when their distance is at
            most eps (rounded to the dtype of the distances).
        min_samples: a point is core when at least so many points, itself counted, are its neighbours.

    Returns:
        labels: [N] int64 on the device of distance: -1 outlier, clusters numbered from 0 by their first core point; a border
        point goes to the first cluster that reaches it.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type or range.
        IndexRangeError: distance.indices names a row that is not there.

    Source:
        Ester et al., KDD 1996.
    """
    if not isinstance(distance, SparseDistance):
        raise TypeError(f"dbscan: distance must be a SparseDistance, got {type(distance).__name__}")
    shapes, total, values = Shapes("dbscan"), distance.shape[0], distance.values
    shapes.tensor("distance.values", values, ("nnz",), FLOATS)
    shapes.tensor("distance.indices", distance.indices, ("nnz",), INTEGERS, device_of=("distance.values", values))
    shapes.tensor("distance.indptr", distance.indptr, (total + 1,), (torch.int64,), device_of=("distance.values", values))
    eps = float(shapes.number("eps", eps, 0.0, open_low=True))
    if distance.max_distance < min(eps, 1.0):
        raise ValueError(
            f"dbscan: eps must be at most distance.max_distance={distance.max_distance}, got {eps}: pairs are missing"
        )
    min_samples = min(integer("dbscan", "min_samples", min_samples, 1), total + 1)
    _native.require("dbscan", values.device)
    in_range, well_formed = _look(distance)
    if not in_range:
        raise ValueError("dbscan: distance must hold values from 0 to 1, as pairs not stored are 1 apart, got others")
    if not well_formed:
        raise _malformed(distance)
    eps = float(torch.tensor(eps, dtype=values.dtype, device="cpu"))
    if eps >= 1:  # every pair is within eps
        return torch.full((total,), 0 if total >= min_samples else -1, dtype=torch.int64, device=distance.indptr.device)
    return _dbscan(distance, eps, min_samples)


def _look(distance: SparseDistance) -> tuple[bool, bool]:
    """Whether values are in [0, 1], and whether all rows are there and well formed: the device is waited for once."""
    faults = int(torch.ops.gcl_fast.graph_faults(distance.indptr, distance.indices, distance.values))
    return not faults & NO_DISTANCE, not faults & MALFORMED


def _malformed(distance: SparseDistance) -> Exception:
    total, pairs = distance.shape[0], len(distance.values)
    try:
        check_index("dbscan", "distance.indices", distance.indices, total, f"rows, 0 to {total - 1}", wait=True)
    except IndexRangeError as error:
        return error
    return ValueError(f"dbscan: distance.indptr must rise from 0 to nnz={pairs}")


def _dbscan(distance: SparseDistance, eps: float, min_samples: int) -> Tensor:
    graph = distance.indptr, distance.indices.int(), distance.values
    root = torch.ops.gcl_fast.dbscan_roots(*graph, eps, min_samples).long()  # [N], -1 where not core
    first = root == torch.arange(len(root), device=root.device)  # [N]: a cluster's first core point
    number = first.cumsum(0) - 1  # [N]: of a root, its cluster
    core_label = torch.where(root >= 0, number[root.clamp(min=0)], -1)  # [N]
    labels: Tensor = torch.ops.gcl_fast.dbscan_labels(*graph, eps, core_label)
    return labels


def _neighbours(index: Tensor, k: int, features: Tensor | None) -> Tensor:
    """The first k columns of a user's neighbours, checked, as features are: the device is waited for once."""
    op, total = "jaccard_distance", len(index)
    if index.shape[1] < k:
        raise ValueError(f"{op}: x must have at least min(k1, N)={k} neighbours a row, got {index.shape[1]}")
    rank = index[:, :k]
    largest = torch.zeros(0, dtype=torch.float32, device=rank.device)
    if features is not None:  # twice a row's square: no exponent of the softmax is beyond it
        largest = 2 * torch.linalg.vector_norm(features, dim=1, keepdim=True).square()
    faults = int(torch.ops.gcl_fast.neighbor_faults(rank, largest))
    if features is not None and faults & NOT_FINITE:
        finite(op, "features", features)
        raise ValueError(f"{op}: features must have finite products; bring the rows to length 1")
    if faults & NO_ROW:
        check_index(op, "x", rank, total, f"row numbers from 0 to {total - 1}", wait=True)
    if faults & NOT_ITSELF:
        row = int((rank[:, 0] != torch.arange(total, device=rank.device)).nonzero()[0])
        raise ValueError(f"{op}: x must have each row itself in column 0, got {int(rank[row, 0])} in row {row}")
    if faults & TWICE:
        ordered = rank.sort(dim=1).values
        row = int((ordered[:, 1:] == ordered[:, :-1]).any(dim=1).nonzero()[0])
        raise ValueError(f"{op}: x must name each neighbour once a row, got a repeated one in row {row}")
    return rank


def nearest_by_distance(x: Tensor, k: int) -> Tensor:
    """The k rows nearest to each row of x [N, D] by Euclidean distance, itself first, ties by the lower index: [N, k]."""
    if len(x) == 0:
        return torch.zeros(0, k, dtype=torch.int64, device=x.device)
    _native.require("knn", x.device)
    return _knn.nearest(x, k, 0.5 * x.square().sum(dim=1))[1]


def _fake_neighbor_faults(index: Tensor, features: Tensor) -> Tensor:
    return index.new_empty(1, dtype=torch.int32)


def _fake_graph_faults(indptr: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    return indptr.new_empty(1, dtype=torch.int32)


def _fake_roots(indptr: Tensor, indices: Tensor, values: Tensor, eps: float, min_samples: int) -> Tensor:
    return indptr.new_empty(indptr.shape[0] - 1, dtype=torch.int32)


def _fake_labels(indptr: Tensor, indices: Tensor, values: Tensor, eps: float, core_label: Tensor) -> Tensor:
    return indptr.new_empty(indptr.shape[0] - 1)


if _native.loaded:
    torch.library.register_fake("gcl_fast::neighbor_faults", _fake_neighbor_faults)
    torch.library.register_fake("gcl_fast::graph_faults", _fake_graph_faults)
    torch.library.register_fake("gcl_fast::dbscan_roots", _fake_roots)
    torch.library.register_fake("gcl_fast::dbscan_labels", _fake_labels)
