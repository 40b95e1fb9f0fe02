"""ops.mesh_flow and ops.mesh_warp against their reference, plain PyTorch (gather and grid_sample, on the same rasterizer), and
a copy of the bytes of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bench.meshes import copy_of, two_views
from gcl_fast import ops, reference

OP = "warp"
IMPLEMENTATIONS = ("native", "pytorch", "floor", "reference")
CHECK = (
    "in float64 visibility equal to the reference and grid, warped image and its gradient within 1e-9; in float32 at most 0.2% "
    "of the pixels of another visibility than in float64 and the rest of the image within 0.01; plain PyTorch the same in "
    "float64; on the first image at 64x32"
)
# pass: "kernel" is mesh_warp without the two rasters
QUICK = {
    "batch": [16],
    "views": [1],
    "size": [(64, 32), (256, 128)],
    "rings": [31, 103],
    "pass": ["flow", "warp", "kernel", "backward"],
}
FULL = QUICK | {"batch": [1, 16], "views": [1, 8], "size": [(64, 32), (128, 64), (256, 128), (512, 256)]}


class Scene(NamedTuple):
    image: Tensor  # [B, 3, H, W]
    src: Tensor  # [B, V, 3]
    dst: Tensor
    faces: Tensor


def scene(case: dict, device: torch.device) -> Scene:
    src, dst, faces = two_views(case["batch"], case["views"], case["size"], case["rings"], device)
    image = torch.rand(src.shape[0], 3, *case["size"], generator=torch.Generator().manual_seed(0)).to(device)
    return Scene(image, src, dst, faces)


def fits(case: dict) -> bool:
    return case["batch"] * case["views"] * case["size"][0] * case["size"][1] <= 16 * 64 * 32


def plain_flow(src: Tensor, faces: Tensor, dst_face: Tensor, dst_bary: Tensor, seen_face: Tensor, seen: Tensor):
    """grid and visibility as `mesh_flow` defines them, by tensor operations alone; bodies whose vertices are all finite."""
    batch, height, width = dst_face.shape
    face = dst_face.long().clamp_min(0)
    offset = (torch.arange(batch, device=src.device) * src.shape[1])[:, None, None, None]
    corner = src.reshape(-1, 3)[faces.long()[face] + offset]  # [B, H, W, 3, 3]
    x, y, z = (dst_bary.unsqueeze(-1) * corner).sum(-2).unbind(-1)  # each [B, H, W]
    a, b, c = corner.unbind(-2)
    b, c = b - a, c - a
    near, far = src[..., 2].amin(1)[:, None, None], src[..., 2].amax(1)[:, None, None]  # [B, 1, 1]
    extent, tolerance = far - near, 0.01 * (far - near) + 1e-5 * torch.maximum(near.abs(), far.abs())
    area = b[..., 0] * c[..., 1] - c[..., 0] * b[..., 1]
    across = (b[..., 2] * c[..., 1] - c[..., 2] * b[..., 1]) / area
    down = (c[..., 2] * b[..., 0] - b[..., 2] * c[..., 0]) / area
    across, down = (torch.maximum(torch.minimum(s.nan_to_num(0), extent), -extent) for s in (across, down))
    covered, agreeing = torch.zeros_like(z), torch.zeros_like(z)
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        j, i = left + column, top + row
        within = (j >= 0) & (j < width) & (i >= 0) & (i < height)
        index = (i.clamp(0, height - 1).long() * width + j.clamp(0, width - 1).long()).flatten(1)
        there = seen.flatten(1).gather(1, index).view_as(z)
        same = seen_face.flatten(1).gather(1, index).view_as(dst_face) == dst_face
        dx, dy = j + 0.5 - x, i + 0.5 - y
        weight = (1 - dx.abs()) * (1 - dy.abs()) * (within & there.isfinite())
        covered = covered + weight
        agreeing = agreeing + weight * (same | (z + across * dx + down * dy <= there + tolerance))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    drawn = dst_face >= 0
    grid = torch.where(drawn.unsqueeze(-1), torch.stack((2 * x / width - 1, 2 * y / height - 1), -1), -2.0)
    visible = inside & (2 * agreeing >= covered)
    return grid, torch.where(drawn, 2 - visible.to(torch.uint8), 0).to(torch.uint8)


def plain_warp(image: Tensor, *flow_inputs: Tensor) -> tuple[Tensor, Tensor]:
    grid, visibility = plain_flow(*flow_inputs)
    read = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    return torch.where((visibility == 1).unsqueeze(1), read, 0.0), visibility


def rasters(s: Scene) -> tuple[Tensor, ...]:
    """What the kernel stands on: src, faces, the destination's face_id and bary, the source's face_id and depth."""
    size = tuple(s.image.shape[-2:])
    dst, src = ops.rasterize(s.dst, s.faces, size), ops.rasterize(s.src, s.faces, size)
    return s.src, s.faces, dst.face_id, dst.bary, src.face_id, src.depth


def gradient(warp: Callable[[Tensor], Tensor], image: Tensor) -> Callable[[], Tensor]:
    image = image.clone().requires_grad_()
    warped = warp(image)
    weight = torch.linspace(-1, 1, warped.numel(), device=image.device, dtype=image.dtype).view_as(warped)
    return lambda: torch.autograd.grad(warped, image, weight, retain_graph=True)[0]


def check(case: dict, device: torch.device) -> None:
    single = scene(case | {"batch": 1, "views": 1, "size": (64, 32)}, device)
    s = Scene(single.image.double(), single.src.double(), single.dst.double(), single.faces)
    want = reference.mesh_flow(s.src, s.dst, s.faces, (64, 32))
    wanted = reference.mesh_warp(s.image, s.src, s.dst, s.faces)
    slope = gradient(lambda image: reference.mesh_warp(image, s.src, s.dst, s.faces).warped, s.image)()
    assert {0, 1, 2} == set(want.visibility.unique().tolist())
    for grid, visibility in (ops.mesh_flow(s.src, s.dst, s.faces, (64, 32)), plain_flow(*rasters(s))):
        assert torch.equal(visibility, want.visibility) and (grid - want.grid).abs().max() <= 1e-9
    for warped, visibility in (ops.mesh_warp(*s), plain_warp(s.image, *rasters(s))):
        assert torch.equal(visibility, want.visibility) and (warped - wanted.warped).abs().max() <= 1e-9
    assert (gradient(lambda image: ops.mesh_warp(image, *s[1:]).warped, s.image)() - slope).abs().max() <= 1e-9
    warped, visibility = ops.mesh_warp(*single)
    same = visibility == want.visibility
    assert same.double().mean() >= 0.998
    assert ((warped - wanted.warped).abs().amax(1) * same).max() <= 0.01


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    s, part = scene(case, device), case["pass"]
    size = case["size"]
    if implementation == "floor":
        pixels = s.image[:, 0].numel()
        verts = s.src.numel() * 4 * (1 if part == "kernel" else 2)
        bytes_of = {
            "flow": verts + 9 * pixels,  # grid and visibility
            "warp": verts + (12 + 12 + 1) * pixels,  # image in, image and visibility out
            "kernel": verts + (16 + 8 + 12 + 12 + 1) * pixels,  # the rasters too
            "backward": (12 + 12 + 8 + 1) * pixels,
        }
        return copy_of(bytes_of[part] + s.faces.numel() * 4 * (part != "backward"), device)
    if implementation == "reference":
        if part == "flow":
            return lambda: reference.mesh_flow(s.src, s.dst, s.faces, size)
        if part == "backward":
            return gradient(lambda image: reference.mesh_warp(image, *s[1:]).warped, s.image)
        return lambda: reference.mesh_warp(*s)
    native, views = implementation == "native", rasters(s)
    if part == "flow":
        return (lambda: ops.mesh_flow(s.src, s.dst, s.faces, size)) if native else lambda: plain_flow(*rasters(s))
    if part == "warp":
        return (lambda: ops.mesh_warp(*s)) if native else lambda: plain_warp(s.image, *rasters(s))
    if part == "kernel":
        kernel = torch.ops.gcl_fast.mesh_warp
        return (lambda: kernel(s.image, *views, 0.0, False)) if native else lambda: plain_warp(s.image, *views)
    warp = (lambda image: ops.mesh_warp(image, *s[1:]).warped) if native else lambda image: plain_warp(image, *views)[0]
    return gradient(warp, s.image)


def test_warp(case, implementation, device, measure) -> None:
    measure()
