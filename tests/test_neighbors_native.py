"""The native ops below knn, jaccard_distance and dbscan: opcheck, direct calls with bad arguments, many DBSCAN cases."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gcl_fast import ops, reference
from gcl_fast.ops import SparseDistance, _jaccard, _knn, dbscan, knn
from tests.instruction_sets import said_with
from tests.test_neighbors import crowd, ranking, sparse
from tests.threads import threads

native = torch.ops.gcl_fast
ROOT = Path(__file__).resolve().parents[1]


COPYING = ("best_candidates", "neighbor_faults", "graph_faults", "pack_rows")


def compressed(dense: Tensor) -> _jaccard.Rows:
    row, column = dense.nonzero(as_tuple=True)
    start, _ = _jaccard.starts_of(torch.bincount(row, minlength=len(dense)))
    return _jaccard.Rows(start, column.int(), dense[row, column])


def calls(device: torch.device, dtype: torch.dtype = torch.float32) -> list[tuple[str, tuple]]:
    """One good call of every op."""
    x = torch.nn.functional.normalize(crowd(40, 8, seed=3).to(device, dtype), dim=1)
    similarity, index = knn(x, 8)
    rank = index.int()
    sets = native.reciprocal_sets(rank, 5)
    accepted, count = native.expansion_count(*sets)
    start, total = _jaccard.starts_of(count)
    weights = (*sets, accepted, rank, similarity, x, start, total)
    columns, values = native.expansion_weights(*weights)
    rows = start, columns, values
    mean_start, mean_total = _jaccard.starts_of(native.mean_rows_count(*rows, rank, 3))
    matrix = _jaccard.Rows(mean_start, *native.mean_rows(*rows, rank, 3, mean_start, mean_total))
    holders = _jaccard.transposed(matrix)
    some = (1, 38, 3, 0.6)  # rows 1, 4 ... below 38, pairs within 0.6
    room, slots = _jaccard.starts_of(native.overlap_room(*matrix, holders.start, *some))
    graph = _jaccard.distances(_jaccard.Overlapping(matrix, holders))
    core_label = torch.zeros(40, dtype=torch.int64, device=device)
    nobody, none = core_label[:0], x[:0, 0]
    nearest = (x[:5] @ x.T).sort(dim=1, descending=True, stable=True).indices
    near_and_reach = torch.full((5,), 20, device=device), torch.full((5,), 9, device=device)
    lists = x.new_full((40, 4), -torch.inf), torch.full((40, 4), 99, device=device)
    operators = [
        ("knn_update_", (x @ x.T, nobody, 0, 0, none, nobody, nobody, nobody, *lists)),
        ("reciprocal_sets", (rank, 5)),
        ("expansion_count", tuple(sets)),
        ("expansion_weights", weights),
        ("row_products", (x, x[3:], index[:, 1], index[:, 2].clamp(max=36))),
        ("softmax_rows_", (start, values.clone())),
        ("mean_rows_count", (*rows, rank, 3)),
        ("mean_rows", (*rows, rank, 3, mean_start, mean_total)),
        ("overlap_room", (*matrix, holders.start, *some)),
        ("overlap_rows", (*matrix, *holders, *some, room, slots)),
        ("neighbor_faults", (index, x)),
        ("graph_faults", tuple(graph)),
        ("pack_rows", (graph.indptr, graph.indptr, graph.indices, graph.values, len(graph.values))),
        ("dbscan_roots", (*graph, 0.5, 3)),
        ("dbscan_labels", (*graph, 0.5, core_label)),
        ("mutual_walk", (x, index[:5, 0], nearest, *near_and_reach)),
    ]
    if dtype == torch.float32:
        score, bound = similarity - 0.1, x.new_full((40,), 0.11)
        operators += [
            ("halve_rows", (x, x.mean(0), False)),
            ("candidate_products", (x, nobody, index, score, bound, 3)),
            ("best_candidates", (index, similarity, score, bound, bound, False, 3)),
        ]
    if device.type != "cpu":
        return operators
    dense = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)).triu().to(dtype)
    dense[dense < 0.8] = 0
    half = compressed(dense)
    whole = _jaccard.starts_of(native.mirrored_count(*half))
    return [
        *operators,
        ("transpose_rows", matrix),
        ("overlap_upper_rows", (*matrix, *holders, *some, room, slots)),
        ("mirrored_count", half),
        ("mirrored_rows", (*half, *whole)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype, device: torch.device) -> None:
    tests = ("test_schema", "test_faketensor")  # nothing here has a gradient
    for name, arguments in calls(device, dtype):
        torch.library.opcheck(getattr(native, name).default, arguments, test_utils=tests)


def test_the_walk_is_registered_with_the_other_ops() -> None:
    """Not only where MLC's stage was imported."""
    code = """import torch, gcl_fast.ops
walk = torch.ops.gcl_fast.mutual_walk
b, one = torch.ones(3, 2, device="meta"), torch.ones(1, dtype=torch.int64, device="meta")
print(walk(b, one, one.expand(1, 3), one, one).shape)"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "torch.Size([1])"


@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("number", [-1, 2**63 - 1])
def test_a_first_row_or_column_whose_last_would_overflow_is_an_error(at: int, number: int) -> None:
    arguments = list(dict(calls(torch.device("cpu")))["knn_update_"])
    arguments[at] = number
    with pytest.raises(RuntimeError, match=f"first_row and first_column must be from 0 to .*{number}"):
        native.knn_update_(*arguments)


def odd_block(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A block [37, 301] with ties, NaN and infinity, and a penalty for its columns."""
    generator = torch.Generator().manual_seed(5)
    block = torch.randn(37, 301, generator=generator).to(dtype)
    block[3, 40:200] = block[3, 40]
    block[5, 7], block[6, ::2], block[8] = torch.nan, -torch.inf, 1
    return block, torch.randn(301, generator=generator, dtype=torch.float64 if dtype == torch.float64 else torch.float32)


