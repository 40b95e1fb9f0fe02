"""Neighbours, Jaccard distance and DBSCAN of two and four processes over gloo: what one process finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gcl_fast import distributed, ops
from gcl_fast.ops import _jaccard, _knn, _knn_halves
from gcl_fast.ops import _shared_neighbors as shared
from gcl_fast.ops._rows import unit
from gcl_fast.ops._share import Share
from gcl_fast.pseudo_labels import cluster, labels_of_shares
from tests.shared_labels_worker import CASES, HALVED
from tests.test_neighbors import crowd, signs

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory) -> list[dict]:
    out = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(request.param)]
    worker = [str(ROOT / "tests" / "shared_labels_worker.py"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([*launch, *worker], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(request.param)]


@pytest.mark.parametrize("case", CASES)
def test_every_process_has_the_labels_of_one(case: str, ranks: list[dict]) -> None:
    x, rule = CASES[case]
    want = cluster(x, **rule, cameras=torch.arange(len(x)) % 2)
    for found in ranks:
        labels, eps, agreement = found[case]
        assert torch.equal(labels, want.labels) and agreement == want.camera_agreement
        assert eps == pytest.approx(want.eps, rel=1e-12)  # blocks of another shape may round products otherwise
    assert case not in ("plain", "rho", "copies") or (want.num_clusters > 3 and want.num_outliers + want.num_clusters > 5)


def test_neighbours_are_those_of_one_process(ranks: list[dict]) -> None:
    value, index = ops.knn(signs(61, 16, seed=1), 9)
    assert torch.equal(torch.cat([found["nearest"][1] for found in ranks]), index)
    assert torch.equal(torch.cat([found["nearest"][0] for found in ranks]), value)


def test_equal_rows_are_known_wherever_they_are(ranks: list[dict]) -> None:
    want = _knn.Copies.of(signs(60, 4, seed=7))
    assert len(want.copies)
    for found in ranks:
        assert all(torch.equal(got, part) for got, part in zip(found["copies of rows"], want.table, strict=True))


def test_some_rows_are_sought_among_those_of_all(ranks: list[dict]) -> None:
    value, index = ops.knn(signs(61, 16, seed=1), 9)
    own = len(ranks[0]["nearest"][1])
    assert torch.equal(ranks[0]["some"][1], index[:own].flip(0)[:5]) and torch.equal(ranks[0]["some"][0], value[:own].flip(0)[:5])
    assert all(found["some"][1].shape == (0, 9) for found in ranks[1:])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", HALVED)
def test_candidates_in_half_precision_give_the_neighbours_of_one_process(name: str, half: torch.dtype, ranks: list[dict]) -> None:
    x, k = HALVED[name]
    want = _knn_halves.nearest_by_halves(unit(x), k, half)
    value, index, counts = (list(part) for part in zip(*(found[f"{name} {half}"] for found in ranks), strict=True))
    assert torch.equal(torch.cat(index), want.index) and torch.allclose(torch.cat(value), want.value, atol=1e-6)
    own = [len(part) for part in value]
    if name == "unsure" and half == torch.bfloat16:  # the sample says so, to all
        assert counts == [[n] for n in own]
    if name == "apart":  # searched again where its process has such rows; the others take part
        assert all(len(looked) == 1 for looked in counts) and 20 <= counts[0][0] < own[0] and counts[-1][0] < 10


def test_processes_agree_on_half_precision(ranks: list[dict]) -> None:
    assert all(found["chosen"] == [True, False] for found in ranks)


def test_products_are_exact_whatever_the_program_asks(ranks: list[dict]) -> None:
    assert all(found["precision"] <= {"highest"} for found in ranks) and ranks[0]["precision"]


def test_shares_of_any_length_are_gathered_in_order(ranks: list[dict]) -> None:
    want = torch.tensor([0] * 5 + [2] * 2 + [3] * 7)[: 5 if len(ranks) == 2 else None]
    assert all(torch.equal(found["gathered"], want[:, None].expand(-1, 2)) for found in ranks)


def test_features_that_are_not_finite_on_one_are_told_by_all(ranks: list[dict]) -> None:
    assert all("features must be finite, got NaN or infinity in 2 rows" in found["error"] for found in ranks)


def test_one_process_is_a_share_too() -> None:
    x, rule = CASES["plain"]
    labels, eps = labels_of_shares(x, **rule)
    assert torch.equal(labels, cluster(x, **rule).labels) and eps == rule["eps"]
    for images, label in ((4, 0), (3, -1)):  # everybody is within a radius of 1: one cluster, where it has enough images
        assert labels_of_shares(x[:images], k1=2, k2=1, eps=1.0, min_samples=4)[0].tolist() == [label] * images
    assert distributed.gather_uneven(x) is x and distributed.fair_share(7) == slice(0, 7)


def test_weights_from_parts_have_the_bits_of_the_whole(device: torch.device) -> None:
    """Similarities that are not known are computed apart."""
    x = unit(crowd(80, 24, seed=2)).to(device)
    similarity, index = _knn.nearest(x, 9)
    want = _jaccard.neighbour_sets(index, similarity, x, 9, 3)
    got = shared.neighbour_sets(x, 9, 3, Share(x))
    assert all(torch.equal(a, b) for a, b in zip((*want.rows, *want.holders), (*got.rows, *got.holders), strict=True))


def test_lists_are_merged_by_value_and_index() -> None:
    inf, far = torch.inf, torch.iinfo(torch.int64).max
    mine = _knn.Lists(torch.tensor([[0.1, 0.9, 0.5, 0.5]]), torch.tensor([[7, 4, 2, 6]]))
    theirs = _knn.Lists(torch.tensor([[-inf, 0.9, 0.5, -inf]]), torch.tensor([[-1, 3, 5, far]]))
    value, index = mine.merged(theirs)
    assert index.tolist() == [[7, 3, 4, 2]] and value.tolist() == [[pytest.approx(0.1), *map(pytest.approx, (0.9, 0.9, 0.5))]]


def test_equal_rows_have_equal_lengths_whatever_stands_beside_them(device: torch.device) -> None:
    x = crowd(40, 13, seed=3).to(device)
    alone = torch.cat([shared.unit_rows(row[None]) for row in x])
    assert torch.equal(shared.unit_rows(x), alone) and torch.equal(shared.unit_rows(x.half()), shared.unit_rows(x.half().float()))
    assert (alone - unit(x)).abs().max() < 1e-6 and torch.equal(shared.unit_rows(torch.zeros(2, 3)), torch.zeros(2, 3))
