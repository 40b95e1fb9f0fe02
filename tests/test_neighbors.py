"""knn, Jaccard distance and DBSCAN against loops written from the definitions, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.ops import SparseDistance, dbscan, jaccard_distance, knn
from tests.threads import threads

quick = settings(deadline=None, max_examples=25, derandomize=True)


def crowd(n: int, d: int, seed: int, spread: float = 0.5) -> torch.Tensor:
    """Features of a few people, some images exactly alike."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(max(1, n // 6), d))
    x = people[rng.integers(0, len(people), n)] + spread * rng.normal(size=(n, d))
    if n > 4:
        x[rng.integers(0, n, n // 5)] = x[rng.integers(0, n, n // 5)]
    return torch.from_numpy(x.astype(np.float32))


def signs(n: int, d: int, seed: int) -> torch.Tensor:
    """Rows of +-1 with d a power of 4: every product is exact in float32, so ties are ties on any device."""
    return torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, d)).astype(np.float32))


def ranking(x: torch.Tensor, k: int) -> np.ndarray:
    rows = x.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    out = []
    for i in range(len(rows)):
        similar = [(i != j, -float((rows[i] * rows[j]).sum()), j) for j in range(len(rows))]
        out.append([j for _, _, j in sorted(similar)[:k]])
    return np.array(out)


def dense_jaccard(rank: np.ndarray, x: np.ndarray | None, k1: int, k2: int) -> np.ndarray:
    """The distance as the method defines it, on whole matrices; x [N, D] float64 unit rows, or None for equal weights."""
    total = len(rank)

    def mutual(k: int) -> np.ndarray:
        there = np.zeros((total, total), dtype=bool)
        for i in range(total):
            there[i, rank[i, : k + 1]] = True
        return there & there.T

    near, close = mutual(k1), mutual(int(np.around(k1 / 2)))
    common = close.astype(int) @ near.T.astype(int)  # [c, i]: how many of R(c, half) are in R(i, k1)
    v = np.zeros((total, total))
    for i in range(total):
        expanded = near[i].copy()
        for c in np.flatnonzero(near[i]):
            if common[c, i] > 2 / 3 * close[c].sum():
                expanded |= close[c]
        score = np.exp(-(2 - 2 * x @ x[i])) if x is not None else np.ones(total)
        v[i, expanded] = score[expanded] / score[expanded].sum()
    if k2 != 1:
        v = np.array([v[rank[i, :k2]].mean(axis=0) for i in range(total)])
    m = np.array([[np.minimum(v[i], v[j]).sum() for j in range(total)] for i in range(total)])
    return np.maximum(1 - m / (2 - m), 0)


def sparse(dense: np.ndarray) -> SparseDistance:
    """What is below 1, and the diagonal."""
    row, column = np.nonzero((dense < 1) | np.eye(len(dense), dtype=bool))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(dense)))]).astype(np.int64)
    return SparseDistance(
        torch.from_numpy(indptr), torch.from_numpy(column), torch.from_numpy(dense[row, column]), shape=dense.shape
    )


def sklearn_labels(dense: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(dense)


# ---------------------------------------------------------------------------------------------------------------- knn


@quick
@given(n=st.integers(1, 40), d=st.sampled_from([4, 16]), seed=st.integers(0, 999), data=st.data())
def test_knn_orders_ties_by_index_with_itself_first(n: int, d: int, seed: int, data: st.DataObject) -> None:
    x, k = signs(n, d, seed), data.draw(st.integers(1, n))
    expected = ranking(x, k)
    for name, function in (("ops", knn), ("reference", reference.knn)):
        similarity, index = function(x, k)
        assert index.numpy().tolist() == expected.tolist(), name
        exact = torch.stack([(x[i] * x[expected[i]]).sum(1) / d for i in range(n)])
        assert torch.equal(similarity, exact), name


def test_knn_agrees_with_float64_on_any_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = crowd(90, 24, seed=1)
    rows = torch.nn.functional.normalize(x.double(), dim=1)
    for side in (1024, 7):  # one block, and seams between blocks of seven rows
        monkeypatch.setattr(ops._knn, "SIDE", {"cpu": side, "cuda": side})
        similarity, index = knn(x.to(device), 12)
        assert similarity.device.type == device_type(device) and index.dtype == torch.int64
        assert np.array_equal(index.cpu().numpy(), ranking(x, 12))
        exact = (rows[:, None] * rows[index.cpu()]).sum(2)
        assert (similarity.cpu().double() - exact).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [64, 7])  # of a block: in whole registers, and less than one