def chosen(dtype: torch.dtype) -> list[list]:
    """Lists of 37 rows out of a block of 301 columns, at once and the later columns first, by rows and by columns, without a
    penalty and with one."""
    block, penalty = odd_block(dtype)
    nobody, real = torch.zeros(0, dtype=torch.int64), penalty.dtype
    results = []
    for taken in (penalty[:0], penalty):
        for given in (block, block.T.contiguous().T):
            for parts in ([(0, 301)], [(150, 301), (0, 150)]):
                value, index = torch.full((37, 20), -torch.inf, dtype=real), torch.full((37, 20), 2**60)
                for first, last in parts:
                    native.knn_update_(
                        given[:, first:last], nobody, 50, first, taken[first:last], nobody, nobody, nobody, value, index
                    )
                results.append([value, index])
    return results


@pytest.mark.parametrize("count", [1, 3])  # of threads
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_lists_are_the_sorted_block(dtype: torch.dtype, count: int) -> None:
    """Of bfloat16 too, which is widened as it is read."""
    block, penalty = odd_block(dtype)
    with threads(count):
        found = chosen(dtype)
    for results, taken in ((found[:4], torch.zeros_like(penalty)), (found[4:], penalty)):
        score = (block.to(penalty.dtype) - taken).nan_to_num(-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        own = torch.arange(37)[:, None], 50 + torch.arange(37)[:, None]
        itself = score[own].clone()
        score[own] = torch.inf  # itself first
        value, index = score.sort(dim=1, descending=True, stable=True)
        value[:, :1] = itself
        for got in results:
            assert torch.equal(got[0], value[:, :20]) and torch.equal(
                got[1][got[0] > -torch.inf], index[:, :20][got[0] > -torch.inf]
            )


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_lesser_instruction_sets_choose_the_same(isa: str) -> None:
    code = (
        "import pickle, sys, torch; from tests.test_neighbors_native import chosen\n"
        "types = torch.float32, torch.float64, torch.bfloat16\n"
        "sys.stdout.buffer.write(pickle.dumps([[t.numpy() for pair in chosen(d) for t in pair] for d in types]))\n"
    )
    for dtype, results in zip((torch.float32, torch.float64, torch.bfloat16), pickle.loads(said_with(isa, code)), strict=True):
        for got, want in zip(results, [t for pair in chosen(dtype) for t in pair], strict=True):
            assert np.array_equal(got, want.numpy())


def test_a_block_of_another_type_is_an_error() -> None:
    arguments = list(dict(calls(torch.device("cpu")))["knn_update_"])
    with pytest.raises(RuntimeError, match="knn_update_: block must be float32 or float64, or bfloat16 on the CPU"):
        native.knn_update_(arguments[0].half(), *arguments[1:])
    with pytest.raises(RuntimeError, match="knn_update_: value must be float32"):
        native.knn_update_(arguments[0].bfloat16(), *arguments[1:-2], arguments[-2].double(), arguments[-1])


def test_a_wrong_number_in_a_direct_call_is_an_error_not_a_crash() -> None:
    for name, arguments in calls(torch.device("cpu")):
        op = getattr(native, name)
        for at, value in enumerate(arguments):
            if isinstance(value, Tensor) and value.numel() and not value.is_floating_point() and name != "knn_update_":
                if (name == "dbscan_labels" and at == 4) or name in COPYING or value.dtype == torch.uint8:
                    continue  # labels and neighbours are only copied or looked at; any byte but 0 is yes
                wrong = value.clone()
                wrong.view(-1)[-1] = 10**6
                with pytest.raises(RuntimeError, match=name):
                    op(*arguments[:at], wrong, *arguments[at + 1 :])
            if isinstance(value, Tensor) and value.numel():
                with pytest.raises(RuntimeError, match=name):
                    op(*arguments[:at], value.to(torch.complex64), *arguments[at + 1 :])


@pytest.mark.parametrize("seed", range(10))
def test_dbscan_of_a_hundred_graphs_is_scikit_learn_s(seed: int) -> None:
    """A thousand in all: chains, copies, points alone, distances of eps exactly, min_samples from 1."""
    from sklearn.cluster import DBSCAN

    rng = np.random.default_rng(seed)
    several = 0
    for case in range(100):
        n, eps, min_samples = int(rng.integers(1, 40)), float(rng.choice([0.25, 0.5, 0.55])), int(rng.integers(1, 6))
        dtype = np.float32 if case % 2 else np.float64
        if case % 4 == 0:  # points on a line, in steps of eps or a little more, many of them copies
            points = rng.permutation(np.cumsum(rng.choice([0.0, eps, eps, eps * 1.25, 2.0], n)))
            dense = np.minimum(np.abs(points[:, None] - points), 1.0)
        else:
            dense = rng.choice([0.0, 0.25, 0.5, 0.55, 0.75], size=(n, n))
            dense[rng.random((n, n)) > rng.uniform(0.02, 0.3)] = 1
            dense = np.tril(dense, -1)
            dense = dense + dense.T
        dense = dense.astype(dtype)
        want = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(dense)
        assert dbscan(sparse(dense), eps, min_samples).tolist() == want.tolist(), (case, eps, min_samples)
        several += want.max() > 0
    assert several > 20


def test_long_lists_are_sorted_whole(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    x = crowd(60, 12, seed=9).to(device)
    running = knn(x, 20)
    monkeypatch.setattr(_knn, "LONGEST", 10)
    assert torch.equal(running[1], knn(x, 20)[1]) and (running[0] - knn(x, 20)[0]).abs().max() < 1e-6
    assert np.array_equal(running[1].cpu().numpy(), ranking(x.cpu(), 20))


def test_infinite_products_still_give_row_numbers(device: torch.device) -> None:
    """Squared lengths beyond float32: differences of infinities are NaN, which comes last."""
    x = torch.full((20, 4), 1e30, device=device) * torch.arange(1, 21, device=device)[:, None]
    index = ops.neighbors.nearest_by_distance(x, 6)
    assert torch.equal(index[:, 0].cpu(), torch.arange(20)) and index.min() >= 0 and index.max() < 20


def test_a_cluster_larger_than_a_block(device: torch.device) -> None:
    """A chain through thousands of rows is one cluster, numbered after an earlier one."""
    n = 5000
    row = torch.arange(n)
    left, right = (row - 1).clamp(min=0), (row + 1).clamp(max=n - 1)
    pairs = torch.stack([left, row, right], 1)  # [N, 3]
    keep = torch.ones(n, 3, dtype=torch.bool)
    keep[0, 0] = keep[-1, 2] = False
    values = torch.where(pairs == row[:, None], 0.0, 0.25)
    values[9, 2] = values[10, 0] = 0.9  # a gap
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), keep.sum(1).cumsum(0)])
    chain = SparseDistance(indptr.to(device), pairs[keep].to(device), values[keep].to(device), shape=(n, n))
    labels = dbscan(chain, 0.25, 2).cpu()
    assert torch.equal(labels, (row >= 10).long())
    short = SparseDistance(indptr[:41], pairs[:40][keep[:40]].clamp(max=39), values[:40][keep[:40]], shape=(40, 40))
    assert torch.equal(labels[:39], reference.dbscan(short, 0.25, 2)[:39])


