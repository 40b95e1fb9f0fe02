"""The CUDA kernels' source on emulated threads: the same bits as the CPU op in every thread order, and no sanitizer finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast import ops
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


# rasterize


def soup(
    batch: int, verts: int, faces: int, size: tuple[int, int], seed: int, dtype: torch.dtype, index: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random triangles around the image, among them degenerate, off-screen, huge, not finite, tied and on pixel centres."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([size[1], size[0], 1.0], dtype=torch.float64)
    points = (torch.rand(batch, verts, 3, generator=generator, dtype=torch.float64) * 1.6 - 0.3) * scale
    face = torch.randint(0, verts, (faces, 3), generator=generator)  # a vertex may repeat: zero area
    quarter = verts // 4
    points[:, :quarter, :2] = points[:, :quarter, :2].round() + 0.5  # corners on pixel centres
    points[:, :quarter, 2] = 0.25  # depth ties
    points[:, -1, 0] = float("nan")
    points[:, -2, 2] = float("inf")
    points[:, -3, 1] = 3e6  # beyond the coordinate limit
    points[:, -4, :2] *= 1000
    return points.to(dtype), face.to(index)


def same_bits(name: str, got: np.ndarray, want: torch.Tensor) -> None:
    expected = want.detach().numpy()
    assert got.dtype == expected.dtype and got.shape == expected.shape, name
    assert got.tobytes() == expected.tobytes(), f"{name}: {(got != expected).sum()} of {got.size} differ"


CASES = {
    "float": (2, 40, 60, (17, 23), torch.float32, torch.int32),
    "double": (2, 40, 60, (17, 23), torch.float64, torch.int64),
    "float long": (1, 24, 150, (31, 9), torch.float32, torch.int64),
    "double int": (1, 24, 150, (9, 31), torch.float64, torch.int32),
    "one pixel": (3, 12, 20, (1, 1), torch.float32, torch.int32),
    "no face": (2, 12, 0, (5, 4), torch.float32, torch.int32),
    "no pixel": (2, 12, 8, (0, 4), torch.float32, torch.int32),
    "no image": (0, 12, 8, (5, 4), torch.float64, torch.int32),
}


# Shared memory that a block may have, a part of it for queues. Images are drawn whole, in strips, or without (the plain kernels).
QUEUES = 3072
SHARED = {"whole": 227 << 10, "strips": QUEUES + 1200, "plain": 0}


def rasterize_arrays(
    verts: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], shared: int = SHARED["whole"], cull: bool = False
) -> dict[str, np.ndarray | int]:
    sizes = {"height": size[0], "width": size[1], "cull_backfaces": int(cull), "shared_bytes": shared}
    return {"verts": verts.numpy(), "faces": faces.numpy(), **sizes}


@every_order
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("shared", "cull"), [("whole", False), ("whole", True), ("strips", False), ("plain", True)])
def test_rasterize_gives_the_bits_of_the_cpu_op(case: str, shared: str, cull: bool, order: str) -> None:
    batch, num_verts, num_faces, size, dtype, index = CASES[case]
    verts, faces = soup(batch, num_verts, num_faces, size, 1, dtype, index)
    want = ops.rasterize(verts, faces, size, cull_backfaces=cull)
    out = run("rasterize", "forward", order, 7, **rasterize_arrays(verts, faces, size, SHARED[shared], cull))
    for name in ("face_id", "depth", "bary"):
        same_bits(name, out[name], getattr(want, name))
    if num_faces >= 60:
        assert 0.2 < (want.face_id >= 0).float().mean() <= 1.0  # the case shows something


@every_order
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rasterize_in_pieces_of_a_row_and_with_full_queues(dtype: torch.dtype, order: str) -> None:
    wide = soup(1, 24, 40, (2, 100), 5, dtype, torch.int32)
    want = ops.rasterize(*wide, (2, 100))
    pixel = 8 if dtype == torch.float32 else 12
    out = run("rasterize", "forward", order, 3, **rasterize_arrays(*wide, (2, 100), QUEUES + 17 * pixel))  # 6 pieces a row
    for name in ("face_id", "depth", "bary"):
        same_bits(name, out[name], getattr(want, name))
    many = soup(1, 300, 2500, (12, 16), 6, dtype, torch.int64)  # several rounds of each warp
    want = ops.rasterize(*many, (12, 16))
    out = run("rasterize", "forward", order, 3, **rasterize_arrays(*many, (12, 16), QUEUES + 5 * 16 * pixel))
    for name in ("face_id", "depth", "bary"):
        same_bits(name, out[name], getattr(want, name))


@every_order
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("case", ["float", "double"])
def test_rasterize_has_no_race(case: str, shared: str, order: str) -> None:
    batch, num_verts, num_faces, size, dtype, index = CASES[case]
    verts, faces = soup(batch, num_verts, num_faces, size, 1, dtype, index)
    out = run("rasterize", "forward", order, 7, race=True, **rasterize_arrays(verts, faces, size, SHARED[shared]))
    same_bits("face_id", out["face_id"], ops.rasterize(verts, faces, size).face_id)


@every_order
@pytest.mark.parametrize("shared", ["whole", "plain"])
def test_a_face_that_names_no_vertex_is_skipped(shared: str, order: str) -> None:
    verts, faces = soup(1, 40, 30, (16, 16), 3, torch.float32, torch.int32)
    want = ops.rasterize(verts, faces, (16, 16))
    wrong = torch.tensor([[0, 1, 40], [-1, 2, 3], [2**31 - 1, 0, 1]], dtype=torch.int32)
    arrays = rasterize_arrays(verts, torch.cat([faces, wrong]), (16, 16), SHARED[shared])
    out = run("rasterize", "forward", order, **arrays)
    same_bits("face_id", out["face_id"], want.face_id)


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), ("float", True), ("double", True)])
def test_rasterize_backward_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    batch, num_verts, num_faces, size, dtype, index = CASES[case]
    verts, faces = soup(batch, num_verts, num_faces, size, 2, dtype, index)
    seen = ops.rasterize(verts, faces, size)
    generator = torch.Generator().manual_seed(5)
    grad_bary = torch.randn(seen.bary.shape, generator=generator, dtype=dtype)
    grad_depth = torch.randn(seen.depth.shape, generator=generator, dtype=dtype)
    corner, corner_order = torch.sort(faces.reshape(-1).long(), stable=True)
    corner_begin = torch.searchsorted(corner, torch.arange(num_verts + 1))
    arguments = {
        "grad_bary": grad_bary,
        "grad_depth": grad_depth,
        "verts": verts,
        "faces": faces,
        "face_id": seen.face_id,
        "corner_order": corner_order,
        "corner_begin": corner_begin,
    }
    want = torch.ops.gcl_fast.rasterize_backward(*arguments.values())
    out = run("rasterize", "backward", order, 7, race=race, **{name: value.numpy() for name, value in arguments.items()})
    same_bits("grad_verts", out["grad_verts"], want)
    if num_faces >= 60:
        assert (want != 0).any()
