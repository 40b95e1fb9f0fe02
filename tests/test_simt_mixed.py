"""What only shows when threads of several blocks come between each other's atomics, and what a launch may ask for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast import ops
from tests.simt.harness import MIXED, ORDERS, SimtError, run
from tests.test_neighbors import crowd

THREADS = 6 * 64


@pytest.mark.parametrize("seed", [1, 2])
def test_others_come_between_two_atomics(seed: int) -> None:
    for order in ORDERS:
        assert run("planted", "lost_update", order, seed)["out"].tolist() == [THREADS]
    assert run("planted", "lost_update", MIXED, seed)["out"][0] < THREADS / 2


def test_blocks_run_beside_each_other() -> None:
    total, *tickets = run("planted", "ticket", MIXED, 3)["out"].tolist()
    assert total == THREADS and sorted(tickets) == list(range(THREADS))
    first = [np.array(tickets[n : n + 64]).argsort()[0] for n in range(0, THREADS, 64)]
    spans = [(min(tickets[n : n + 64]), max(tickets[n : n + 64])) for n in range(0, THREADS, 64)]
    assert len(set(first)) > 1 and any(a[0] < b[0] < a[1] for a in spans for b in spans)


@pytest.mark.parametrize("kernel", ["block_sum", "reversed", "atomics", "warp_operations"])
def test_mixed_order_computes_the_same(kernel: str) -> None:
    x = np.arange(1, (64 if kernel in ("reversed", "warp_operations") else 640) + 1, dtype=np.int32)
    start = {"small0": np.zeros(4, np.int32), "large0": np.zeros(2, np.uint64)} if kernel == "atomics" else {}
    mixed, forward = (run("planted", kernel, order, 5, x=x, **start) for order in (MIXED, "forward"))
    assert all(mixed[name].tobytes() == forward[name].tobytes() for name in forward)


def test_the_race_detector_is_not_for_mixed_order() -> None:
    with pytest.raises(ValueError, match="one block at a time"):
        run("planted", "block_sum", MIXED, race=True, x=np.zeros(64, np.int32))


LIMIT = 48 * 1024
OWN = 512 * 4


@pytest.mark.parametrize(
    ("dynamic", "allowed", "message"),
    [
        (LIMIT - OWN, 0, ""),
        (LIMIT - OWN + 4, 0, "beside 2048 declared ones, more than the 49152 that need no GCL_ALLOW_SHARED; it allowed 0"),
        (LIMIT + 4096, LIMIT + 4096, ""),
        (LIMIT + 4096, LIMIT, "it allowed 49152"),
        (227 * 1024, 227 * 1024, "more than the 232448 of a GPU"),
    ],
)
def test_more_shared_memory_must_be_asked_for(dynamic: int, allowed: int, message: str) -> None:
    arrays = {"bytes": dynamic, "allowed": allowed}
    if message:
        with pytest.raises(SimtError, match=message):
            run("planted", "declared_and_dynamic", "forward", **arrays)
    else:
        assert run("planted", "declared_and_dynamic", "forward", **arrays)["out"].tolist() == [63] * 64


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clusters_grow_together_whoever_comes_first(seed: int) -> None:
    distance = ops.jaccard_distance(crowd(400, 12, seed=8, spread=0.6), 9, 3)
    graph = {"indptr": distance.indptr, "indices": distance.indices, "values": distance.values}
    want = torch.ops.gcl_fast.dbscan_roots(*graph.values(), 0.7, 3)
    arrays = {name: value.numpy() for name, value in graph.items()}
    out = run("neighbors", "roots", MIXED, seed, **arrays, eps=np.float32(0.7), min_samples=3)
    assert torch.equal(torch.from_numpy(out["root"]), want)
    assert len(want.unique()) > 5