@pytest.mark.parametrize("count", [1, 3])  # of threads
def test_a_fault_is_found_wherever_it_is(count: int, device: torch.device) -> None:
    words = ops.neighbors
    index = (torch.arange(300)[:, None] + torch.arange(4)) % 300
    x, values, indices = torch.zeros(300, 400), torch.full((120_000,), 0.5), torch.arange(120_000, dtype=torch.int32) % 400
    start = 300 * torch.arange(401)

    def changed(t: Tensor, at: float, value: float) -> Tensor:
        t = t.clone()
        t.view(-1)[int(at * (t.numel() - 1))] = value
        return t.to(device)

    with threads(count):
        neighbours, graph = [t.to(device) for t in (index, x)], [t.to(device) for t in (start, indices, values)]
        assert not native.neighbor_faults(*neighbours).any() and not native.graph_faults(*graph).any()
        for at in (0.0, 0.4, 1.0):
            row = int(at * 299)
            for value in (torch.nan, torch.inf, -torch.inf):
                assert native.neighbor_faults(neighbours[0], changed(x, at, value)) == words.NOT_FINITE
            for column, neighbour, word in (
                (3, -1, words.NO_ROW),
                (3, 300, words.NO_ROW),
                (0, (row + 9) % 300, words.NOT_ITSELF),
                (3, (row + 1) % 300, words.TWICE),
            ):
                assert native.neighbor_faults(changed(index, (4 * row + column) / 1199, neighbour), neighbours[1]) == word
            for value in (-0.1, 1.1, torch.nan):
                assert native.graph_faults(*graph[:2], changed(values, at, value)) == words.NO_DISTANCE
            for column in (-1, 400):
                assert native.graph_faults(graph[0], changed(indices, at, column), graph[2]) == words.MALFORMED
            begin = 300 * int(at * 400)
            wrong = (begin - 1, begin + 1) if at in (0, 1) else (begin - 301, begin + 301)
            for value in wrong:
                assert native.graph_faults(changed(start, at, value), *graph[1:]) == words.MALFORMED


