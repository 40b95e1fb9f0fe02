"""The CUDA source of rasterize on emulated threads: the bits of the CPU op in every thread order, by either way to draw, and no
sanitizer finding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gcl_fast import ops
from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_simt import same_bits

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)


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

# How images are drawn: shared memory that a block may have, a part of it for the warps' desks, and images of a plain launch.
DESKS, MUCH = 18 << 10, 227 << 10
WAYS = {"whole": (MUCH, 0), "strips": (DESKS + 1200, 0), "plain": (0, 9), "plain one by one": (0, 1)}


def rasterize_arrays(
    verts: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], way: tuple[int, int], cull: bool = False
) -> dict[str, np.ndarray | int]:
    sizes = {"height": size[0], "width": size[1], "cull_backfaces": int(cull), "shared_bytes": way[0], "at_once": way[1]}
    return {"verts": verts.numpy(), "faces": faces.numpy(), **sizes}


def drawn_as_on_the_cpu(mesh: tuple[torch.Tensor, torch.Tensor], size: tuple[int, int], way: tuple[int, int], order: str, **more):
    cull, race = more.get("cull", False), more.get("race", False)
    want = ops.rasterize(*mesh, size, cull_backfaces=cull)
    out = run("rasterize", "forward", order, 7, race=race, **rasterize_arrays(*mesh, size, way, cull))
    for name in ("face_id", "depth", "bary"):
        same_bits(name, out[name], getattr(want, name))
    return want


@every_order
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("way", "cull"), [("whole", False), ("whole", True), ("strips", False), ("plain", True), ("plain one by one", False)]
)
def test_rasterize_gives_the_bits_of_the_cpu_op(case: str, way: str, cull: bool, order: str) -> None:
    batch, num_verts, num_faces, size, dtype, index = CASES[case]
    mesh = soup(batch, num_verts, num_faces, size, 1, dtype, index)
    want = drawn_as_on_the_cpu(mesh, size, WAYS[way], order, cull=cull)
    if num_faces >= 60:
        assert 0.2 < (want.face_id >= 0).float().mean() <= 1.0  # the case shows something


@every_order
def test_rasterize_in_pieces_of_a_row_and_with_full_queues(order: str) -> None:
    wide = soup(1, 24, 40, (2, 100), 5, torch.float32, torch.int32)
    drawn_as_on_the_cpu(wide, (2, 100), (DESKS + 17 * 8, 0), order)  # 6 pieces a row
    many = soup(1, 300, 1200, (12, 16), 6, torch.float32, torch.int64)  # several rounds of each warp
    drawn_as_on_the_cpu(many, (12, 16), (DESKS + 5 * 16 * 8, 0), order)


def tiles(length: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right triangles with legs of about `length` pixels, a little turned and sloped, each at its own place; some overlap."""
    n = torch.arange(count, dtype=torch.float64)
    corner = torch.stack((5.3 + 7.1 * n % 37, 3.7 + 5.3 * n % 29, n % 5), -1)  # [count, 3]
    legs = torch.tensor([[0.0, 0, 0], [length, 0.6, 1], [0.4, length, 2]], dtype=torch.float64)
    verts = (corner[:, None] + legs).reshape(1, -1, 3)
    return verts.float(), torch.arange(3 * count).view(-1, 3)


@every_order
@pytest.mark.parametrize("way", ["whole", "plain"])
@pytest.mark.parametrize("length", [1.5, 7.5, 15.5, 60.0])
def test_triangles_of_any_size(length: float, way: str, order: str) -> None:
    """Of a few centres; of several blocks, more hits than the queue holds; of so many that the warp walks together; long ones."""
    want = drawn_as_on_the_cpu(tiles(length, 70), (41, 50), WAYS[way], order)
    assert (want.face_id >= 0).sum() > 50


@every_order
@pytest.mark.parametrize("way", ["whole", "strips", "plain"])
@pytest.mark.parametrize("size", [(3, 131), (5, 260), (129, 3), (2, 128)])
def test_spans_of_pixels_of_any_width(size: tuple[int, int], way: str, order: str) -> None:
    """Rows longer and shorter than a warp finishes at once, aligned to 16 bytes or not, and rows that end in it."""
    drawn_as_on_the_cpu(soup(2, 24, 30, size, 8, torch.float32, torch.int32), size, WAYS[way], order)


