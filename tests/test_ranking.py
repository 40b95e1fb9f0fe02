"""mAP, CMC, mINP and re-ranking against loops and scikit-learn."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl_fast import ops, reference
from gcl_fast.ops import rank_metrics, rank_metrics_from_distances, rerank
from gcl_fast.ops._products import COLUMNS, exact_product
from tests.threads import threads

quick = settings(deadline=None, max_examples=30, derandomize=True)


def identities(q: int, g: int, people: int, cameras: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """query pids, gallery pids (some junk), query cameras, gallery cameras"""
    sizes = ((0, people, q), (-1, people, g), (0, cameras, q), (0, cameras, g))
    return tuple(torch.from_numpy(rng.integers(low, high, n)) for low, high, n in sizes)


def scores_by_hand(distance: np.ndarray, ids: tuple[torch.Tensor, ...], max_rank: int) -> tuple:
    from sklearn.metrics import average_precision_score

    qp, gp, qc, gc = (t.numpy() for t in ids)
    ap, cmc, inp, queries = [], [], [], []
    for q in range(len(qp)):
        kept = [g for g in range(len(gp)) if gp[g] != -1 and (gp[g] != qp[q] or gc[g] != qc[q])]
        kept.sort(key=lambda g: (distance[q, g], g))
        right = np.array([gp[g] == qp[q] for g in kept], dtype=bool)
        if not right.any():
            continue
        ap.append(average_precision_score(right, -np.arange(len(right), dtype=float)))  # by place: no ties left
        queries.append(q)
        places = np.flatnonzero(right) + 1
        cmc.append([float(places[0] <= r) for r in range(1, max_rank + 1)])
        inp.append(len(places) / places[-1])
    of_each = np.full((2, len(qp)), math.nan)
    of_each[:, queries] = ap, inp
    if not ap:
        return math.nan, [math.nan] * max_rank, math.nan, 0, of_each
    return np.mean(ap), np.mean(cmc, axis=0), np.mean(inp), len(ap), of_each


def same(metrics: ops.RankMetrics, expected: tuple) -> None:
    assert metrics.num_valid == expected[3]
    for a, b in zip((*metrics[:3], metrics.AP, metrics.INP), (*expected[:3], *expected[4]), strict=True):
        assert np.allclose(np.asarray(a), b, rtol=0, atol=1e-12, equal_nan=True)


@quick
@given(
    q=st.integers(0, 12),
    g=st.integers(0, 30),
    people=st.integers(1, 6),
    cameras=st.integers(1, 3),
    seed=st.integers(0, 9999),
    levels=st.sampled_from([1, 3, 1000]),
    max_rank=st.integers(1, 40),
)
def test_scores_are_those_by_hand(q: int, g: int, people: int, cameras: int, seed: int, levels: int, max_rank: int) -> None:
    """levels 1 and 3: nearly everything ties, and the gallery index decides."""
    rng = np.random.default_rng(seed)
    ids = identities(q, g, people, cameras, rng)
    distance = rng.integers(0, levels, (q, g)) / 8
    expected = scores_by_hand(distance, ids, max_rank)
    for function in (rank_metrics_from_distances, reference.rank_metrics_from_distances):
        metrics = function(torch.from_numpy(distance), *ids, max_rank=max_rank)
        same(metrics, expected)
        assert metrics.cmc.shape == (max_rank,) and metrics.cmc.dtype == torch.float64


def test_scores_of_features(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    ids = identities(40, 90, 8, 3, rng)
    query, gallery = (torch.from_numpy(3 * rng.normal(size=(n, 16)).astype(np.float32)) for n in (40, 90))
    unit = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (query, gallery)]
    expected = scores_by_hand(-(unit[0] @ unit[1].T).numpy(), ids, 20)
    on_device = [t.to(device) for t in (query, gallery, *ids)]
    for block in (1 << 23, 7 * 90):
        monkeypatch.setattr(ops.ranking, "BLOCK", block)
        monkeypatch.setattr(ops.ranking, "CUDA_BLOCK", block)
        metrics = rank_metrics(*on_device, max_rank=20)
        same(metrics, expected)
        assert metrics.cmc.device.type == "cpu" and isinstance(metrics.mAP, float)
    same(reference.rank_metrics(query, gallery, *ids, max_rank=20), expected)
    strided = query.T.contiguous().T.to(device)
    same(rank_metrics(strided, *on_device[1:], max_rank=20), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_of_the_gallery_tie(dtype: torch.dtype) -> None:
    """As of an encoder that has collapsed. A product rounds some of its columns differently; what is signed is only the zero."""
    rng = np.random.default_rng(2)
    for size in (7, 34, 62, 1500):
        ids = identities(18, size, 4, 3, rng)
        query = torch.from_numpy(rng.normal(size=(18, 53))).to(dtype)
        gallery = torch.from_numpy(rng.normal(size=53)).to(dtype).repeat(size, 1)
        gallery[:, 0] = 0
        gallery[::2, 0] *= -1
        same(rank_metrics(query, gallery, *ids, max_rank=9), scores_by_hand(np.zeros((18, size)), ids, 9))


def test_blocks_on_a_gpu_are_high_and_of_whole_tiles() -> None:
    """A product of few rows leaves most of a GPU idle; a gallery larger than the block goes by a query at a time."""
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert ops.ranking._step(15_913, cuda) >= 3_368  # Market-1501 in one
    assert ops.ranking._step(82_161, cuda) % 128 == 0 and ops.ranking._step(82_161, cuda) >= 2048
    assert ops.ranking._step(1 << 27, cuda) == 2 and ops.ranking._step(1 << 30, cuda) == 1
    assert ops.ranking._step(82_161, cpu) == (1 << 23) // 82_161 and ops.ranking._step(0, cpu) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_distances_of_any_type_and_layout(dtype: torch.dtype, device: torch.device) -> None:
    rng = np.random.default_rng(3)
    ids = identities(20, 70, 6, 3, rng)
    distance = torch.from_numpy(rng.normal(size=(20, 70))).to(dtype)  # half precision brings ties
    expected = scores_by_hand(distance.double().numpy(), ids, 10)
    strided = torch.stack([distance, distance], 2)[:, :, 1].to(device)
    mixed = [t.to(device, torch.int32 if i % 2 else torch.int64) for i, t in enumerate(ids)]
    for layout in (distance.to(device), strided, distance.T.contiguous().T.to(device)):
        same(rank_metrics_from_distances(layout, *mixed, max_rank=10), expected)


def test_more_matches_than_a_register_holds_and_extreme_distances(device: torch.device) -> None:
    rng = np.random.default_rng(4)
    ids = [
        torch.zeros(3, dtype=torch.int64),
        torch.from_numpy(rng.integers(-1, 2, 400)),
        torch.tensor([0, 1, 5]),
        torch.from_numpy(rng.integers(0, 3, 400)),
    ]
    distance = rng.normal(size=(3, 400))
    distance[:, ::7], distance[:, ::11] = np.inf, -np.inf
    distance[2] = 0.0
    metrics = rank_metrics_from_distances(torch.from_numpy(distance).to(device), *(t.to(device) for t in ids), max_rank=9)
    same(metrics, scores_by_hand(distance, tuple(ids), 9))


def native_arguments(device: torch.device) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(5)
    qp, gp, qc, gc = identities(7, 40, 4, 2, rng)
    pids, order = torch.sort(gp, stable=True)
    begin, end = (torch.searchsorted(pids, qp, right=right) for right in (False, True))
    distances = torch.from_numpy(rng.normal(size=(7, 40)).astype(np.float32))
    return tuple(t.to(device) for t in (distances, qp, gp, qc, gc, order, begin, end))


def test_opcheck(device: torch.device) -> None:
    torch.library.opcheck(torch.ops.gcl_fast.ranking_scores.default, native_arguments(device))


def test_the_native_op_refuses_what_would_crash_it() -> None:
    given = list(native_arguments(torch.device("cpu")))
    for position, value, words in (
        (1, given[1][:-1], "query_pids has a wrong shape"),
        (2, given[2].int(), "gallery_pids must be int64"),
        (5, given[5] + 1, "out of range"),
        (5, given[5] - 1, "out of range"),
        (6, given[6] - 40, "out of range"),
        (7, given[7] + 40, "out of range"),
        (0, given[0].half(), "float32 or float64"),
    ):
        with pytest.raises(RuntimeError, match=words):
            torch.ops.gcl_fast.ranking_scores(*given[:position], value, *given[position + 1 :])


def test_scores_do_not_depend_on_threads() -> None:
    rng = np.random.default_rng(6)
    ids = identities(100, 200, 9, 3, rng)
    distance = torch.from_numpy(rng.normal(size=(100, 200)).astype(np.float32))
    results = []
    for count in (1, 2, 5):
        with threads(count):
            results.append(rank_metrics_from_distances(distance, *ids, max_rank=5))
    assert all(r.mAP == results[0].mAP and r.mINP == results[0].mINP and torch.equal(r.cmc, results[0].cmc) for r in results)


def test_what_is_ignored() -> None:
    ids = [torch.tensor(v) for v in ([7, 9], [7, -1, 7, 8, 9], [0, 1], [0, 1, 1, 1, 1])]
    distance = torch.tensor([[0.0, 0.1, 0.3, 0.2, 0.5], [0.3, 0.1, 0.2, 0.4, 0.0]])
    metrics = rank_metrics_from_distances(distance, *ids, max_rank=3)
    # query 0: its own camera's 7 and the junk are left out: 8, then 7. Query 1 has no match left.
    assert metrics.num_valid == 1 and metrics.mAP == metrics.mINP == 0.5 and metrics.cmc.tolist() == [0, 1, 1]


def test_no_valid_query_and_empty_sets(device: torch.device) -> None:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    one = torch.ones(1, dtype=torch.int64, device=device)
    for metrics in (
        rank_metrics_from_distances(torch.zeros(1, 1, device=device), one, one, one, one, max_rank=3),
        rank_metrics_from_distances(torch.zeros(1, 0, device=device), one, none, one, none, max_rank=3),
        rank_metrics(torch.zeros(0, 4, device=device), torch.ones(1, 4, device=device), none, one, none, one, max_rank=3),
    ):
        assert metrics.num_valid == 0 and math.isnan(metrics.mAP) and math.isnan(metrics.mINP) and bool(metrics.cmc.isnan().all())


def test_scores_unpack_into_four_and_keep_each_query_s(device: torch.device) -> None:
    ids = [torch.tensor(v, device=device) for v in ([7, 9], [7, -1, 7, 8, 9], [0, 1], [0, 1, 1, 1, 1])]
    distance = torch.tensor([[0.0, 0.1, 0.3, 0.2, 0.5], [0.3, 0.1, 0.2, 0.4, 0.0]], device=device)
    metrics = pickle.loads(pickle.dumps(rank_metrics_from_distances(distance, *ids, max_rank=3)))
    mean, cmc, penalty, number = metrics
    assert (mean, penalty, number) == (0.5, 0.5, 1) and cmc is metrics.cmc
    for scores in (metrics.AP, metrics.INP):
        assert scores.dtype == torch.float64 and scores.device.type == "cpu"
        assert scores[0] == 0.5 and math.isnan(scores[1]) and len(scores) == 2


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (5, 1, 0.0), (7, 9, 1.0), (200, 3, 0.5)])
def test_reranking_is_the_reference_s(k1: int, k2: int, lambda_value: float, device: torch.device) -> None:
    rng = np.random.default_rng(2)
    people = rng.normal(size=(9, 8))
    query, gallery = (
        torch.from_numpy((people[rng.integers(0, 9, n)] + 0.5 * rng.normal(size=(n, 8))).astype(np.float32)) for n in (15, 60)
    )
    options = {"k1": k1, "k2": k2, "lambda_value": lambda_value}
    distance = rerank(query.to(device), gallery.to(device), **options)
    assert distance.shape == (15, 60) and distance.dtype == torch.float32
    assert (distance.cpu() - reference.rerank(query, gallery, **options)).abs().max() < 1e-5


def test_reranking_in_small_blocks_and_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    whole = rerank(x[:13], x[13:])
    monkeypatch.setattr(ops.ranking, "BLOCK", 40 * 5)
    assert (rerank(x[:13], x[13:]) - whole).abs().max() < 1e-6
    assert rerank(x[:0], x).shape == (0, 40) and rerank(x, x[:0]).shape == (40, 0)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"gallery": torch.zeros(3, 5)}, ValueError, r"gallery must have shape \[G, D=4\]"),
        ({"gallery": torch.zeros(3, 4, dtype=torch.float64)}, TypeError, "gallery must be float32"),
        ({"query_pids": torch.zeros(3, dtype=torch.int64)}, ValueError, r"query_pids must have shape \[Q=2\]"),
        ({"gallery_camids": torch.zeros(3)}, TypeError, "gallery_camids must be int32 or int64"),
        ({"max_rank": 0}, ValueError, "max_rank must be at least 1"),
        ({"query": torch.full((2, 4), float("inf"))}, ValueError, "query must be finite"),
    ],
)
def test_bad_arguments_are_named(change: dict, error: type[Exception], words: str) -> None:
    good = {"query": torch.zeros(2, 4), "gallery": torch.zeros(3, 4), "max_rank": 5}
    good |= {
        name: torch.zeros(n, dtype=torch.int64)
        for name, n in (("query_pids", 2), ("gallery_pids", 3), ("query_camids", 2), ("gallery_camids", 3))
    }
    with pytest.raises(error, match=words):
        rank_metrics(**(good | change))


def test_nan_distances_are_refused() -> None:
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="distances must not be NaN"):
        rank_metrics_from_distances(torch.full((1, 1), float("nan")), one, one, one, one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wide_product_in_pieces_is_the_product(dtype: torch.dtype, device: torch.device) -> None:
    """Whatever the program around asks for, and without a gradient."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 40, generator=generator, dtype=dtype).to(device) for n in (7, 2 * COLUMNS + 5))
    exact = left.double() @ right.double().T
    with torch.autocast(device.type, dtype=torch.bfloat16):
        for few in (right, right[:9], right[:0], right.T.contiguous().T):
            got = exact_product(left.requires_grad_(), few)
            assert got.dtype == dtype and not got.requires_grad and got.shape == (7, len(few))
            assert len(few) == 0 or (got - exact[:, : len(few)]).abs().max() <= 8 * torch.finfo(dtype).eps * exact.abs().max()
