"""Plain definition of rasterize: the same integer coverage and the same floating-point steps, in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gcl_fast._op_types import Rasterized

SUBPIXELS = 256  # steps of the snapping grid in a pixel
MAX_COORDINATE = 1 << 21  # pixels
PAIRS_AT_ONCE = 1 << 20  # (face, pixel) pairs held in memory


def rasterize(
    verts: Tensor, faces: Tensor, image_size: tuple[int, int], *, cull_backfaces: bool = False, method: str = "auto"
) -> Rasterized:
    """See `gcl_fast.ops.rasterize`; method is ignored. Images are done one after the other."""
    del method
    height, width = image_size
    images = [_one_image(v, faces.long(), height, width, cull_backfaces) for v in verts]
    if not images:
        empty = verts.new_empty((0, height, width))
        return Rasterized(empty.to(torch.int32), verts.new_empty((0, height, width, 3)), empty)
    return Rasterized(*(torch.stack(parts) for parts in zip(*images, strict=True)))


def _one_image(verts: Tensor, faces: Tensor, height: int, width: int, cull_backfaces: bool) -> tuple[Tensor, Tensor, Tensor]:
    pixels, num_faces = height * width, faces.shape[0]
    nearest = verts.new_full((pixels,), float("inf"))  # depth so far
    owner = torch.full((pixels,), num_faces, device=verts.device)  # face so far
    for face, pixel in _boxes(verts.detach(), faces, height, width, cull_backfaces):  # faces in rising order
        corners, snapped = _triangles(verts.detach(), faces[face])
        edge = _edges(snapped, pixel, width)
        keep = _owns(edge, snapped)
        face, pixel = face[keep], pixel[keep]
        _, depth = _weigh(corners[keep], edge[keep], pixel, width)
        new = nearest.scatter_reduce(0, pixel, depth, "amin")
        winner = torch.where(new < nearest, num_faces, owner)  # a tie with an earlier chunk stays with its lower face
        first = (depth == new[pixel]) & (new < nearest)[pixel]
        owner = winner.scatter_reduce(0, pixel[first], face[first], "amin")
        nearest = new

    seen = (owner < num_faces).nonzero().squeeze(1)
    corners, snapped = _triangles(verts, faces[owner[seen]])
    bary, depth = _weigh(corners, _edges(snapped, seen, width), seen, width)
    face_id = torch.where(owner < num_faces, owner, -1).to(torch.int32)
    all_bary = verts.new_zeros((pixels, 3)).index_copy(0, seen, bary)
    all_depth = verts.new_full((pixels,), float("inf")).index_copy(0, seen, depth)
    return face_id.view(height, width), all_bary.view(height, width, 3), all_depth.view(height, width)


def _triangles(verts: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Corners [n,3,3] as given, and their x and y snapped to the grid, int64 [n,3,2]."""
    corners = verts[faces]
    snapped = torch.round(corners.detach()[..., :2] * SUBPIXELS).nan_to_num(0.0, 0.0, 0.0)  # ties to even
    return corners, snapped.clamp(-SUBPIXELS * MAX_COORDINATE, SUBPIXELS * MAX_COORDINATE).long()


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _area(snapped: Tensor) -> Tensor:
    """Twice the signed area in grid steps; positive where the corners run clockwise on the screen."""
    return _cross(snapped[:, 1] - snapped[:, 0], snapped[:, 2] - snapped[:, 0])


