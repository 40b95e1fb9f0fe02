"""An index out of range is one error type in every op on the CPU: `IndexRangeError`, an IndexError and a ValueError, which names
the op, the argument, the range, the first such index and its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gcl_fast import memory, ops
from gcl_fast.compat import ClusterMemory, Memory
from gcl_fast.ops.centroids import FEW, centroid_cross_entropy
from gcl_fast.ops.neighbors import jaccard_distance

BANK = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
QUERY, LABELS = BANK[:3] * 2, torch.tensor([0, 0, 1, 1, -1])
TRIANGLE = torch.tensor([[[0.0, 0, 1], [9, 0, 1], [0, 9, 1]]])
CAMERA = torch.tensor([[1.0, 0, 0]])


def faces(wrong: int) -> Tensor:
    return torch.tensor([[0, 1, 2], [2, wrong, 0]])


def sparse(wrong: int) -> ops.SparseDistance:
    return ops.SparseDistance(torch.tensor([0, 1, 3]), torch.tensor([0, 1, wrong]), torch.tensor([0.0, 0.5, 0.5]), (2, 2))


def many() -> Tensor:
    return torch.ones(FEW, 4)


CALLS = {
    "bank_nce": (lambda w: ops.bank_nce(QUERY, BANK, LABELS, torch.tensor([0, w, 2]), temperature=0.1), "positive", 5, "[1]"),
    "bank_nce of several": (
        lambda w: ops.bank_nce(QUERY, BANK, LABELS, torch.tensor([[0, 1], [2, w], [w, w]]), temperature=0.1),
        "positive",
        5,
        "[1, 1]",
    ),
    "draw_positives": (lambda w: ops.draw_positives(LABELS, torch.tensor([w, 0]), seed=0), "index", 5, "[0]"),
    "gcl_memory_loss": (
        lambda w: ops.gcl_memory_loss(QUERY, QUERY, BANK, LABELS, torch.tensor([0, 1, w]), seed=0),
        "index",
        5,
        "[2]",
    ),
    "gcl_memory_step_": (
        lambda w: ops.gcl_memory_step_(QUERY, QUERY, BANK.clone(), LABELS, torch.tensor([0, 1, w]), seed=0, momentum=0.5),
        "index",
        5,
        "[2]",
    ),
    "bank_update_": (lambda w: ops.bank_update_(BANK.clone(), torch.tensor([0, w, w]), QUERY, 0.5), "index", 5, "[1]"),
    "centroid_cross_entropy": (lambda w: centroid_cross_entropy(QUERY, BANK, torch.tensor([0, 1, w]), 0.1), "targets", 5, "[2]"),
    "centroid_cross_entropy of many": (
        lambda w: centroid_cross_entropy(QUERY, many(), torch.tensor([0, w, 1]), 0.1),
        "targets",
        FEW,
        "[1]",
    ),
    "jaccard_distance": (lambda w: jaccard_distance(torch.tensor([[0, 1], [1, w]]), k1=2), "x", 2, "[1, 1]"),
    "dbscan": (lambda w: ops.dbscan(sparse(w), 0.6, 1), "distance.indices", 2, "[2]"),
    "rasterize": (lambda w: ops.rasterize(TRIANGLE, faces(w), (8, 8)), "faces", 3, "[1, 1]"),
    "render_mesh": (lambda w: ops.render_mesh(TRIANGLE, faces(w), CAMERA, [0], (8, 8)), "faces", 3, "[1, 1]"),
    "mesh_flow": (lambda w: ops.mesh_flow(TRIANGLE, TRIANGLE, faces(w), (8, 8)), "faces", 3, "[1, 1]"),
    "mesh_warp": (lambda w: ops.mesh_warp(torch.ones(1, 1, 8, 8), TRIANGLE, TRIANGLE, faces(w)), "faces", 3, "[1, 1]"),
    "Memory": (lambda w: Memory(4, 5)(QUERY, QUERY, torch.tensor([0, w, 1])), "indexes", 5, "[1]"),
    "ClusterMemory": (lambda w: ClusterMemory(4, 5)(QUERY, torch.tensor([0, w, 1])), "targets", 5, "[1]"),
    "gcl_memory_loss of InstanceMemory": (
        lambda w: memory.InstanceMemory(4, 5)(QUERY, QUERY, torch.tensor([0, w, 1]), seed=0),
        "index",
        5,
        "[1]",
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("below", [False, True])
def test_an_index_out_of_range_is_one_error_that_says_where(name: str, below: bool) -> None:
    call, argument, size, place = CALLS[name]
    wrong = -1 if below else size
    with pytest.raises(ops.IndexRangeError) as caught:
        call(wrong)
    assert isinstance(caught.value, IndexError) and isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert message.startswith(f"{name.split()[0]}: {argument} must be ") and message.endswith(f"got {wrong} at {place}")
    assert str(size - 1) in message or str(size) in message
    call(size - 2)  # this one is there


def test_a_memory_that_refuses_an_index_has_not_moved() -> None:
    module = Memory(4, 5)
    module.features = BANK.clone()
    with pytest.raises(ops.IndexRangeError):
        module(QUERY, QUERY, torch.tensor([0, 5, 1]))
    assert torch.equal(module.features, BANK) and int(module.next_seed) == 0


def test_an_empty_bank_has_no_rows() -> None:
    with pytest.raises(ops.IndexRangeError, match=r"rows of the bank, which has none, got 0 at \[0\]"):
        ops.bank_update_(torch.zeros(0, 2), torch.tensor([0]), torch.zeros(1, 2), 0.5)


def test_an_absent_pair_is_one_apart_and_a_row_nothing_from_itself() -> None:
    distance = ops.SparseDistance(torch.tensor([0, 2, 3, 3]), torch.tensor([0, 2, 1]), torch.tensor([0.0, 0.25, 0.0]), (3, 3))
    assert distance.rows().tolist() == [0, 0, 1]
    assert distance.to_dense().tolist() == [[0.0, 1.0, 0.25], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


@pytest.mark.parametrize("wrong", [-1, 2, 50_000_000, 2**32 + 1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_dbscan_waits_for_the_device_and_so_looks_there_too(wrong: int, dtype: torch.dtype, device: torch.device) -> None:
    if wrong > torch.iinfo(dtype).max:
        dtype = torch.int64  # which int32 would wrap around to a row that is there
    graph = torch.tensor([0, 1, 3]), torch.tensor([0, 1, wrong]).to(dtype), torch.tensor([0.0, 0.5, 0.5])
    distance = ops.SparseDistance(*graph, (2, 2)).to(device)
    with pytest.raises(ops.IndexRangeError, match=rf"dbscan: distance.indices must be rows, 0 to 1, got {wrong} at \[2\]"):
        ops.dbscan(distance, 0.6, 1)


@pytest.mark.parametrize("starts", [[1, 1, 3], [0, 1, 2], [0, 3, 2], [0, 4, 3], [0, -1, 3]])
def test_starts_of_rows_rise_to_the_number_of_pairs(starts: list[int], device: torch.device) -> None:
    graph = torch.tensor(starts), torch.tensor([0, 1, 1]), torch.tensor([0.0, 0.5, 0.5])
    with pytest.raises(ValueError, match="dbscan: distance.indptr must rise from 0 to nnz=3"):
        ops.dbscan(ops.SparseDistance(*graph, (2, 2)).to(device), 0.6, 1)


def test_vmap_over_numbers_leaves_the_look_to_the_kernels() -> None:
    """A batched tensor cannot be read, though its type is torch.Tensor."""
    rows, several = torch.tensor([[0, 1, 2], [4, 0, 0]]), torch.stack([faces(0)[:1], faces(1)[1:]])

    def loss(row: Tensor) -> Tensor:
        return ops.bank_nce(QUERY, BANK, LABELS, row, temperature=0.1)

    def drawn(some: Tensor) -> Tensor:
        return ops.rasterize(TRIANGLE, some, (8, 8)).face_id

    for function, batch in ((loss, rows), (drawn, several)):
        assert torch.equal(torch.func.vmap(function)(batch), torch.stack([function(one) for one in batch]))
        with pytest.raises(RuntimeError, match="got 9"):
            torch.func.vmap(function)(batch + 9)
