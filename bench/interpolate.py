"""ops.interpolate against its reference, plain PyTorch (gather and sum), and a copy of the bytes that it must move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.meshes import copy_of, two_views
from gcl_fast import ops, reference

OP = "interpolate"
IMPLEMENTATIONS = ("native", "pytorch", "floor", "reference")
CHECK = "values and gradients of attributes and bary within 1e-5 of the reference; on the first 2 images"
QUICK = {"batch": [1, 16], "size": [(256, 128)], "rings": [31, 103], "channels": [3, 32], "pass": ["forward", "backward"]}
FULL = QUICK | {"batch": [1, 16, 64], "size": [(128, 64), (256, 128), (512, 256)]}


def fits(case: dict) -> bool:
    return case["batch"] * case["size"][0] * case["size"][1] * case["channels"] <= 16 * 256 * 128 * 3


def scene(case: dict, device: torch.device, batch: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """attributes [B, V, C], faces, face_id, bary."""
    verts, _, faces = two_views(batch or case["batch"], 1, case["size"], case["rings"], device)
    raster = ops.rasterize(verts, faces, case["size"])
    generator = torch.Generator().manual_seed(0)
    attributes = torch.randn(verts.shape[0], verts.shape[1], case["channels"], generator=generator).to(device)
    return attributes, faces, raster.face_id, raster.bary


def pytorch(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    """Gather the corners' values of each pixel, weigh and add."""
    batch, vertices, channels = attributes.shape
    inside = (face_id >= 0).unsqueeze(-1)
    corner = faces.long()[face_id.long().clamp_min(0)]  # [B, H, W, 3]
    corner = corner + (torch.arange(batch, device=faces.device) * vertices)[:, None, None, None]
    table, weight = attributes.reshape(-1, channels), torch.where(inside, bary, 0.0)
    return sum(weight[..., k, None] * table[corner[..., k]] for k in range(3))


def gradients(interpolate: Callable[..., Tensor], scene: tuple[Tensor, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """The backward pass alone, to attributes and bary."""
    attributes, faces, face_id, bary = scene
    attributes, bary = attributes.clone().requires_grad_(), bary.clone().requires_grad_()
    out = interpolate(attributes, faces, face_id, bary)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    return lambda: torch.autograd.grad(out, (attributes, bary), weight, retain_graph=True)


def check(case: dict, device: torch.device) -> None:
    inputs = scene(case, device, min(case["batch"], 2))
    want = reference.interpolate(*inputs)
    assert want.abs().max() > 1
    for got in (ops.interpolate(*inputs), pytorch(*inputs)):
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    if case["pass"] == "backward":
        wanted = gradients(reference.interpolate, inputs)()
        for function in (ops.interpolate, pytorch):
            for got, want in zip(gradients(function, inputs)(), wanted, strict=True):
                assert (got - want).abs().max() <= 1e-5 * want.abs().max()


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    inputs = scene(case, device)
    if implementation == "floor":
        attributes, faces, face_id, bary = (t.numel() * t.element_size() for t in inputs)
        out = inputs[2].numel() * case["channels"] * 4
        backward = attributes + bary  # the two gradients are written
        return copy_of(attributes + faces + face_id + bary + out + (backward if case["pass"] == "backward" else 0), device)
    function = {"native": ops.interpolate, "reference": reference.interpolate, "pytorch": pytorch}[implementation]
    return gradients(function, inputs) if case["pass"] == "backward" else lambda: function(*inputs)


def test_interpolate(case, implementation, device, measure) -> None:
    measure()
