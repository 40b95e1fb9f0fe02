"""The CUDA kernels' source on emulated threads: the same bits as the CPU op in every thread order, and no sanitizer finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.simt.harness import ORDERS, SimtError, run

every_order = pytest.mark.parametrize("order", ORDERS)


# The emulation itself: what it computes, and that it finds what is planted.


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).integers(-100, 100, count, dtype=np.int32)


@every_order
def test_a_block_adds_up_in_shared_memory(order: str) -> None:
    x = numbers(5 * 64)
    assert run("planted", "block_sum", order, x=x)["out"].tolist() == x.reshape(5, 64).sum(1).tolist()


@every_order
def test_dynamic_shared_memory(order: str) -> None:
    x = numbers(64)
    assert (run("planted", "reversed", order, x=x)["out"] == x[::-1]).all()


@every_order
def test_warp_operations(order: str) -> None:
    x = numbers(64, seed=1)
    out = run("planted", "warp_operations", order, x=x)["out"].T
    warps, lane = x.reshape(2, 32).astype(np.int64), np.arange(32)
    spread = [
        np.repeat(warps.sum(1), 32),  # shfl_xor
        warps[:, ::-1].cumsum(1)[:, ::-1].reshape(-1),  # shfl_down
        np.where(lane < 16, warps[:, :16].max(1)[:, None], -1).reshape(-1),  # reduce_max over half a warp
        np.repeat(((warps > 0) << lane).sum(1).astype(np.uint32).view(np.int32), 32),  # ballot
        np.repeat((warps == 7).any(1), 32),
        np.repeat((warps < 1000).all(1), 32),
        warps[:, lane // 8 * 8 + (lane + 1) % 8].reshape(-1),  # shfl in segments of 8
        warps[:, np.where(lane % 16 < 2, lane, lane - 2)].reshape(-1),  # shfl_up in segments of 16
        np.full(64, (x > 0).sum()),  # syncthreads_count
        np.repeat(warps.sum(1), 32),  # reduce_add
    ]
    for row, want in zip(out, spread, strict=True):
        assert row.tolist() == want.astype(np.int64).tolist()


@every_order
def test_atomics(order: str) -> None:
    x = np.abs(numbers(3 * 64, seed=2)) + 1
    start = np.array([5, 2**31 - 1, -(2**31), 0], np.int32)
    large = np.array([2**64 - 1, 0], np.uint64)
    out = run("planted", "atomics", order, x=x, small0=start, large0=large)
    assert out["small"].tolist() == [5 + x.sum(), x.min(), x.max(), x.sum()]
    assert out["large"].tolist() == [int(x.min()) << 32, x.size << 40]


def test_bits() -> None:
    x = np.concatenate([numbers(50), np.array([0, 1, -1, 2**31 - 1, -(2**31)], np.int32)])
    text = [format(int(n) & 0xFFFFFFFF, "032b") for n in x]
    ffs = [32 - t.rindex("1") if "1" in t else 0 for t in text]
    want = {
        "popc": [t.count("1") for t in text],
        "clz": [len(t) - len(t.lstrip("0")) for t in text],
        "ffs": ffs,
        "ffsll": [n + 20 if n else 0 for n in ffs],
        "bits of a float": x.tolist(),
        "brev": [int(np.uint32(int(t[::-1], 2)).astype(np.int32)) for t in text],
    }
    out = run("planted", "bits", "forward", x=x)["out"].T
    for (name, values), row in zip(want.items(), out, strict=True):
        assert row.tolist() == values, name


def test_a_missing_barrier_shows_in_the_thread_orders() -> None:
    x = numbers(64)
    results = {run("planted", "missing_barrier", order, x=x)["out"].tobytes() for order in ORDERS}
    assert len(results) == len(ORDERS)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("missing_barrier", "race: thread .* of block 0 (reads|writes) shared memory and thread .* of block 0 (reads|writes) it"),
        ("plain_sum", "race: thread .* of block . (reads|writes) global memory and"),
    ],
)
@every_order
def test_a_race_is_found(kernel: str, message: str, order: str) -> None:
    with pytest.raises(SimtError, match=message):
        run("planted", kernel, order, race=True, x=numbers(128))


@every_order
def test_lanes_are_ordered_by_a_warp_operation(order: str) -> None:
    x = numbers(64)
    out = run("planted", "neighbour", order, race=True, x=x, ordered=1)["out"]
    assert out.tolist() == x.reshape(-1, 2)[:, ::-1].reshape(-1).tolist()
    with pytest.raises(SimtError, match="race: thread"):
        run("planted", "neighbour", order, race=True, x=x, ordered=0)


@pytest.mark.parametrize("kernel", ["block_sum", "reversed", "warp_operations", "atomics"])
@every_order
def test_no_race_is_found_where_there_is_none(kernel: str, order: str) -> None:
    start = {"small0": np.zeros(4, np.int32), "large0": np.zeros(2, np.uint64)} if kernel == "atomics" else {}
    run("planted", kernel, order, race=True, x=np.abs(numbers(64 if kernel == "reversed" else 192)), **start)


def test_shared_memory_read_before_it_is_written_differs_by_order() -> None:
    results = [run("planted", "unwritten_shared", order)["out"] for order in ORDERS]
    assert len({int(out[0]) for out in results}) == len(ORDERS)
    assert all((out[1:] == 1).all() for out in results)


WAIT = r"wait at __syncthreads \("


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("one_too_far", "heap-buffer-overflow"),
        ("one_too_far_shared", "index 64 out of bounds"),
        ("too_little_shared", "heap-buffer-overflow"),
        ("no_shared", "launched with 0 bytes"),
        ("divergent_barrier", rf"wait for each other:\n  threads 0 to 31 {WAIT}.*\n  threads 32 to 63 have finished"),
        ("two_barriers", rf"different barriers:\n  threads 0 to 31 {WAIT}.*\n  threads 32 to 63 {WAIT}"),
        ("lost_lane", r"threads 5 to 5 have finished\n  threads 6 to 31 wait at __shfl_sync"),
    ],
)
@every_order
def test_a_planted_fault_is_found(kernel: str, message: str, order: str) -> None:
    with pytest.raises(SimtError, match=message):
        run("planted", kernel, order, x=numbers(64))


def same_bits(name: str, got: np.ndarray, want: torch.Tensor) -> None:
    expected = want.detach().numpy()
    assert got.dtype == expected.dtype and got.shape == expected.shape, name
    assert got.tobytes() == expected.tobytes(), f"{name}: {(got != expected).sum()} of {got.size} differ"
