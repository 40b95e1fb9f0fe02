"""ops.render_mesh against its reference, on bodies as large as the picture, with 13,464 triangles or fewer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.meshes import body_and_camera, copy_of
from gcl_fast import ops, reference

OP = "render"
IMPLEMENTATIONS = ("native", "plain", "fused", "floor", "reference")
CHECK = (
    "in float64 at most 0.1% of the pixels further than 1e-9 from the reference, in float32 at most 1% further than 1e-4 "
    "from that, on the first body and 2 views at 64x32"
)
QUICK = {"batch": [1, 16], "views": [1, 8], "size": [(256, 128)], "rings": [103], "camera": ["perspective"]}
FULL = QUICK | {"batch": [1, 16, 64], "size": [(128, 64), (256, 128), (512, 256)], "camera": ["weak", "perspective"]}


def scene(case: dict, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """verts [B, V, 3] in body axes, about 2 high; faces [F, 3]; camera [B, 3 or 6]."""
    return body_and_camera(case["batch"], case["size"], case["rings"], case["camera"], device)


def yaws(case: dict) -> list[float]:
    return [45.0 * view for view in range(case["views"])]


def fits(case: dict) -> bool:
    return case["batch"] * case["views"] * case["size"][0] * case["size"][1] <= 16 * 256 * 128


def check(case: dict, device: torch.device) -> None:
    small = case | {"batch": 1, "size": (64, 32)}
    single = scene(small, device)
    double = single[0].double(), single[1], single[2].double()
    want = reference.render_mesh(*double, [0, 35.0], (64, 32))
    assert 0.2 < (want > 0).double().mean() < 0.9
    off = (ops.render_mesh(*double, [0, 35.0], (64, 32)) - want).abs()
    assert (off > 1e-9).double().mean() <= 1e-3
    off = (ops.render_mesh(*single, [0, 35.0], (64, 32)).double() - want).abs()
    assert (off > 1e-4).double().mean() <= 0.01


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    verts, faces, camera = scene(case, device)
    if implementation == "floor":
        pixels = case["batch"] * case["views"] * case["size"][0] * case["size"][1]
        return copy_of(4 * (verts.numel() + faces.numel() + pixels), device)
    if implementation == "reference":
        return lambda: reference.render_mesh(verts, faces, camera, yaws(case), case["size"])
    method = "auto" if implementation == "native" else implementation
    return lambda: ops.render_mesh(verts, faces, camera, yaws(case), case["size"], method=method)


def test_render(case, implementation, device, measure) -> None:
    measure()
