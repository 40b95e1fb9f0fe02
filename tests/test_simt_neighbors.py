"""The CUDA kernels of knn, Jaccard distance and DBSCAN on emulated threads: what the CPU ops give, in every thread order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gcl_fast import ops
from gcl_fast.ops import _jaccard, _knn
from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_neighbors import crowd, signs

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# The race detector is slow and finds a race in any order: one of them.
watched = pytest.mark.parametrize(("order", "race"), [*((o, False) for o in KERNEL_ORDERS), ("random", True)])
# Kernels whose steps no type changes: under the detector in one.
watched_in_one_type = pytest.mark.parametrize(
    ("dtype", "order", "race"),
    [*((d, o, False) for d in (torch.float32, torch.float64) for o in KERNEL_ORDERS), (torch.float32, "random", True)],
)
native = torch.ops.gcl_fast


def emulated(kernel: str, order: str, race: bool = False, **arrays: Tensor | int) -> dict[str, np.ndarray]:
    given = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()}
    return run("neighbors", kernel, order, 3, race=race, **given)


def same(got: np.ndarray, want: Tensor, name: str = "") -> None:
    expected = want.numpy()
    assert got.dtype == expected.dtype and got.shape == expected.shape, name
    assert got.tobytes() == expected.tobytes(), f"{name}: {(got != expected).sum()} of {got.size} differ"


@watched_in_one_type
@pytest.mark.parametrize(
    ("n", "k", "kind", "penalised"),
    [(40, 9, "signs", False), (45, 40, "crowd", True), (90, 80, "crowd", False), (5, 1, "signs", True)],
)
@pytest.mark.parametrize("by_columns", [False, True])
def test_knn_update(
    n: int, k: int, kind: str, penalised: bool, dtype: torch.dtype, by_columns: bool, race: bool, order: str
) -> None:
    x = (signs(n, 4, 3) if kind == "signs" else crowd(n, 6, 3)).to(dtype)  # signs of 4: at most 16 different rows
    penalty = x.square().sum(1) * torch.linspace(0, 1, n, dtype=dtype) if penalised else x.new_zeros(0)
    table = dict(zip(("original", "copy_start", "copies"), _knn.Copies.of(x).table, strict=True))
    value, index = x.new_full((n, k), -torch.inf), torch.full((n, k), 2**62)
    half = n // 2  # two updates: left columns, then right ones, for rows named in reverse
    rows = torch.arange(n - 1, -1, -1)
    product = x[rows] @ x.T
    for first, block in ((0, product[:, :half]), (half, product[:, half:])):
        part = penalty[first : first + block.shape[1]]
        arguments = {"block": block.contiguous(), "rows": rows, "first_row": 0, "first_column": first, "penalty": part, **table}
        laid = arguments | {"block": block.T.contiguous() if by_columns else block.contiguous(), "by_columns": int(by_columns)}
        out = emulated("knn", order, race, **laid, value0=value, index0=index)
        native.knn_update_(*arguments.values(), value, index)
        same(out["value"], value, "value")
        same(out["index"], index, "index")
    assert (index[:, 0] == rows).all() and index.max() < n


@every_order
@pytest.mark.parametrize("penalised", [False, True])
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("k", [32, 40, 140])  # lists in one register of each lane, in two, in memory
def test_knn_update_of_a_wide_block(k: int, by_columns: bool, penalised: bool, order: str) -> None:
    """More columns than a warp or a block of threads looks at in one go, NaN among them, rows that are no whole warp."""
    generator = torch.Generator().manual_seed(6)
    height, width = 35, 1100
    block = torch.randint(-500, 500, (height, width), generator=generator) / 512  # ties
    block[:, 3::97] = torch.nan
    block[4, :20], block[5] = torch.inf, -torch.inf
    penalty = torch.rand(width, generator=generator) if penalised else torch.zeros(0)
    nobody = torch.zeros(0, dtype=torch.int64)
    table = dict.fromkeys(("original", "copy_start", "copies"), nobody)
    value, index = torch.full((height, k), -torch.inf), torch.full((height, k), 2**62)
    names = {"rows": nobody, "first_row": 1060, "first_column": 0, "penalty": penalty, **table}
    laid = {"block": block.T.contiguous() if by_columns else block, "by_columns": int(by_columns)}
    out = emulated("knn", order, False, **laid, **names, value0=value, index0=index)
    native.knn_update_(block, *names.values(), value, index)
    same(out["value"], value, "value")
    same(out["index"], index, "index")


@watched
@pytest.mark.parametrize(("kernel", "half"), [("halves", torch.float16), ("bfloat16s", torch.bfloat16)])
def test_halves(kernel: str, half: torch.dtype, race: bool, order: str) -> None:
    for width in (33, 36, 520):  # 36, 520: four at a time
        x = crowd(7, width, seed=2)
        mean = x.mean(0)
        want = native.halve_rows(x, mean, half == torch.bfloat16)
        out = emulated(kernel, order, race, x=x, mean=mean)
        same(out["half"], want[0].view(torch.uint8), "half")
        for name, numbers in zip(("common", "length", "lost"), want[1:], strict=True):
            assert np.abs(out[name] - numbers.numpy()).max() <= 1e-5 * numbers.abs().max(), name  # another order


def scored(n: int, d: int, m: int) -> dict[str, Tensor]:
    """Candidates with scores that are off by up to their bound, and an offset."""
    x = torch.nn.functional.normalize(crowd(n, d, seed=5), dim=1)
    x[3] = x[1]  # equal rows tie
    generator = torch.Generator().manual_seed(0)
    offset, bound = torch.rand(n, generator=generator), 0.02 + 0.02 * torch.rand(n, generator=generator)
    off = bound[:, None] * (2 * torch.rand(n, n, generator=generator) - 1)
    score = x @ x.T + 0.99 * off - offset[:, None]
    score.fill_diagonal_(torch.inf)
    score, index = score.sort(dim=1, descending=True)
    score[:, 0] = (x * x).sum(1) - offset
    return {"x": x, "index": index[:, :m].contiguous(), "score": score[:, :m].contiguous(), "offset": offset, "bound": bound}


@watched
@pytest.mark.parametrize(("d", "m", "k"), [(33, 12, 5), (36, 40, 30), (520, 9, 9)])
@pytest.mark.parametrize("some", [False, True])
def test_candidates(d: int, m: int, k: int, some: bool, race: bool, order: str) -> None:
    given = scored(41, d, m)
    x = given.pop("x")
    rows = torch.tensor([40, 0, 3, 17]) if some else torch.zeros(0, dtype=torch.int64)
    given = {name: values[rows] for name, values in given.items()} if some else given
    given["score"][0, k - 1] -= 1  # one that is wrong
    want = native.candidate_products(x, rows, given["index"], given["score"], given["bound"], k)
    out = emulated("candidates", order, race, x=x, rows=rows, **given, k=k, whole=0)
    passed_over = want == -torch.inf
    assert np.array_equal(out["product"] == -np.inf, passed_over.numpy()) and bool(passed_over.any()) == (m > k)
    product = torch.from_numpy(out["product"])
    assert (product - want)[~passed_over].abs().max() < 1e-6  # another order of sums
    best = native.best_candidates(given["index"], product, given["score"], given["offset"], given["bound"], False, k)
    same(out["value"], best[0], "value")
    same(out["neighbour"], best[1], "neighbour")
    same(out["unsure"].astype(bool), best[2], "unsure")
    assert best[2].any() and (m == k or not best[2].all())
    if not some:  # the product of two is one number
        pairs = {(i, int(j)): v for i, row in enumerate(given["index"]) for j, v in zip(row, product[i].tolist(), strict=True)}
        both = [(v, pairs[j, i]) for (i, j), v in pairs.items() if pairs.get((j, i), -torch.inf) > -torch.inf < v]
        assert both and all(one == other for one, other in both)


@watched_in_one_type
def test_faults_of_neighbours(dtype: torch.dtype, race: bool, order: str) -> None:
    rows, width = 50, 37
    index = (torch.arange(rows)[:, None] + torch.arange(width)) % rows
    cases = [(None, 0), ((9, 20, -1), 1), ((3, 36, rows), 1), ((49, 0, 7), 2 + 4), ((5, 36, 6), 4), ((0, 33, 32), 4)]
    for change, want in cases:
        for numbers, odd in ((8, None), (8, 6), (7, 6)):  # four at a time, or not
            given, features = index.clone(), torch.ones(numbers, dtype=dtype)
            if change is not None:
                given[change[0], change[1]] = change[2]
            if odd is not None:
                features[odd] = torch.inf if numbers == 7 else torch.nan
            out = emulated("neighbor_faults", order, race, index=given, features=features)
            assert out["faults"][0] == int(native.neighbor_faults(given, features)) == want + 8 * (odd is not None)


@watched_in_one_type
def test_faults_of_graphs_and_packed_rows(dtype: torch.dtype, race: bool, order: str) -> None:
    starts = torch.tensor([0, 3, 3, 40, 45])
    indices, values = torch.arange(45, dtype=torch.int32) % 4, torch.linspace(0, 1, 45, dtype=dtype)
    for name, at, wrong, want in (
        ("values", 44, 1.5, 1),
        ("values", 0, -0.1, 1),
        ("values", 3, torch.nan, 1),
        ("indices", 7, 4, 2),
        ("indices", 7, -1, 2),
        ("indptr", 0, 1, 2),
        ("indptr", 4, 44, 2),
        ("indptr", 2, 2, 2),
        ("indptr", 1, 3, 0),
    ):
        graph = {"indptr": starts.clone(), "indices": indices.clone(), "values": values.clone()}
        graph[name][at] = wrong
        out = emulated("graph_faults", order, race, **graph)
        assert out["faults"][0] == int(native.graph_faults(*graph.values())) == want
    indptr = torch.tensor([0, 2, 2, 36, 36])
    packed = native.pack_rows(starts, indptr, indices, values, 36)
    out = emulated("pack", order, race, starts=starts, indptr=indptr, indices=indices, values=values)
    same(out["out_indices"], packed[0], "indices")
    same(out["out_values"], packed[1], "values")
    assert torch.equal(packed[1], torch.cat([values[:2], values[3:37]]))


def chain(dtype: torch.dtype, n: int = 40, k: int = 9, half: int = 5) -> dict[str, Tensor]:
    """Every intermediate result of one Jaccard distance, from the CPU ops."""
    x = torch.nn.functional.normalize(crowd(n, 40, seed=4).to(dtype), dim=1)
    similarity, index = ops.knn(x, k)
    rank = index.int()
    sets = dict(zip(("near", "num_near", "close", "num_close"), native.reciprocal_sets(rank, half), strict=True))
    accepted, count = native.expansion_count(*sets.values())
    start, total = _jaccard.starts_of(count)
    columns, weight = native.expansion_weights(*sets.values(), accepted, rank, similarity, x, start, total)
    return {
        "x": x,
        "similarity": similarity,
        "rank": rank,
        "accepted": accepted,
        "count": count,
        "start": start,
        "columns": columns,
        "weight": weight,
        **sets,
    }


@watched
def test_sets_and_expansion(race: bool, order: str) -> None:
    c = chain(torch.float32)
    sets = {name: c[name] for name in ("near", "num_near", "close", "num_close")}
    out = emulated("sets", order, race, rank=c["rank"], half_width=5)
    for name, want in sets.items():
        same(out[name], want, name)
    out = emulated("expansion_count", order, race, **sets)
    same(out["accepted"], c["accepted"])
    same(out["count"], c["count"])
    assert c["accepted"].any() and (c["count"] > c["num_near"]).any()  # the case shows something


@watched
@every_dtype
@pytest.mark.parametrize("known", ["similarity and features", "features", "nothing"])
def test_expansion_weights(known: str, dtype: torch.dtype, race: bool, order: str) -> None:
    c = chain(dtype)
    names = ("near", "num_near", "close", "num_close", "accepted", "rank")
    arguments = {name: c[name] for name in names}
    none = c["x"].new_zeros(0)
    arguments |= {"similarity": c["similarity"] if "similarity" in known else none}
    arguments |= {"features": none if known == "nothing" else c["x"], "start": c["start"], "total": int(c["start"][-1])}
    columns, weight = native.expansion_weights(*arguments.values())
    out = emulated("expansion_weights", order, race, **arguments, finished=1)
    same(out["columns"], columns)
    assert np.abs(out["values"] - weight.numpy()).max() < (1e-6 if dtype == torch.float32 else 1e-14)  # products: other order


@watched
@every_dtype
def test_similarities_alone_and_products_of_pairs(dtype: torch.dtype, race: bool, order: str) -> None:
    """What several processes do of the weights: known similarities, NaN for the rest, and that rest apart."""
    c = chain(dtype)
    arguments = {name: c[name] for name in ("near", "num_near", "close", "num_close", "accepted", "rank", "similarity")}
    arguments |= {"features": c["x"].new_zeros(0), "start": c["start"], "total": int(c["start"][-1])}
    columns, known = native.expansion_weights(*arguments.values(), False)
    out = emulated("expansion_weights", order, race, **arguments, finished=0)
    same(out["columns"], columns)
    assert np.array_equal(out["values"], known.numpy(), equal_nan=True)
    unknown = known.isnan()
    assert unknown.any() and not unknown.all()
    row = torch.repeat_interleave(c["start"].diff())[unknown]
    pairs = {"left": c["x"], "right": c["x"][5:], "row": row, "column": (columns[unknown].long() - 5).clamp(min=0)}
    want = native.row_products(*pairs.values())
    got = emulated("products", order, race, **pairs)["product"]
    assert np.abs(got - want.numpy()).max() < (1e-6 if dtype == torch.float32 else 1e-14)  # another order


@pytest.mark.parametrize(("order", "race"), [("random", False), ("random", True)])
def test_more_lists_than_a_warp_has_lanes(race: bool, order: str) -> None:
    """40 neighbours and 33 rows averaged: lanes with two lists, and a thread for the mean."""
    c = chain(torch.float32, 50, 40, 20)
    sets = {name: c[name] for name in ("near", "num_near", "close", "num_close")}
    for name, got in emulated("sets", order, race, rank=c["rank"], half_width=20).items():
        same(got, c[name], name)
    out = emulated("expansion_count", order, race, **sets)
    same(out["accepted"], c["accepted"])
    same(out["count"], c["count"])
    assert c["num_near"].max() > 33 and c["accepted"][:, 33:].any()
    arguments = sets | {name: c[name] for name in ("accepted", "rank", "similarity")}
    arguments |= {"features": c["x"].new_zeros(0), "start": c["start"], "total": int(c["start"][-1])}
    columns, known = native.expansion_weights(*arguments.values(), False)
    out = emulated("expansion_weights", order, race, **arguments, finished=0)
    same(out["columns"], columns)
    assert np.array_equal(out["values"], known.numpy(), equal_nan=True)
    rows = {"start": c["start"], "columns": c["columns"], "values": c["weight"]}
    for group in (32, 33):
        start, total = _jaccard.starts_of(native.mean_rows_count(*rows.values(), c["rank"], group))
        columns, values = native.mean_rows(*rows.values(), c["rank"], group, start, total)
        out = emulated("mean", order, race, **rows, rank=c["rank"], group=group, out_start=start, total=total)
        same(out["count"], start.diff(), "count")
        same(out["out_columns"], columns, "columns")
        same(out["out_values"], values, "values")


@watched
@every_dtype
def test_mean_and_overlaps_have_the_cpu_s_bits(dtype: torch.dtype, race: bool, order: str) -> None:
    c = chain(dtype, 16 if race else 40)
    rows = {"start": c["start"], "columns": c["columns"], "values": c["weight"]}
    count = native.mean_rows_count(*rows.values(), c["rank"], 3)
    start, total = _jaccard.starts_of(count)
    columns, values = native.mean_rows(*rows.values(), c["rank"], 3, start, total)
    out = emulated("mean", order, race, **rows, rank=c["rank"], group=3, out_start=start, total=total)
    for name, want in (("count", count), ("out_columns", columns), ("out_values", values)):
        same(out[name], want, name)

    matrix = {"start": start, "columns": columns, "values": values}
    holders = dict(zip(("holder_start", "holder_rows", "holder_values"), native.transpose_rows(*matrix.values()), strict=True))
    results = len(start) - 1
    for reach, first, step in ((_jaccard.ALL, 0, 1), (0.7, 1, 2)):
        some = {"first": first, "step": step, "results": (results - first + step - 1) // step}
        room = native.overlap_room(*matrix.values(), holders["holder_start"], first, results, step, reach)
        begins, total = _jaccard.starts_of(room)
        asked = matrix | holders | some | {"reach": torch.tensor(reach, dtype=torch.float64), "room": begins}
        want = native.overlap_rows(*matrix.values(), *holders.values(), first, results, step, reach, begins, total)
        assert want[0].sum() < total or reach == _jaccard.ALL
        for slots in (128,) if race else (128, 1024):
            out = emulated("overlap", order, race, **asked, slots=slots)
            same(out["needed"], room, "room")
            same(out["count"], want[0], "count")
            used = torch.arange(total) - torch.repeat_interleave(begins[:-1], room) < torch.repeat_interleave(want[0], room)
            for name, values in (("indices", want[1]), ("distance", want[2])):
                same(out[name][used.numpy()], values[used], name)


@watched
def test_a_row_that_fits_no_table_is_summed_up_in_parts(race: bool, order: str) -> None:
    """300 rows that all share a column, tables of 128 places: the partners are taken 64 to 150 at a time."""
    rows = 150 if race else 300
    generator = torch.Generator().manual_seed(5)
    weight = torch.rand(rows, 3, generator=generator)
    columns = torch.zeros(rows, 3, dtype=torch.int32)  # the first and the last are everybody's
    columns[:, 1], columns[:, 2] = torch.randint(1, rows - 1, (rows,), generator=generator), rows - 1
    values = (weight / weight.sum(1, keepdim=True)).view(-1)
    matrix = {"start": 3 * torch.arange(rows + 1), "columns": columns.view(-1), "values": values}
    holders = dict(zip(("holder_start", "holder_rows", "holder_values"), native.transpose_rows(*matrix.values()), strict=True))
    some = (0, rows, rows // 2, 0.6)
    begins, total = _jaccard.starts_of(native.overlap_room(*matrix.values(), holders["holder_start"], *some))
    count, indices, distance = native.overlap_rows(*matrix.values(), *holders.values(), *some, begins, total)
    asked = {"first": 0, "step": rows // 2, "results": 2, "reach": torch.tensor(0.6, dtype=torch.float64), "room": begins}
    out = emulated("overlap", order, race, **matrix, **holders, **asked, slots=128)
    same(out["count"], count, "count")
    for r in range(2):
        used = slice(int(begins[r]), int(begins[r] + count[r]))
        same(out["indices"][used], indices[used], "indices")
        same(out["distance"][used], distance[used], "distance")
    assert count.min() > 64


@watched
@every_dtype
@pytest.mark.parametrize(("spread", "eps", "min_samples"), [(0.4, 0.6, 3), (0.8, 0.7, 1)])
def test_dbscan(spread: float, eps: float, min_samples: int, dtype: torch.dtype, race: bool, order: str) -> None:
    found = ops.jaccard_distance(crowd(90, 12, seed=8, spread=spread).to(dtype), 9, 3)
    graph = {"indptr": found.indptr, "indices": found.indices, "values": found.values}
    radius = torch.tensor(eps, dtype=dtype)
    root = native.dbscan_roots(*graph.values(), float(radius), min_samples)
    same(emulated("roots", order, race, **graph, eps=radius, min_samples=min_samples)["root"], root)
    first = root == torch.arange(len(root))
    core_label = torch.where(root >= 0, (first.cumsum(0) - 1)[root.long().clamp(min=0)], -1)
    labels = native.dbscan_labels(*graph.values(), float(radius), core_label)
    same(emulated("labels", order, race, **graph, eps=radius, core_label=core_label)["labels"], labels)
    assert labels.max() > 2 and torch.equal(labels, ops.dbscan(found, eps, min_samples))


@every_order
def test_nothing_in_nothing_out(order: str) -> None:
    none = torch.zeros(0, dtype=torch.int32)
    out = emulated("sets", order, rank=none.view(0, 4), half_width=2)
    assert out["near"].shape == (0, 4) and out["num_close"].shape == (0,)
    graph = {"indptr": torch.zeros(1, dtype=torch.int64), "indices": none, "values": torch.zeros(0)}
    assert emulated("roots", order, **graph, eps=torch.tensor(0.5), min_samples=2)["root"].shape == (0,)


@every_order
def test_a_row_without_entries_has_no_pairs(order: str) -> None:
    """It has no room either: a count of one, for itself, would have shifted the rows behind it."""
    columns, values = torch.tensor([0, 2, 0], dtype=torch.int32), torch.tensor([0.5, 0.5, 1.0])
    matrix = {"start": torch.tensor([0, 2, 2, 3]), "columns": columns, "values": values}
    holders = dict(zip(("holder_start", "holder_rows", "holder_values"), native.transpose_rows(*matrix.values()), strict=True))
    begins, total = _jaccard.starts_of(native.overlap_room(*matrix.values(), holders["holder_start"], 0, 3, 1, 2.0))
    want = native.overlap_rows(*matrix.values(), *holders.values(), 0, 3, 1, 2.0, begins, total)
    reach = torch.tensor(2.0, dtype=torch.float64)
    out = emulated("overlap", order, **matrix, **holders, first=0, step=1, results=3, reach=reach, room=begins, slots=128)
    same(out["count"], want[0], "count")
    assert want[0].tolist() == [2, 0, 2]


@watched
@pytest.mark.parametrize(
    ("n", "d", "kind", "dtype"),
    [
        (70, 4, "signs", torch.float32),
        (66, 33, "crowd", torch.float64),
        (9, 70, "crowd", torch.float32),
        (1, 3, "crowd", torch.float64),
    ],
)
def test_walk(n: int, d: int, kind: str, dtype: torch.dtype, race: bool, order: str) -> None:
    """Walks of no neighbour, of some, of several rounds; copies; and a row that is not there."""
    x = (signs(n, d, 3) if kind == "signs" else crowd(n, d, 3)).to(dtype)
    index = torch.tensor([0, n - 1, n // 2, n // 3, n // 3])
    similarity = x[index] @ x.T
    similarity[torch.arange(5), index] = torch.inf
    nearest = similarity.sort(dim=1, descending=True, stable=True).indices
    near, reach = torch.tensor([n, 1, n // 2 + 1, n, 0]), torch.tensor([n, 1, n // 4 + 1, n // 2, n])
    want = native.mutual_walk(x, index, nearest, near, reach)
    out = emulated("walk", order, race, bank=x, index=index, nearest=nearest, near=near, reach=reach)
    same(out["steps"], want, "steps")
    assert want[0] == n - 1 and want[1] == want[4] == 0 and (n < 60 or 0 < want[2:4].min() < n // 2)
    if kind == "signs":  # whose products are whole numbers
        walked = [(b, place) for b in range(5) for place in range(1, int(want[b]) + 1)]
        for b, place in walked:
            q, c = index[b], nearest[b, place]
            nearer = ((x @ x[c] > x[q] @ x[c]) | ((x @ x[c] == x[q] @ x[c]) & (torch.arange(n) < q))).index_fill(0, c, False)
            assert out["before"][b, place] == nearer.sum()
    nearest[3, min(2, n - 1)] = n  # on the CPU an error
    out = emulated("walk", order, race, bank=x, index=index, nearest=nearest, near=near, reach=reach)
    assert out["steps"][3] <= 1 and np.array_equal(np.delete(out["steps"], 3), np.delete(want.numpy(), 3))
