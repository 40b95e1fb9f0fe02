"""ops.rasterize against its reference, on bodies as large as the picture, with 13,464 triangles or fewer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gcl_fast import ops, reference

OP = "rasterize"
CHECK = (
    "face_id and depth equal to the reference bit for bit, bary within 1e-6; in float64 the gradient of bary within 1e-9 of the "
    "largest; on the first 2 images"
)
QUICK = {"batch": [1, 16], "size": [(256, 128)], "rings": [103], "pass": ["forward"]}
FULL = {"batch": [1, 16, 64], "size": [(128, 64), (256, 128), (512, 256)], "rings": [31, 103], "pass": ["forward", "backward"]}


def body(batch: int, size: tuple[int, int], rings: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A bumpy ellipsoid about the size of a person in a crop: verts [B,V,3] in pixels, faces [F,3]; 103 rings: 13,464 faces."""
    columns = round(rings * 66 / 103)
    polar = torch.linspace(0, math.pi, rings)[:, None]  # [rings, 1]
    around = torch.arange(columns) * (2 * math.pi / columns)  # [columns]
    turn = torch.arange(batch)[:, None, None] * 0.7
    radius = 1 + 0.15 * torch.sin(5 * polar) * torch.sin(3 * around + turn)  # [B, rings, columns]
    x = radius * torch.sin(polar) * torch.cos(around + turn)
    z = radius * torch.sin(polar) * torch.sin(around + turn)
    y = torch.cos(polar).expand_as(x)
    height, width = size
    verts = torch.stack((width * (0.5 + 0.3 * x), height * (0.5 - 0.47 * y), 5 + 0.3 * z), -1).reshape(batch, -1, 3)
    ring, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(columns), indexing="ij")
    a = ring * columns + column
    b = ring * columns + (column + 1) % columns
    faces = torch.stack((a, b, a + columns, b, b + columns, a + columns), -1).reshape(-1, 3)
    return verts.contiguous().to(device), faces.int().to(device)


def fits(case: dict) -> bool:
    return case["batch"] * case["size"][0] * case["size"][1] <= 16 * 256 * 128


def check(case: dict, device: torch.device) -> None:
    verts, faces = body(min(case["batch"], 2), case["size"], case["rings"], device)
    got = ops.rasterize(verts, faces, case["size"])
    want = reference.rasterize(verts, faces, case["size"])
    assert torch.equal(got.face_id, want.face_id) and torch.equal(got.depth, want.depth)
    assert (got.bary - want.bary).abs().max() <= 1e-6
    assert 0.2 < (got.face_id >= 0).float().mean() < 0.9
    if case["pass"] == "backward":
        grads = [gradient(module.rasterize, verts.double(), faces, case["size"])() for module in (ops, reference)]
        assert (grads[0] - grads[1]).abs().max() <= 1e-9 * grads[1].abs().max()


def gradient(rasterize: Callable[..., Any], verts: Tensor, faces: Tensor, size: tuple[int, int]) -> Callable[[], Tensor]:
    """The backward pass alone, of bary to verts, with weights that do not add up to a constant."""
    verts = verts.detach().requires_grad_()
    bary = rasterize(verts, faces, size).bary
    weight = torch.linspace(-1, 1, bary.numel(), dtype=bary.dtype, device=bary.device).reshape(bary.shape)
    return lambda: torch.autograd.grad(bary, verts, weight, retain_graph=True)[0]


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    rasterize = (ops if implementation == "native" else reference).rasterize
    verts, faces = body(case["batch"], case["size"], case["rings"], device)
    if case["pass"] == "forward":
        return lambda: rasterize(verts, faces, case["size"])
    return gradient(rasterize, verts, faces, case["size"])


def test_rasterize(case, implementation, device, measure) -> None:
    measure()
