"""The CUDA source of mesh_flow and mesh_warp on emulated threads: the bits of the CPU op in every thread order, no sanitizer
finding."""

from __future__ import annotations

import pytest
import torch

from gcl_fast.meshes import project, turn
from gcl_fast.ops.warp import _inputs, _pixels_by_cell
from tests.simt.harness import KERNEL_ORDERS, run
from tests.test_simt import same_bits
from tests.test_simt_rasterize import soup
from tests.toy_meshes import EYE, ellipsoid

every_order = pytest.mark.parametrize("order", KERNEL_ORDERS)

F4, F8 = torch.float32, torch.float64
CASES = {  # vertices, image, size
    "body": (F8, F8, (20, 11)),
    "body float": (F4, F4, (20, 11)),
    "mixed": (F4, F8, (7, 9)),
    "mixed the other way": (F8, F4, (9, 7)),
    "soup": (F4, F4, (13, 15)),
    "one pixel": (F4, F4, (1, 1)),
    "no face": (F4, F4, (5, 4)),
    "no pixel": (F4, F4, (0, 4)),
    "no image": (F8, F8, (5, 4)),
}
RACE = ("body float", "soup")


def views(case: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """src_verts, dst_verts, faces: two bodies seen from two sides, or random triangles with vertices that are not finite."""
    dtype, _, size = CASES[case]
    if case == "soup":
        src, faces = soup(2, 40, 60, size, 1, dtype, torch.int32)
        return src, soup(2, 40, 60, size, 2, dtype, torch.int32)[0], faces
    verts, faces = ellipsoid()
    bodies = torch.stack((verts, 0.8 * verts + 0.05)) if case != "no image" else verts.new_zeros(0, *verts.shape)
    both = project(turn(bodies, [0, 50]), EYE[:, None], size).to(dtype)  # [B, 2, V, 3]
    return both[:, 0].contiguous(), both[:, 1].contiguous(), faces[:0] if case == "no face" else faces


def inputs(case: str) -> tuple[torch.Tensor, ...]:
    src, dst, faces = views(case)
    return _inputs(src, dst, faces, *CASES[case][2])


NAMES = ("src_verts", "faces", "dst_face_id", "dst_bary", "src_face_id", "src_depth")


def arrays(tensors: tuple[torch.Tensor, ...]) -> dict:
    return {name: value.numpy() for name, value in zip(NAMES, tensors, strict=True)}


def picture(case: str, seed: int) -> torch.Tensor:
    shape = (views(case)[0].shape[0], 3, *CASES[case][2])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=CASES[case][1])


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), *((name, True) for name in RACE)])
def test_flow_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    tensors = inputs(case)
    grid, visibility = torch.ops.gcl_fast.mesh_flow(*tensors)
    out = run("warp", "flow", order, 7, race=race, **arrays(tensors))
    same_bits("grid", out["grid"], grid)
    same_bits("visibility", out["visibility"], visibility)
    if case in ("body", "soup"):
        assert set(visibility.unique().tolist()) == {0, 1, 2}


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), *((name, True) for name in RACE)])
@pytest.mark.parametrize("keep", [False, True])
def test_warp_gives_the_bits_of_the_cpu_op(case: str, race: bool, keep: bool, order: str) -> None:
    tensors, image = inputs(case), picture(case, 3)
    warped, source, visibility = torch.ops.gcl_fast.mesh_warp(image, *tensors, 0.5, keep)
    more = {"image": image.numpy(), "fill": torch.tensor([0.5], dtype=image.dtype).numpy(), "keep_source": int(keep)}
    out = run("warp", "warp", order, 7, race=race, **arrays(tensors), **more)
    same_bits("warped", out["warped"], warped)
    same_bits("visibility", out["visibility"], visibility)
    if keep:
        same_bits("source", out["source"], source)


@every_order
@pytest.mark.parametrize(("case", "race"), [*((name, False) for name in CASES), *((name, True) for name in RACE)])
def test_backward_gives_the_bits_of_the_cpu_op(case: str, race: bool, order: str) -> None:
    tensors, grad = inputs(case), picture(case, 6)
    _, source, visibility = torch.ops.gcl_fast.mesh_warp(grad, *tensors, 0.0, True)
    pixel_order, cell_begin = _pixels_by_cell(source, visibility)
    arguments = {"grad_warped": grad, "source": source, "visibility": visibility}
    arguments |= {"pixel_order": pixel_order, "cell_begin": cell_begin}
    want = torch.ops.gcl_fast.mesh_warp_backward(*arguments.values())
    out = run("warp", "backward", order, 7, race=race, **{name: value.numpy() for name, value in arguments.items()})
    same_bits("grad_image", out["grad_image"], want)
    if case == "body":
        assert (want != 0).any()
