"""Turning bodies by R angles and projecting every view against the plain definition, and a copy of the bytes that must move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.meshes import body_and_camera, copy_of
from gcl_fast import reference
from gcl_fast.ops import camera as ops

OP = "camera"
IMPLEMENTATIONS = ("native", "floor", "reference")
CHECK = "pixels and depth of two bodies in float64 within 1e-9 of the reference"
QUICK = {"batch": [1, 16], "views": [1, 8], "rings": [103], "camera": ["perspective"], "pass": ["forward"]}
FULL = QUICK | {"batch": [1, 16, 64], "camera": ["weak", "perspective"], "pass": ["forward", "backward"]}
SIZE = (256, 128)


def scene(case: dict, device: torch.device) -> tuple[Tensor, Tensor]:
    """verts [B, V, 3] in body axes, about 2 high; camera [B, 1, 3 or 6]."""
    verts, _, camera = body_and_camera(case["batch"], SIZE, case["rings"], case["camera"], device)
    return verts, camera[:, None]


def yaws(case: dict) -> list[float]:
    return [45.0 * view + 3 for view in range(case["views"])]


def check(case: dict, device: torch.device) -> None:
    verts, camera = (t.double() for t in scene(case | {"batch": 2}, device))
    want = reference.project(reference.turn(verts, yaws(case)), camera, SIZE)
    got = ops.project(ops.turn(verts, yaws(case)), camera, SIZE)
    assert want.isfinite().all() and (got - want).abs().max() <= 1e-9


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    verts, camera = scene(case, device)
    if implementation == "floor":
        return copy_of(4 * verts.numel() * (1 + case["views"]), device)
    module = ops if implementation == "native" else reference
    if case["pass"] == "forward":
        return lambda: module.project(module.turn(verts, yaws(case)), camera, SIZE)
    verts = verts.requires_grad_()
    out = module.project(module.turn(verts, yaws(case)), camera, SIZE)
    weight = torch.linspace(-1, 1, out.numel(), device=device).view_as(out)
    return lambda: torch.autograd.grad(out, verts, weight, retain_graph=True)


def test_camera(case, implementation, device, measure) -> None:
    measure()