def _boxes(verts: Tensor, faces: Tensor, height: int, width: int, cull_backfaces: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (face, pixel) pairs: every usable face with each pixel centre in its box, some faces at a time."""
    corners, snapped = _triangles(verts, faces)
    area = _area(snapped)
    usable = corners.isfinite().all(-1).all(-1) & (corners[..., :2].abs() <= MAX_COORDINATE).all(-1).all(-1) & (area != 0)
    if cull_backfaces:
        usable &= area < 0
    half = SUBPIXELS // 2
    size = torch.tensor([width, height], device=verts.device)
    first = torch.div(snapped.amin(1) - half + SUBPIXELS - 1, SUBPIXELS, rounding_mode="floor").clamp(min=0)  # [F,2] col, row
    last = torch.minimum(torch.div(snapped.amax(1) - half, SUBPIXELS, rounding_mode="floor"), size - 1)
    extent = (last - first + 1).clamp(min=0) * usable[:, None]
    pairs = extent.prod(1)  # [F]
    chunk = torch.div(pairs.cumsum(0), PAIRS_AT_ONCE, rounding_mode="floor")
    for part in sorted(set(chunk[pairs > 0].tolist())):
        some = ((chunk == part) & (pairs > 0)).nonzero().squeeze(1)
        face = some.repeat_interleave(pairs[some])
        begin = (pairs[some].cumsum(0) - pairs[some]).repeat_interleave(pairs[some])
        place = torch.arange(face.numel(), device=verts.device) - begin  # 0, 1, .. in each box
        col = first[face, 0] + place % extent[face, 0]
        row = first[face, 1] + torch.div(place, extent[face, 0], rounding_mode="floor")
        yield face, row * width + col


def _edges(snapped: Tensor, pixel: Tensor, width: int) -> Tensor:
    """Edge functions [n,3] of the snapped triangles at the pixel centres, positive inside; edge k faces corner k."""
    orientation = _area(snapped).sign()
    centre = torch.stack((pixel % width, torch.div(pixel, max(width, 1), rounding_mode="floor")), -1) * SUBPIXELS + SUBPIXELS // 2
    edges = [_cross(snapped[:, b] - snapped[:, a], centre - snapped[:, a]) for a, b in ((1, 2), (2, 0), (0, 1))]
    return torch.stack(edges, -1) * orientation[:, None]


def _owns(edge: Tensor, snapped: Tensor) -> Tensor:
    """The top-left rule: a centre on an edge belongs to the triangle below (top edge) or to the right of it (left edge)."""
    orientation = _area(snapped).sign()[:, None]
    direction = torch.stack([snapped[:, b] - snapped[:, a] for a, b in ((1, 2), (2, 0), (0, 1))], 1) * orientation[..., None]
    dx, dy = direction.unbind(-1)  # [n,3]
    top_left = (dy < 0) | ((dy == 0) & (dx > 0))
    return ((edge > 0) | ((edge == 0) & top_left)).all(-1)


def _weigh(corners: Tensor, edge: Tensor, pixel: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Barycentrics [n,3] and depth [n] of the unsnapped triangles at the pixel centres."""
    col, row = pixel % width, torch.div(pixel, max(width, 1), rounding_mode="floor")
    centre = torch.stack((col, row), -1).to(corners.dtype) + 0.5  # [n,2]
    x, y = (corners[..., :2] - centre[:, None]).unbind(-1)  # [n,3]
    area = [x[:, a] * y[:, b] - y[:, a] * x[:, b] for a, b in ((1, 2), (2, 0), (0, 1))]
    total = (area[0] + area[1]) + area[2]
    sign = torch.where(total < 0, -1.0, 1.0).to(corners.dtype)
    flat = total == 0  # no area before snapping: the snapped triangle stands in
    part = [torch.where(flat, edge[:, k].to(corners.dtype), (area[k] * sign).clamp(min=0)) for k in range(3)]
    whole = (part[0] + part[1]) + part[2]
    bary = torch.stack([p / whole for p in part], -1)
    z = corners[..., 2]
    depth = (bary[:, 0] * z[:, 0] + bary[:, 1] * z[:, 1]) + bary[:, 2] * z[:, 2]
    return bary, _Within.apply(depth, z.amin(-1), z.amax(-1)) + 0.0  # -0 becomes +0


class _Within(torch.autograd.Function):
    """Takes back what rounding carried out of [low, high]; the gradient passes as if nothing happened."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(value, low), high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None
