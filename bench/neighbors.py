"""ops.knn, what jaccard_distance does after it, and ops.dbscan, on clustered features, each against what it replaces:

knn        the bare blocked product, every block thrown away: the least that exact neighbours can cost without symmetry
faiss      knn again, against faiss' IndexFlatIP (where it is installed)
jaccard    neighbours given; against the usual algorithm: dense N x N weights, a Python loop over images
near       the same, but of pairs within the radius of the clustering alone, as `pseudo_labels.cluster` asks for
dbscan     Jaccard distance given; against scikit-learn on the dense matrix
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "neighbors"
CHECK = (
    "at 400 rows: similarities and distances within 1e-5 of the float64 reference and of the usual algorithm, labels equal to "
    "scikit-learn's"
)
K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.55, 4
QUICK = {"work": ["knn", "jaccard", "dbscan"], "rows": [1000], "dim": [256]}
FULL = {"work": ["knn", "faiss", "jaccard", "near", "dbscan"], "rows": [12936], "dim": [2048]}


def clusters(rows: int, dim: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Their centres, which one each row belongs to, and the generator that goes on from there."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(max(rows // 40, 1), min(dim, 32), generator=generator)
    return centre, torch.randint(0, len(centre), (rows,), generator=generator), generator


def features(rows: int, dim: int, device: torch.device) -> Tensor:
    """Features [N, D] of a training set: about 40 rows a cluster, in random order, clusters that overlap (32 directions)."""
    centre, member, generator = clusters(rows, dim)
    latent = centre.shape[1]
    x = torch.randn(rows, latent, generator=generator).mul_(0.7).add_(centre[member])
    x = x @ torch.randn(latent, dim, generator=generator)
    return torch.nn.functional.normalize(x, dim=1).to(device)


def bare_product(x: Tensor, block: int = 1024) -> None:
    out = x.new_empty(block, len(x))
    for first in range(0, len(x), block):
        rows = x[first : first + block]
        torch.mm(rows, x.T, out=out[: len(rows)])


def usual_jaccard(x: np.ndarray, rank: np.ndarray, k1: int = K1, k2: int = K2) -> np.ndarray:
    """The distance as ReID codes compute it: a dense weight matrix, one image at a time."""
    total, half = len(x), int(np.around(k1 / 2))

    def mutual(i: int, k: int) -> np.ndarray:
        forward = rank[i, : k + 1]
        return forward[(rank[forward, : k + 1] == i).any(axis=1)]

    near, close = [mutual(i, k1) for i in range(total)], [mutual(i, half) for i in range(total)]
    weight = np.zeros((total, total), dtype=np.float32)
    for i in range(total):
        expanded = near[i]
        for c in near[i]:
            theirs = close[c]
            if len(np.intersect1d(theirs, near[i])) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        score = np.exp(-(2 - 2 * (x[expanded] @ x[i])))
        weight[i, expanded] = score / score.sum()
    if k2 != 1:
        weight = np.stack([weight[rank[i, :k2]].mean(axis=0) for i in range(total)])
    holders = [np.flatnonzero(weight[:, n]) for n in range(total)]
    distance = np.zeros((total, total), dtype=np.float32)
    for i in range(total):
        shared = np.zeros(total, dtype=np.float32)
        for n in np.flatnonzero(weight[i]):
            shared[holders[n]] += np.minimum(weight[i, n], weight[holders[n], n])
        distance[i] = 1 - shared / (2 - shared)
    return np.maximum(distance, 0)


def sklearn_labels(distance: np.ndarray) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed", n_jobs=-1).fit_predict(distance)


def faiss_search(x: np.ndarray, k: int) -> None:
    faiss = pytest_import("faiss")
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    index.search(x, k)


def pytest_import(name: str):
    import pytest

    return pytest.importorskip(name, reason=f"{name} is not installed")


def check(case: dict, device: torch.device) -> None:
    x = features(min(case["rows"], 400), case["dim"], device)
    similarity, index = ops.knn(x, K1)
    want, rank = reference.knn(x.double(), K1)
    assert (similarity - want).abs().max() <= 1e-5 and torch.equal(index[:, 0].cpu(), torch.arange(len(x)))
    distance = ops.jaccard_distance(x, K1, K2)
    dense = distance.to_dense().cpu()
    assert (dense - reference.jaccard_distance(x.double(), K1, K2).to_dense().cpu()).abs().max() <= 1e-5
    assert np.abs(dense.numpy() - usual_jaccard(x.cpu().numpy(), rank.cpu().numpy())).max() <= 1e-5
    assert 0.005 < (dense < 1).float().mean() < 0.9
    labels = ops.dbscan(distance, EPS, MIN_SAMPLES).cpu()
    assert np.array_equal(labels.numpy(), sklearn_labels(dense.numpy())) and labels.max() > 0


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    native, x = implementation == "native", features(case["rows"], case["dim"], device)
    if case["work"] == "knn":
        return (lambda: ops.knn(x, K1)) if native else (lambda: bare_product(x))
    if case["work"] == "faiss":
        return (lambda: ops.knn(x, K1)) if native else (lambda: faiss_search(x.cpu().numpy(), K1))
    similarity, index = ops.knn(x, K1)
    if case["work"] in ("jaccard", "near"):
        jaccard = ops.neighbors._jaccard
        reach = EPS if case["work"] == "near" else jaccard.ALL
        if native:
            return lambda: jaccard.distances(jaccard.neighbour_sets(index, similarity, x, K1, K2), reach)
        rows, rank = x.cpu().numpy(), index.cpu().numpy()
        return lambda: usual_jaccard(rows, rank)
    distance = ops.jaccard_distance(x, K1, K2)
    if native:
        return lambda: ops.dbscan(distance, EPS, MIN_SAMPLES)
    dense = distance.to_dense().cpu().numpy()
    return lambda: sklearn_labels(dense)


def test_neighbors(case, implementation, device, measure) -> None:
    measure()