def test_a_tie_with_a_lower_row_in_a_later_block_goes_to_that_row(
    side: int, dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops._knn, "SIDE", {"cpu": side, "cuda": side})
    x = signs(200, 16, seed=4).to(dtype)
    for k in (5, 30):
        assert np.array_equal(knn(x.to(device), k)[1].cpu().numpy(), ranking(x, k))


def device_type(device: torch.device | str) -> str:
    return torch.device(device).type


def test_knn_puts_a_row_before_its_copies(device: torch.device) -> None:
    x = torch.randn(1, 37, generator=torch.Generator().manual_seed(0)).repeat(50, 1)
    x[::2] = torch.randn(1, 37, generator=torch.Generator().manual_seed(1))
    index = knn(x.to(device), 4)[1].cpu()
    assert index[0].tolist() == [0, 2, 4, 6]
    assert index[3].tolist() == [3, 1, 5, 7]
    assert index[48].tolist() == [48, 0, 2, 4]


def test_zeros_of_either_sign_are_equal(device: torch.device) -> None:
    """Rows that differ in it alone tie, as other equal rows do, though a product may round some of its columns differently."""
    for seed in range(80):
        generator = torch.Generator().manual_seed(seed)
        n, d = 5 + seed % 8, 54 + seed % 6
        group = torch.randint(0, n // 3, (n,), generator=generator)
        x = torch.randn(n // 3, d, generator=generator)[group]
        x[:, ::3] = 0
        x[torch.rand(n, generator=generator) < 0.5] *= torch.tensor([-1.0, 1, 1]).repeat(d // 3 + 1)[:d]
        similarity, index = (part.cpu() for part in knn(x.to(device), n))
        of_row = torch.zeros(n, n).scatter_(1, index, similarity)
        for row in range(n):
            for members in (group == g for g in range(n // 3)):
                members[row] = False
                assert len(of_row[row, members].unique()) <= 1, seed


@pytest.mark.parametrize("kind", ["crowd", "signs"])
def test_knn_by_faiss_gives_the_same(kind: str) -> None:
    pytest.importorskip("faiss", reason="the faiss backend is optional")
    x = crowd(120, 16, seed=2) if kind == "crowd" else signs(120, 16, seed=2)
    ours, theirs = knn(x, 20), knn(x, 20, backend="faiss")
    assert torch.equal(ours[1], theirs[1])
    assert (ours[0] - theirs[0]).abs().max() < 1e-6
    assert torch.equal(knn(x, 120, backend="faiss")[1], knn(x, 120)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_knn_accepts_any_float_and_any_layout(dtype: torch.dtype, device: torch.device) -> None:
    x = crowd(30, 8, seed=3).to(device, dtype)
    strided = x.T.contiguous().T
    assert not strided.is_contiguous()
    similarity, index = knn(strided, 5)
    assert similarity.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert np.array_equal(index.cpu().numpy(), ranking(x.cpu(), 5))


def test_knn_edges(device: torch.device) -> None:
    similarity, index = knn(torch.zeros(0, 5, device=device), 3)
    assert similarity.shape == index.shape == (0, 3)
    assert knn(torch.zeros(3, 5, device=device), 3)[1].tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert knn(torch.zeros(2, 0, device=device), 1)[1].tolist() == [[0], [1]]
    assert not knn(torch.ones(2, 3, device=device, requires_grad=True), 1)[0].requires_grad


def of_two(size: float) -> SparseDistance:
    """Distances of two neighbours of which one is so long."""
    return jaccard_distance(torch.tensor([[0, 1], [1, 0]]), k1=2, features=torch.tensor([[1.0, 0.0], [size, 0.0]]))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: knn(np.zeros((3, 2)), 1), TypeError, "x must be a torch.Tensor"),
        (lambda: knn(torch.zeros(3), 1), ValueError, r"x must have shape \[N, D\]"),
        (lambda: knn(torch.zeros(3, 2, dtype=torch.int64), 1), TypeError, "x must be float32 or .*, got int64"),
        (lambda: knn(torch.zeros(3, 2), 4), ValueError, "k must be at most N=3, got 4"),
        (lambda: knn(torch.zeros(3, 2), 0), ValueError, "k must be at least 1, got 0"),
        (lambda: knn(torch.zeros(3, 2), 1.0), TypeError, "k must be an integer, got float"),
        (lambda: knn(torch.zeros(3, 2), 1, backend="hnsw"), ValueError, "backend must be"),
        (lambda: knn(torch.tensor([[1.0], [float("nan")]]), 1), ValueError, "x must be finite, got .* in 1 rows"),
        (lambda: jaccard_distance(torch.zeros(4, 2), k1=0), ValueError, "k1 must be at least 1"),
        (lambda: jaccard_distance(torch.zeros(4, 2), k2=0), ValueError, "k2 must be at least 1"),
        (lambda: jaccard_distance(torch.zeros(4, 2), max_distance=-0.5), ValueError, "max_distance must be at least 0"),
        (lambda: jaccard_distance(torch.zeros(4, 2), max_distance="0.5"), TypeError, "max_distance must be a number"),
        (lambda: jaccard_distance(torch.zeros(4)), ValueError, r"x must have shape \[N, D\]"),
        (lambda: jaccard_distance(torch.zeros(4, 2), features=torch.zeros(4, 2)), ValueError, "features must be None"),
        (lambda: jaccard_distance(torch.arange(4)[:, None], k1=2), ValueError, "at least .*=2 neighbours a row, got 1"),
        (lambda: jaccard_distance(torch.tensor([[1, 0], [1, 0]]), k1=2), ValueError, "itself in column 0, got 1 in row 0"),
        (lambda: jaccard_distance(torch.tensor([[0, -1], [1, 0]]), k1=2), ValueError, "row numbers from 0 to 1, got -1"),
        (lambda: jaccard_distance(torch.tensor([[0, 0], [1, 0]]), k1=2), ValueError, "repeated one in row 0"),
        (lambda: jaccard_distance(torch.tensor([[0, 1], [1, 0]]), k1=2, features=torch.zeros(3, 2)), ValueError, "N=2"),
        (lambda: of_two(float("nan")), ValueError, "features must be finite, got NaN or infinity in 1 rows"),
        (lambda: of_two(1e20), ValueError, "features must have finite products; bring the rows to length 1"),
        (lambda: of_two(1.5e19), ValueError, "features must have finite products"),  # the softmax doubles them
        (lambda: dbscan(np.zeros((2, 2)), 0.5, 1), TypeError, "distance must be a SparseDistance"),
        (lambda: dbscan(sparse(np.zeros((2, 2))), 0.0, 1), ValueError, "eps must be above 0"),
        (lambda: dbscan(sparse(np.zeros((2, 2))), 0.5, 0), ValueError, "min_samples must be at least 1"),
        (lambda: dbscan(sparse(np.full((2, 2), -1.0)), 0.5, 1), ValueError, "values from 0 to 1"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# ------------------------------------------------------------------------------------------------------------ Jaccard


@quick
@given(
    n=st.integers(1, 45),
    d=st.integers(2, 12),
    k1=st.integers(1, 50),
    k2=st.integers(1, 8),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_jaccard_is_the_method_s(n: int, d: int, k1: int, k2: int, seed: int, dtype: torch.dtype) -> None:
    x = crowd(n, d, seed).to(dtype)
    unit = x.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = dense_jaccard(ranking(x, min(k1, n)), unit, k1, k2)
    for name, function in (("ops", jaccard_distance), ("reference", reference.jaccard_distance)):
        distance = function(x, k1, k2)
        dense = distance.to_dense().double().numpy()
        assert np.abs(dense - expected).max() < 1e-5, name
        assert np.array_equal(dense, dense.T), name
        assert (dense.diagonal() == 0).all() and dense.min() >= 0 and dense.max() <= 1, name
        assert (distance.rows() == distance.indices).sum() == n, name  # the diagonal is stored


def test_nothing_depends_on_the_number_of_threads(device: torch.device) -> None:
    x = crowd(700, 8, seed=5, spread=0.3).to(device)
    results = []
    for count in (1, 2, 5):
        with threads(count):
            _similarity, index = knn(x, 12)
            distance = jaccard_distance(index, 12, 4, features=x)
            results.append((distance.indptr, distance.indices, distance.values, dbscan(distance, 0.6, 3)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert results[0][3].max() > 3


def test_jaccard_of_neighbours_alone_and_with_features() -> None:
    x = torch.nn.functional.normalize(crowd(50, 6, seed=6), dim=1)
    index = knn(x, 14)[1]
    unit = x.double().numpy()
    for function in (jaccard_distance, reference.jaccard_distance):
        for k1 in (14, 9):  # 9: columns beyond k1 are not used
            alone = function(index.int(), k1, 3).to_dense().numpy()
            assert np.abs(alone - dense_jaccard(index.numpy()[:, :k1], None, k1, 3)).max() < 1e-5
        weighted = function(index, 14, 3, features=x).to_dense()
        assert (weighted - function(x, 14, 3).to_dense()).abs().max() < 1e-6
        doubled = function(index, 14, 3, features=2 * x).to_dense().numpy()  # used as they are
        assert np.abs(doubled - dense_jaccard(index.numpy(), 2 * unit, 14, 3)).max() < 1e-5
        long, longer = (function(index, 14, 3, features=size * x).to_dense() for size in (1e9, 1e18))  # each by itself alone
        assert torch.equal(long, longer) and long.min() == 0 and long.max() == 1
        large = 2 * signs(50, 16, seed=6)  # whole products so far apart that e to such a power is beyond float32
        weighted = function(index, 14, 3, features=large).to_dense().numpy()
        assert np.abs(weighted - dense_jaccard(index.numpy(), large.double().numpy(), 14, 3)).max() < 1e-5


def test_expansion_asks_for_strictly_more_than_two_thirds() -> None:
    """0 1 2 know each other, 2 3 4 and 5 too: R(2, 2) = {2, 1, 3} has exactly 2/3 in R(0, 4), so 0 must not take it in."""
    assert all((3 * a > 2 * n) == (a > 2 / 3 * n) for n in range(1, 400) for a in range(n + 1))  # integers say the same
    index = torch.tensor([[0, 1, 2, 5], [1, 2, 0, 5], [2, 1, 3, 0], [3, 2, 4, 1], [4, 3, 2, 1], [5, 4, 3, 2]])
    expected = dense_jaccard(index.numpy(), None, 4, 1)
    for function in (jaccard_distance, reference.jaccard_distance):
        assert np.abs(function(index, 4, 1).to_dense().numpy() - expected).max() < 1e-6
    assert reference.neighbors.reciprocal_set(index.numpy(), 2, 2) == {2, 1, 3}
    assert reference.neighbors.reciprocal_set(index.numpy(), 0, 4) == {0, 1, 2}
    assert 3 not in reference.neighbors.expanded_set(index.numpy(), 0, 4, 2)


@quick
@given(
    n=st.integers(1, 60),
    k1=st.integers(1, 14),
    k2=st.integers(1, 6),
    eps=st.sampled_from([1e-3, 0.3, 0.55, 0.7, 0.999, 1.0, 1.5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 999),
)
def test_pairs_beyond_max_distance_are_left_out_and_labels_stay(
    n: int, k1: int, k2: int, eps: float, dtype: torch.dtype, seed: int
) -> None:
    x = crowd(n, 8, seed, spread=0.7).to(dtype)
    whole, near = jaccard_distance(x, k1, k2), jaccard_distance(x, k1, k2, max_distance=eps)
    dense = whole.to_dense()
    beyond = dense > torch.tensor(eps, dtype=dtype)
    assert torch.equal(near.to_dense(), dense.masked_fill(beyond, 1.0))  # the very bits
    assert len(near.values) == len(whole.values) - int((whole.values > torch.tensor(eps, dtype=dtype)).sum())
    for min_samples in (1, 4):
        assert torch.equal(dbscan(near, eps, min_samples), dbscan(whole, eps, min_samples))


def test_a_radius_beyond_what_is_stored_is_an_error() -> None:
    near = jaccard_distance(crowd(40, 8, seed=1), 6, 2, max_distance=0.5)
    assert near.max_distance == 0.5
    with pytest.raises(ValueError, match=r"eps must be at most distance.max_distance=0.5, got 0.6"):
        dbscan(near, 0.6, 4)


def test_jaccard_edges(device: torch.device) -> None:
    empty = jaccard_distance(torch.zeros(0, 4, device=device))
    assert empty.to_dense().shape == (0, 0) and empty.indptr.tolist() == [0]
    assert dbscan(empty, 0.5, 4).shape == (0,)
    assert jaccard_distance(torch.ones(1, 4, device=device)).to_dense().tolist() == [[0.0]]
    alike = jaccard_distance(torch.ones(7, 4, device=device), 30, 6).to_dense()
    assert alike.abs().max() < 1e-6
    assert jaccard_distance(torch.rand(5, 4, device=device).double()).values.dtype == torch.float64


def test_sparse_distance_reads_absent_as_one() -> None:
    pytest.importorskip("scipy")
    distance = jaccard_distance(crowd(40, 12, seed=7), 4, 2)
    dense, csr = distance.to_dense().numpy(), distance.to_scipy()
    assert csr.shape == (40, 40) and csr.nnz == len(distance.values) < 1600
    stored = np.zeros((40, 40), dtype=bool)
    stored[distance.rows().numpy(), distance.indices.numpy()] = True
    assert (dense[~stored] == 1).all() and np.array_equal(csr.toarray()[stored], dense[stored])


# ------------------------------------------------------------------------------------------------------------- DBSCAN


@settings(deadline=None, max_examples=120, derandomize=True)
@given(
    n=st.integers(1, 30),
    seed=st.integers(0, 9999),
    density=st.floats(0.02, 0.6),
    eps=st.sampled_from([0.25, 0.5, 0.55, 0.75]),
    min_samples=st.integers(1, 6),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_dbscan_labels_are_scikit_learn_s(n: int, seed: int, density: float, eps: float, min_samples: int, dtype: type) -> None:
    """Symmetric distances from a coarse grid that holds eps itself; copies at distance 0; most pairs 1 apart."""
    rng = np.random.default_rng(seed)
    dense = rng.choice([0.0, 0.2, 0.25, 0.5, 0.55, 0.75, 0.9], size=(n, n))
    dense[rng.random((n, n)) > density] = 1
    dense = np.tril(dense, -1)
    dense = (dense + dense.T).astype(dtype)
    expected = sklearn_labels(dense, eps, min_samples)
    for function in (dbscan, reference.dbscan):
        labels = function(sparse(dense), eps, min_samples)
        assert labels.dtype == torch.int64 and labels.tolist() == expected.tolist()


def line(positions: list[float]) -> np.ndarray:
    p = np.array(positions)
    return np.minimum(np.abs(p[:, None] - p), 1.0)


@pytest.mark.parametrize(
    ("dense", "eps", "min_samples", "expected"),
    [
        (line([0.125 * i for i in range(9)]), 0.125, 3, [0] * 9),  # a chain whose steps are eps exactly
        (line([0.125 * i for i in range(9)]), 0.125, 4, [-1] * 9),
        (line([0, 3, 6]), 0.5, 1, [0, 1, 2]),  # alone, and core all the same
        (line([0, 3, 6]), 0.5, 2, [-1, -1, -1]),
        (line([5, 5, 5, 0, 0, 0]), 0.5, 3, [0, 0, 0, 1, 1, 1]),  # copies; numbered by first core point
        (line([0.5, 0, -0.25, -0.25, 1, 1.25, 1.25]), 0.5, 4, [0, 0, 0, 0, 1, 1, 1]),  # a border point of two clusters
        (line([9, 0.5, 1, 1.25, 1.25, 0, -0.25, -0.25]), 0.5, 4, [-1, 0, 0, 0, 0, 1, 1, 1]),
        (line([0, 3, 6]), 1.0, 3, [0, 0, 0]),  # whatever is not stored is 1 apart: within eps
        (line([0, 3, 6]), 1.5, 4, [-1, -1, -1]),
        (np.array([[0.75, 1.0], [1.0, 0.0]]), 0.5, 1, [-1, 0]),  # far from itself
    ],
)
def test_dbscan_by_hand(dense: np.ndarray, eps: float, min_samples: int, expected: list[int], device: torch.device) -> None:
    assert sklearn_labels(dense, eps, min_samples).tolist() == expected
    distance = sparse(dense)
    there = distance.to(device)
    labels = dbscan(there, eps, min_samples)
    assert labels.device.type == device_type(device) and labels.tolist() == expected
    assert reference.dbscan(distance, eps, min_samples).tolist() == expected


@pytest.mark.parametrize(("spread", "eps", "min_samples"), [(0.3, 0.55, 4), (0.6, 0.6, 4), (0.6, 0.3, 1), (1.0, 0.7, 2)])
def test_dbscan_of_jaccard_is_scikit_learn_s(spread: float, eps: float, min_samples: int) -> None:
    distance = jaccard_distance(crowd(150, 16, seed=8, spread=spread), 12, 4)
    labels = dbscan(distance, eps, min_samples).numpy()
    assert labels.max() > 0
    assert np.array_equal(labels, sklearn_labels(distance.to_dense().numpy(), eps, min_samples))
    assert np.array_equal(labels, sklearn_labels(distance.to_scipy(), eps, min_samples))