@every_order
@pytest.mark.parametrize("way", ["whole", "plain"])
def test_a_triangle_without_area_that_gains_one_by_snapping(way: str, order: str) -> None:
    along = [[2.5 + t * step / 1024 for t in (-618, -170, 161)] for step in (7, 4)]
    verts = torch.tensor([list(zip(*along, (1.0, 2.0, 3.0), strict=True))])
    want = drawn_as_on_the_cpu((verts, torch.tensor([[0, 1, 2]])), (5, 5), WAYS[way], order)
    assert want.face_id[0, 2, 2] == 0


@every_order
@pytest.mark.parametrize("way", ["whole", "plain"])
def test_signed_zeros_and_depths_of_any_sign(way: str, order: str) -> None:
    depths = torch.tensor([0.0, -0.0, -5.0, 3e38, -3e38, math.ldexp(1, -149)])
    verts = torch.tensor([[0.0, 0, 0], [0, 9, 0], [9, 0, 0]]).repeat(6, 1)[None]
    verts[..., 2] = depths.repeat_interleave(3)
    for some in ([0, 1], [1, 0], [3, 0, 2], [3, 4, 2], [5, 0]):
        drawn_as_on_the_cpu((verts, torch.arange(18).view(6, 3)[some]), (3, 3), WAYS[way], order)


@every_order
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["float", "double"])
def test_rasterize_has_no_race(case: str, way: str, order: str) -> None:
    batch, num_verts, num_faces, size, dtype, index = CASES[case]
    mesh = soup(batch, num_verts, num_faces, size, 1, dtype, index)
    drawn_as_on_the_cpu(mesh, size, WAYS[way], order, race=True)


@every_order
@pytest.mark.parametrize("way", ["whole", "plain"])
def test_a_face_that_names_no_vertex_is_skipped(way: str, order: str) -> None:
    verts, faces = soup(1, 40, 30, (16, 16), 3, torch.float32, torch.int32)
    want = ops.rasterize(verts, faces, (16, 16))
    wrong = torch.tensor([[0, 1, 40], [-1, 2, 3], [2**31 - 1, 0, 1]], dtype=torch.int32)
    out = run("rasterize", "forward", order, **rasterize_arrays(verts, torch.cat([faces, wrong]), (16, 16), WAYS[way]))
    same_bits("face_id", out["face_id"], want.face_id)


AUTO, PLAIN, FUSED = 0, 1, 2
H100 = {"shared_bytes": 113 << 10, "multiprocessors": 132, "cache_bytes": 50 << 20}
T4 = {"shared_bytes": 31 << 10, "multiprocessors": 40, "cache_bytes": 4 << 20}


@pytest.mark.parametrize(
    ("gpu", "method", "images", "size", "fuses", "at_once", "to_fuse"),
    [
        (H100, AUTO, 88, (256, 128), False, 88, 88),  # plain unless asked for
        (H100, FUSED, 1, (256, 128), True, 1, 1),
        (H100, PLAIN, 512, (256, 128), False, 100, 512),  # z-buffers of 25 MiB
        (H100, FUSED, 2000, (256, 128), True, 100, 704),  # 2,112 strips, 16 for each multiprocessor
        (H100, FUSED, 2**30, (256, 128), False, 100, 704),  # more blocks than a launch may have
        (H100, FUSED, 512, (2048, 1024), False, 20, 11),  # too large to fuse; as many as have 2,048 faces a multiprocessor
        (H100, FUSED, 4, (0, 128), False, 4, 4),
        (T4, FUSED, 512, (256, 128), False, 8, 32),
        (T4, AUTO, 512, (64, 32), False, 128, 320),
        (T4, FUSED, 512, (64, 32), True, 128, 320),
    ],
)
def test_the_way_to_draw_is_chosen_by_the_images_and_the_gpu(
    gpu: dict[str, int], method: int, images: int, size: tuple[int, int], fuses: bool, at_once: int, to_fuse: int
) -> None:
    sizes = {"method": method, "images": images, "height": size[0], "width": size[1], "faces": 13464}
    assert run("rasterize", "choose", "forward", **gpu, **sizes)["chosen"].tolist() == [int(fuses), 0, at_once, to_fuse]


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
