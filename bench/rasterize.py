"""ops.rasterize, as it chooses and by either method, against its reference and what else draws triangle ids,
barycentrics and depth, where it can be imported: DRTK (its compiled parts alone are enough) and, on the CPU, Open3D's
RaycastingScene (BVH built for each body, one ray a pixel). On bodies as large as the picture, with 13,464 triangles or fewer, in
the full table up to 27,448.

extra_info: the seconds of a copy that moves as many bytes as the op must ("floor_seconds"), and its share of the op's median.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.meshes import body, copy_of
from gcl_fast import ops, reference

OP = "rasterize"
CHECK = (
    "face_id and depth equal to the reference bit for bit, bary within 1e-6; in float64 the gradient of bary within 1e-9 of the "
    "largest; on the first 2 images; what others draw covers the same share of the pixels within 2%"
)
QUICK = {"batch": [1, 16], "size": [(256, 128)], "rings": [103], "pass": ["forward"]}
FULL = {
    "batch": [1, 16, 64],
    "size": [(128, 64), (256, 128), (512, 256)],
    "rings": [31, 103, 147],
    "pass": ["forward", "backward"],
}
Drawn = tuple[Tensor, Tensor, Tensor]  # face_id [B,H,W], bary or its like [B,H,W,2 or 3], depth [B,H,W]


def drtk_parts() -> list[Path]:
    """The compiled parts that draw: the package itself need not be importable."""
    spec = importlib.util.find_spec("drtk")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    parts = [part for folder in folders for name in ("rasterize", "render") for part in folder.glob(f"{name}_ext*.so")]
    return parts if len(parts) == 2 else []


@cache
def open3d() -> Any:
    try:
        return importlib.import_module("open3d")
    except (ImportError, OSError):  # OSError: a shared library of the system is missing
        return None


RIVALS = (*(("drtk",) if drtk_parts() else ()), *(("open3d",) if open3d() is not None else ()))
METHODS = ("plain", "fused")  # native is what "auto" chooses
IMPLEMENTATIONS = ("native", *METHODS, *RIVALS, "reference")


def fits(case: dict) -> bool:
    return case["batch"] * case["size"][0] * case["size"][1] <= 16 * 256 * 128


def left_out(implementation: str, case: dict) -> bool:
    return implementation in (*METHODS, *RIVALS) and case["pass"] == "backward"


def drtk_draw(verts: Tensor, faces: Tensor, size: tuple[int, int]) -> Callable[[], Drawn]:
    for part in drtk_parts():
        torch.ops.load_library(str(part))
    each = faces[None].expand(verts.shape[0], -1, -1)

    def draw() -> Drawn:
        _, face_id = torch.ops.rasterize_ext.rasterize(verts, each, *size, False)
        depth, bary = torch.ops.render_ext.render(verts, each, face_id)
        return face_id, bary, depth

    return draw


def open3d_draw(verts: Tensor, faces: Tensor, size: tuple[int, int]) -> Callable[[], Drawn]:
    if verts.device.type != "cpu":
        pytest.skip("Open3D casts rays on the CPU")
    library = open3d()
    row, col = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    before = torch.full_like(row, -100.0)
    zero, one = torch.zeros_like(row), torch.ones_like(row)
    rays = library.core.Tensor(torch.stack((col, row, before, zero, zero, one), -1).numpy())  # [H,W,6]: straight ahead
    corners, triangles = verts.numpy(), faces.numpy().astype("uint32")

    def draw() -> Drawn:
        seen = []
        for image in corners:
            scene = library.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
            scene.add_triangles(library.core.Tensor(image), library.core.Tensor(triangles))
            hit = scene.cast_rays(rays, nthreads=torch.get_num_threads())
            parts = (hit["primitive_ids"].numpy().view("int32"), hit["primitive_uvs"].numpy(), hit["t_hit"].numpy())
            seen.append([torch.from_numpy(part) for part in parts])
        face_id, bary, depth = (torch.stack(part) for part in zip(*seen, strict=True))
        return face_id, bary, depth

    return draw


def check(case: dict, device: torch.device) -> None:
    verts, faces = body(min(case["batch"], 2), case["size"], case["rings"], device)
    got = ops.rasterize(verts, faces, case["size"])
    want = reference.rasterize(verts, faces, case["size"])
    assert torch.equal(got.face_id, want.face_id) and torch.equal(got.depth, want.depth)
    for method in METHODS:
        other = ops.rasterize(verts, faces, case["size"], method=method)
        assert all(torch.equal(a, b) for a, b in zip(other, got, strict=True)), method
    assert (got.bary - want.bary).abs().max() <= 1e-6
    covered = (got.face_id >= 0).float().mean()
    assert 0.2 < covered < 0.9
    for rival in RIVALS:
        if rival == "drtk" or device.type == "cpu":
            drawn, _, _ = call(rival, case | {"batch": len(verts)}, device)()
            assert abs((drawn >= 0).float().mean() - covered) < 0.02, rival
    if case["pass"] == "backward":
        grads = [gradient(module.rasterize, verts.double(), faces, case["size"])() for module in (ops, reference)]
        assert (grads[0] - grads[1]).abs().max() <= 1e-9 * grads[1].abs().max()


def gradient(rasterize: Callable[..., Any], verts: Tensor, faces: Tensor, size: tuple[int, int]) -> Callable[[], Tensor]:
    """The backward pass alone, of bary to verts, with weights that do not add up to a constant."""
    verts = verts.detach().requires_grad_()
    bary = rasterize(verts, faces, size).bary
    weight = torch.linspace(-1, 1, bary.numel(), dtype=bary.dtype, device=bary.device).reshape(bary.shape)
    return lambda: torch.autograd.grad(bary, verts, weight, retain_graph=True)[0]


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], Any]:
    verts, faces = body(case["batch"], case["size"], case["rings"], device)
    if implementation in RIVALS:
        return (drtk_draw if implementation == "drtk" else open3d_draw)(verts, faces, case["size"])
    methods = {name: partial(ops.rasterize, method=name) for name in METHODS}
    rasterize = {"native": ops.rasterize, "reference": reference.rasterize, **methods}[implementation]
    if case["pass"] == "forward":
        return lambda: rasterize(verts, faces, case["size"])
    return gradient(rasterize, verts, faces, case["size"])


def floor_seconds(case: dict, device: torch.device, times: int = 30) -> float:
    """The quickest of some copies of the bytes that go in and come out."""
    verts, faces = body(case["batch"], case["size"], case["rings"], device)
    pixels = case["batch"] * math.prod(case["size"])
    # forward: face_id, bary, depth out; backward: face_id and the gradients of the others in, that of verts out
    moved = 4 * (verts.numel() * (1 if case["pass"] == "forward" else 2) + faces.numel() + 5 * pixels)
    copy, seconds = copy_of(moved, device), []
    for _ in range(times):
        begin = perf_counter()
        copy()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - begin)
    return min(seconds)


def test_rasterize(case, implementation, device, measure, benchmark) -> None:
    measure()
    floor = floor_seconds(case, device)
    benchmark.extra_info.update(floor_seconds=floor, microseconds_an_image=1e6 * benchmark.stats["median"] / case["batch"])
    benchmark.extra_info["share_of_floor"] = floor / benchmark.stats["median"]