def test_rows_asked_for_are_rows_of_the_whole(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any rows, any radius, room for a few entries at a time: what the whole matrix holds."""
    similarity, index = knn(crowd(120, 8, seed=11, spread=0.8).to(device), 12)
    sets = _jaccard.neighbour_sets(index, similarity, None, 12, 4)
    whole = _jaccard.distances(sets)
    assert len(whole.values) > 2000
    monkeypatch.setattr(_jaccard, "ROOM", {"cpu": 300, "cuda": 300})
    for reach, first, last, step in (
        (_jaccard.ALL, 0, 120, 1),
        (0.7, 0, 120, 1),
        (0.5, 17, 99, 4),
        (0.0, 3, 3, 1),
        (0.9, 119, 120, 9),
    ):
        got = _jaccard.distances(sets, reach, first, last, step)
        rows = range(first, last, step)
        assert got.indptr.tolist()[0] == 0 and len(got.indptr) == len(rows) + 1
        for at, row in enumerate(rows):
            mine, theirs = (slice(p.indptr[n], p.indptr[n + 1]) for p, n in ((got, at), (whole, row)))
            near = whole.values[theirs] <= torch.tensor(reach, dtype=torch.float32)
            assert torch.equal(got.indices[mine], whole.indices[theirs][near]) and got.indices.dtype == torch.int32
            assert torch.equal(got.values[mine], whole.values[theirs][near])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reach_that_is_the_distance_of_a_pair_takes_it_in(dtype: torch.dtype, device: torch.device) -> None:
    """However the sums of what rows share are rounded."""
    x = torch.nn.functional.normalize(crowd(150, 8, seed=12, spread=0.8).to(device, dtype), dim=1)
    sets = _jaccard.neighbour_sets(knn(x, 30)[1], None, x, 30, 6)
    whole = _jaccard.distances(sets)
    for reach in whole.values.unique()[::40].tolist():
        got, near = _jaccard.distances(sets, reach), whole.values <= reach
        assert torch.equal(got.indices, whole.indices[near]) and torch.equal(got.values, whole.values[near])


def test_few_pairs_of_many_rows_come_in_order(device: torch.device) -> None:
    """Each of 5000 rows holds two columns, and two rows each column."""
    sparse_matrices = pytest.importorskip("scipy.sparse")
    row = np.arange(5000)
    columns = np.sort([row, (7 * row + 1) % 5000], axis=0)
    start = np.arange(0, 10_001, 2)
    ones = sparse_matrices.csr_array((np.ones(10_000), columns.T.ravel(), start), shape=(5000, 5000))
    common = (ones @ ones.T).tocsr()
    common.sort_indices()
    parts = torch.from_numpy(start), torch.from_numpy(columns.T.ravel()).int(), torch.full((10_000,), 0.5)
    rows = _jaccard.Rows(*(part.to(device) for part in parts))
    got = _jaccard.distances(_jaccard.Overlapping(rows, _jaccard.transposed(rows)))
    shared = common.data / 2
    assert got.indptr.tolist() == common.indptr.tolist() and got.indices.tolist() == common.indices.tolist()
    assert np.abs(got.values.cpu().numpy() - (1 - shared / (2 - shared))).max() < 1e-6


def test_the_whole_of_a_symmetric_matrix_comes_from_its_upper_half() -> None:
    dense = torch.rand(2200, 2200, generator=torch.Generator().manual_seed(1))  # rows of more than one thread
    dense = torch.where(dense + dense.T > 1.8, dense + dense.T, 0.0)  # some of the diagonal is empty too
    dense[5], dense[:, 5] = 0, 0
    rows, whole = compressed(dense.triu()), compressed(dense)
    for count in (1, 2, 3):
        with threads(count):
            start, total = _jaccard.starts_of(native.mirrored_count(*rows))
            columns, values = native.mirrored_rows(*rows, start, total)
            assert all(torch.equal(found, wanted) for found, wanted in zip((start, columns, values), whole, strict=True))
    below = rows._replace(columns=rows.columns.clone())
    below.columns[-1] = 3
    with pytest.raises(RuntimeError, match=r"mirrored_count: columns must be from the diagonal on, row \d+ has others"):
        native.mirrored_count(*below)
    for more in (1, -1):  # in row 0, and so as many less or more in row 1
        moved = start.clone()
        moved[1] += more
        has = int(start[1])
        with pytest.raises(
            RuntimeError, match=f"mirrored_rows: out_start has room for {has + more} entries in row 0, which has {has}"
        ):
            native.mirrored_rows(*rows, moved, total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reach", [_jaccard.ALL, 0.6])
def test_pairs_summed_once_have_the_bits_of_pairs_summed_twice(reach: float, dtype: torch.dtype) -> None:
    x = torch.nn.functional.normalize(crowd(300, 8, seed=4).to(dtype), dim=1)
    similarity, index = knn(x, 12)
    sets = _jaccard.neighbour_sets(index, similarity, x, 12, 4)
    once = _jaccard.distances(sets, reach)
    twice = [_jaccard.distances(sets, reach, first, first + 150) for first in (0, 150)]
    assert torch.equal(once.indptr.diff(), torch.cat([part.indptr.diff() for part in twice]))
    for name in ("indices", "values"):
        assert torch.equal(getattr(once, name), torch.cat([getattr(part, name) for part in twice]))


def test_too_little_room_is_an_error_and_nothing_is_written_beyond() -> None:
    similarity, index = knn(crowd(40, 8, seed=3), 8)
    sets = _jaccard.neighbour_sets(index, similarity, None, 8, 3)
    begins = torch.arange(41)  # room for one entry a row
    with pytest.raises(RuntimeError, match="overlap_rows: room does not hold the rows"):
        native.overlap_rows(*sets.rows, *sets.holders, 0, 40, 1, 2.0, begins, 40)


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize(("name", "at", "words"), [("expansion_weights", 8, "the sets"), ("mean_rows", 5, "the rows")])
def test_starts_of_rows_that_are_longer_or_shorter_are_an_error(name: str, at: int, words: str, more: int) -> None:
    arguments = list(dict(calls(torch.device("cpu")))[name])
    arguments[at] = arguments[at].clone()
    arguments[at][20] += more
    with pytest.raises(RuntimeError, match=f"{name}: (out_)?start does not fit {words}"):
        getattr(native, name)(*arguments)
