"""The drop-ins against dense float64 definitions of what they replace."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from gcl_fast.compat import (
    compute_jaccard_distance,
    evaluate_rank,
    evaluate_rank_fastreid,
    evaluate_rank_fastreid_means,
    re_ranking,
)


def test_the_originals_defaults_are_kept() -> None:
    rank = {"max_rank": 50, "use_metric_cuhk03": False, "use_cython": True}
    for function, defaults in (
        (compute_jaccard_distance, {"k1": 20, "k2": 6, "print_flag": True, "search_option": 0, "use_float16": False}),
        (re_ranking, {"k1": 20, "k2": 6, "lambda_value": 0.3}),
        *((function, rank) for function in (evaluate_rank, evaluate_rank_fastreid, evaluate_rank_fastreid_means)),
    ):
        parameters = inspect.signature(function).parameters.values()
        assert {p.name: p.default for p in parameters if p.default is not p.empty} == defaults


def mutual(rank: np.ndarray, k: int) -> np.ndarray:
    there = np.zeros((len(rank), len(rank)), dtype=bool)
    for i, row in enumerate(rank):
        there[i, row[: k + 1]] = True
    return there & there.T


def expanded(rank: np.ndarray, k1: int) -> np.ndarray:
    near, close = mutual(rank, k1), mutual(rank, int(np.around(k1 / 2)))
    result = near.copy()
    for i in range(len(rank)):
        for c in np.flatnonzero(near[i]):
            if (close[c] & near[i]).sum() > 2 / 3 * close[c].sum():
                result[i] |= close[c]
    return result


def jaccard(exponent: np.ndarray, member: np.ndarray, rank: np.ndarray, k2: int) -> np.ndarray:
    v = np.where(member, np.exp(exponent), 0)
    v /= v.sum(axis=1, keepdims=True)
    if k2 != 1:
        v = np.stack([v[row[:k2]].mean(axis=0) for row in rank])
    m = np.stack([np.minimum(row, v).sum(axis=1) for row in v])
    return 1 - m / (2 - m)


def crowd(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(9, 8))[rng.integers(0, 9, n)] + 0.5 * rng.normal(size=(n, 8))


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 1), (30, 6)])
def test_jaccard_distance(unit: bool, k1: int, k2: int, device: torch.device) -> None:
    x = crowd(60)
    if unit:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = x.astype(np.float32)
    exact = x.astype(np.float64)
    apart = ((exact[:, None] - exact) ** 2).sum(axis=2)
    rank = np.argsort(apart, axis=1)[:, :k1]
    expected = np.maximum(jaccard(-(2 - 2 * exact @ exact.T), expanded(rank, k1), rank, k2), 0)
    distance = compute_jaccard_distance(torch.from_numpy(x).to(device), k1=k1, k2=k2, print_flag=False, search_option=3)
    assert isinstance(distance, np.ndarray) and distance.dtype == np.float32 and distance.shape == (60, 60)
    assert np.abs(distance - expected).max() < 1e-5
    half = compute_jaccard_distance(torch.from_numpy(x), k1, k2, False, 0, True)
    assert half.dtype == np.float16 and np.abs(half - expected).max() < 1e-3


def test_jaccard_distance_prints_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.from_numpy(crowd(10))
    compute_jaccard_distance(x, print_flag=False)
    assert capsys.readouterr().out == ""
    compute_jaccard_distance(x)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Computing jaccard distance..." and len(printed) == 2


def test_jaccard_distance_of_what_is_no_tensor() -> None:
    x = crowd(20)
    expected = compute_jaccard_distance(torch.from_numpy(x[::-1].copy()), print_flag=False)
    assert np.array_equal(compute_jaccard_distance(x[::-1], print_flag=False), expected)  # a negative stride
    with pytest.raises(TypeError, match=r"target_features must be \[N, D\] numbers, got list"):
        compute_jaccard_distance(list(torch.from_numpy(x)), print_flag=False)


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 1, 0.0), (11, 4, 1.0), (5, 9, 0.5)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_re_ranking(k1: int, k2: int, lambda_value: float, symmetric: bool) -> None:
    q, g = 12, 40
    x = crowd(q + g, seed=1)
    whole = np.sqrt(((x[:, None] - x) ** 2).sum(axis=2))
    qq, qg, gg = whole[:q, :q], whole[:q, q:], whole[q:, q:]
    if not symmetric:  # the original reads columns of the two square matrices
        rng = np.random.default_rng(2)
        qq, gg = qq * rng.uniform(0.9, 1.1, qq.shape), gg * rng.uniform(0.9, 1.1, gg.shape)
    whole = np.block([[qq, qg], [qg.T, gg]]) ** 2
    original = (whole / whole.max(axis=0)).T
    rank = np.argsort(original, axis=1, kind="stable")
    mixed = (1 - lambda_value) * jaccard(-original, expanded(rank, k1), rank, k2) + lambda_value * original
    reranked = re_ranking(qg, qq, gg, k1, k2, lambda_value)
    assert reranked.shape == (q, g) and reranked.dtype == np.float32
    assert np.abs(reranked - mixed[:q, q:]).max() < 1e-5


def test_re_ranking_names_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"q_q_dist must have shape \[2, 2\]"):
        re_ranking(np.zeros((2, 3)), np.zeros((3, 3)), np.zeros((3, 3)))


@pytest.mark.parametrize(("name", "value"), [("k1", 0), ("k2", 0), ("k1", -3), ("k2", float("inf")), ("k1", float("inf"))])
def test_re_ranking_names_a_number_of_neighbours_that_is_none(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"re_ranking: .*{name}.* must be"):
        re_ranking(np.zeros((2, 3)), np.zeros((2, 2)), np.zeros((3, 3)), **{name: value})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("matrix", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:overflow encountered in square")
def test_re_ranking_refuses_distances_that_are_no_numbers(value: float, matrix: int) -> None:
    """Once they came out as NaN, in the rows of others too."""
    distances = [np.ones(shape) for shape in ((2, 3), (2, 2), (3, 3))]
    distances[matrix][1, 0] = value
    with pytest.raises(ValueError, match="re_ranking: distances must be finite, and their squares"):
        re_ranking(*distances)


def test_re_ranking_of_nothing() -> None:
    assert re_ranking(np.zeros((0, 3)), np.zeros((0, 0)), np.zeros((3, 3))).shape == (0, 3)
    assert re_ranking(np.zeros((2, 0)), np.zeros((2, 2)), np.zeros((0, 0))).shape == (2, 0)


def test_re_ranking_of_features_is_told() -> None:
    """Some projects call it so, with k1, k2 and lambda behind."""
    with pytest.raises(ValueError, match=r"q_q_dist must have shape \[3, 3\] as q_g_dist is \[3, 8\]"):
        re_ranking(np.zeros((3, 8)), np.zeros((9, 8)), 50, 15, 0.3)


def problem(q: int = 15, g: int = 60, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 6, q), rng.integers(-1, 6, g), rng.integers(0, 3, q), rng.integers(0, 3, g)
    return rng.random((q, g)), *ids


def kept(at: int, distance: np.ndarray, qp: np.ndarray, gp: np.ndarray, qc: np.ndarray, gc: np.ndarray) -> np.ndarray:
    order = np.argsort(distance[at])
    return gp[order][~((gp[order] == qp[at]) & (gc[order] == qc[at]))]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_evaluate_rank(as_tensor: bool) -> None:
    """pid -1 is a person like any other here."""
    from sklearn.metrics import average_precision_score

    data = problem()
    curves, precisions = [], []
    for q in range(15):
        right = kept(q, *data) == data[1][q]
        if right.any():
            curves.append([right[:r].any() for r in range(1, 21)])
            precisions.append(average_precision_score(right, -np.arange(len(right))))
    cmc, mean = evaluate_rank(*(torch.from_numpy(a) if as_tensor else a for a in data), max_rank=20)
    assert cmc.dtype == np.float32 and np.abs(cmc - np.mean(curves, axis=0)).max() < 1e-6
    assert mean == pytest.approx(np.mean(precisions), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_distances_in_half_precision(dtype: torch.dtype) -> None:
    """As autocast makes them; NumPy has no bfloat16. Negated views too."""
    distance, *ids = problem(seed=3)
    half = torch.from_numpy(distance).to(dtype)
    for given in (half, torch._neg_view(-half)):
        cmc, mean = evaluate_rank(given, *ids, max_rank=10)
        wanted = evaluate_rank(half.double().numpy(), *ids, max_rank=10)
        assert np.array_equal(cmc, wanted[0]) and mean == wanted[1]
    square = half[:, :15] + half[:, :15].T
    wanted = re_ranking(*[square.float()] * 3)
    assert np.array_equal(re_ranking(*[square] * 3), wanted)
    if dtype == torch.float16:
        assert np.array_equal(re_ranking(*[square.numpy()] * 3), wanted)


def test_evaluate_rank_takes_lists_of_ids() -> None:
    """As fast-reid calls it: persons and cameras in lists of NumPy scalars, distances float32."""
    distance, *ids = problem(seed=2)
    expected = evaluate_rank(distance.astype(np.float32), *ids, max_rank=10)
    scores = evaluate_rank(distance.astype(np.float32), *(list(n) for n in ids), max_rank=10)
    assert np.array_equal(scores[0], expected[0]) and scores[1] == expected[1] > 0
    assert scores[0].dtype == np.float32 and isinstance(scores[1], np.float64)


def test_evaluate_rank_tells_apart_ids_that_float64_does_not() -> None:
    """int64 and uint64 meet in float64 in NumPy."""
    people = np.array([2**53, 2**53 + 1])
    places = np.zeros(1, np.int64), np.ones(2, np.int64)
    cmc, mean = evaluate_rank(np.array([[0.1, 0.2]]), people[1:], people.astype(np.uint64), *places, max_rank=2)
    assert cmc.tolist() == [0, 1] and mean == 0.5


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "g"])
def test_evaluate_rank_takes_distances_of_any_precision_and_byte_order(dtype: str) -> None:
    distance, *ids = problem(seed=6)
    distance = distance.astype(np.float32)
    expected = evaluate_rank(distance, *ids, max_rank=10)
    scores = evaluate_rank(distance.astype(dtype), *ids, max_rank=10)
    assert np.array_equal(scores[0], expected[0]) and scores[1] == expected[1]


def test_evaluate_rank_names_ids_that_do_not_fit() -> None:
    distance, persons, *ids = problem()
    with pytest.raises(ValueError, match=r"evaluate_rank: distmat .* got \[15, 60\], \[4\], \[60\], \[15\], \[60\]"):
        evaluate_rank(distance, persons[:4], *ids)


def test_both_generations_of_fast_reid() -> None:
    """Lists of NumPy scalars, as its evaluator passes them; one score for each query that has a match."""
    from sklearn.metrics import average_precision_score

    data = problem(q=25, g=40, seed=3)
    data[1][4] = 99
    precisions, penalties = [], []
    for q in range(25):
        right = kept(q, *data) == data[1][q]
        if right.any():
            precisions.append(average_precision_score(right, -np.arange(len(right))))
            penalties.append(right.sum() / (np.flatnonzero(right)[-1] + 1))
    assert len(precisions) == 24  # nobody is 99
    arguments = (data[0], *(list(ids) for ids in data[1:]))
    expected, _ = evaluate_rank(*arguments, max_rank=10)
    cmc, all_ap, all_inp = evaluate_rank_fastreid(*arguments, max_rank=10)
    assert np.array_equal(cmc, expected) and cmc.dtype == np.float32
    assert np.allclose(all_ap, precisions, rtol=0, atol=1e-12) and np.allclose(all_inp, penalties, rtol=0, atol=1e-12)
    cmc, mean_ap, mean_inp = evaluate_rank_fastreid_means(*arguments, max_rank=10, use_cython=False)
    assert np.array_equal(cmc, expected)
    assert mean_ap == pytest.approx(np.mean(precisions), abs=1e-12) and mean_inp == pytest.approx(np.mean(penalties), abs=1e-12)
    one = np.ones(1, dtype=np.int64)
    for function in (evaluate_rank_fastreid, evaluate_rank_fastreid_means):
        with pytest.raises(AssertionError, match="all query identities do not appear in gallery"):
            function(np.zeros((1, 1)), one, one, one, one, max_rank=1)


def test_evaluate_rank_notes_a_small_gallery(capsys: pytest.CaptureFixture[str]) -> None:
    cmc, _ = evaluate_rank(*problem(g=30))
    assert capsys.readouterr().out == "Note: number of gallery samples is quite small, got 30\n" and cmc.shape == (30,)
    cmc, _ = evaluate_rank(*problem(g=30), max_rank=30)
    assert not capsys.readouterr().out and cmc.shape == (30,)


@pytest.mark.parametrize("single_shot", [False, True])
def test_evaluate_rank_gives_as_many_ranks_as_asked_for(single_shot: bool) -> None:
    data = problem()
    assert evaluate_rank(*data, max_rank=0, use_metric_cuhk03=single_shot)[0].shape == (0,)
    with pytest.raises(ValueError, match="evaluate_rank: max_rank must be at least 0, got -1"):
        evaluate_rank(*data, max_rank=-1, use_metric_cuhk03=single_shot)
    with pytest.raises(TypeError, match="evaluate_rank: max_rank must be an integer, got float"):
        evaluate_rank(*data, max_rank=2.5, use_metric_cuhk03=single_shot)


def test_evaluate_rank_without_a_valid_query() -> None:
    one = np.ones(1, dtype=np.int64)
    with pytest.raises(AssertionError, match="all query identities do not appear in gallery"):
        evaluate_rank(np.zeros((1, 1)), one, one, one, one, max_rank=1)


def test_evaluate_rank_by_the_single_shot_protocol() -> None:
    """The same draws as the protocol makes one by one from numpy's global generator."""
    data = problem(seed=4)
    data[1][4] = 99  # nobody is
    state = np.random.get_state()
    try:
        np.random.seed(5)
        cmc, mean = evaluate_rank(*data, max_rank=5, use_metric_cuhk03=True)
        np.random.seed(5)
        curves = []
        for q in range(15):
            people = kept(q, *data)
            if data[1][q] not in people:
                continue
            places: dict[int, list[int]] = {}
            for place, person in enumerate(people):
                places.setdefault(int(person), []).append(place)
            curve = np.zeros(5)
            for _ in range(10):
                shown = people[sorted(np.random.choice(choice) for choice in places.values())]
                curve += (shown == data[1][q]).cumsum()[:5] > 0
            curves.append(curve / 10)
        assert len(curves) < 15
    finally:
        np.random.set_state(state)
    assert np.abs(cmc - np.mean(curves, axis=0)).max() < 1e-6
    assert mean == evaluate_rank(*data, max_rank=5)[1]


def test_whole_numbers_are_squared_as_numbers() -> None:
    distance = (np.random.default_rng(0).random((5, 5)) * 200).astype(np.uint8)
    wanted = re_ranking(*[distance.astype(np.float64)] * 3)
    assert np.array_equal(re_ranking(*[distance] * 3), wanted) and (wanted >= 0).all()


@pytest.mark.filterwarnings("error")
def test_distances_that_cannot_be_written_are_read_without_a_word() -> None:
    distance, *ids = problem(seed=2)
    expected = evaluate_rank(distance, *ids, max_rank=10)
    distance.flags.writeable = False
    assert evaluate_rank(distance, *ids, max_rank=10)[1] == expected[1]


def test_features_whose_squares_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="compute_jaccard_distance: target_features must be finite, and their squares"):
        compute_jaccard_distance(torch.randn(6, 4) * 1e20, 3, 2, print_flag=False)
