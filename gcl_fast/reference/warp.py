"""Plain definitions of mesh_flow and mesh_warp: one pixel at a time, on the CPU wherever the tensors are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcl_fast._op_types import MeshFlow, MeshWarp
from gcl_fast.reference.interpolate import interpolate
from gcl_fast.reference.rasterize import rasterize


def mesh_flow(src_verts: Tensor, dst_verts: Tensor, faces: Tensor, image_size: tuple[int, int]) -> MeshFlow:
    """See `gcl_fast.ops.mesh_flow`, which says when a point is visible. Its "lies behind by at most 0.01 of the depth extent"
    has 1e-5 of the largest depth on top, for rounding."""
    height, width = image_size
    device = src_verts.device
    src_verts, dst_verts, faces = (t.cpu() for t in (src_verts.expand(len(dst_verts), -1, -1), dst_verts, faces))
    src, dst = rasterize(src_verts, faces, image_size), rasterize(dst_verts, faces, image_size)
    points = interpolate(src_verts, faces, dst.face_id, dst.bary)  # [B, H, W, 3] pixels and depth in the source
    grid = torch.full((*dst.face_id.shape, 2), -2.0, dtype=src_verts.dtype)
    visibility = torch.zeros(dst.face_id.shape, dtype=torch.uint8)
    for b in range(len(src_verts)):
        depths = src_verts[b, :, 2][torch.isfinite(src_verts[b]).all(1)]
        extent = float(depths.max() - depths.min()) if len(depths) else 0.0
        tolerance = 0.01 * extent + 1e-5 * (float(depths.abs().max()) if len(depths) else 0.0)
        for i, j in (dst.face_id[b] >= 0).nonzero().tolist():
            x, y, z = points[b, i, j].tolist()
            if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
                visibility[b, i, j] = 2
                continue
            grid[b, i, j, 0], grid[b, i, j, 1] = 2 * x / width - 1, 2 * y / height - 1
            gx, gy = _slope(src_verts[b][faces[int(dst.face_id[b, i, j])].long()].tolist(), extent)
            covered = agreeing = 0.0
            for row in (math.floor(y - 0.5), math.floor(y - 0.5) + 1):
                for column in (math.floor(x - 0.5), math.floor(x - 0.5) + 1):
                    if not (0 <= row < height and 0 <= column < width):
                        continue
                    seen = float(src.depth[b, row, column])
                    if math.isinf(seen):
                        continue
                    dx, dy = column + 0.5 - x, row + 0.5 - y
                    weight = (1 - abs(dx)) * (1 - abs(dy))
                    covered += weight
                    same_face = src.face_id[b, row, column] == dst.face_id[b, i, j]
                    agreeing += weight * bool(same_face or z + gx * dx + gy * dy <= seen + tolerance)
            inside = 0 <= x < width and 0 <= y < height
            visibility[b, i, j] = 1 if inside and 2 * agreeing >= covered else 2
    return MeshFlow(grid.to(device), visibility.to(device))


def _slope(corners: list[list[float]], limit: float) -> tuple[float, float]:
    """d depth / d x and d depth / d y of a triangle in pixels, each at most the mesh's depth extent a pixel."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0:
        return 0.0, 0.0
    gx = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
    gy = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
    return max(-limit, min(limit, gx)), max(-limit, min(limit, gy))


def mesh_warp(image: Tensor, src_verts: Tensor, dst_verts: Tensor, faces: Tensor, *, fill: float = 0.0) -> MeshWarp:
    """See `gcl_fast.ops.mesh_warp`."""
    flow = mesh_flow(src_verts, dst_verts, faces, (image.shape[-2], image.shape[-1]))
    image = image.expand(len(dst_verts), -1, -1, -1)
    sampled = torch.nn.functional.grid_sample(image, flow.grid.to(image.dtype), mode="bilinear", align_corners=False)
    shown = (flow.visibility == 1).unsqueeze(1)  # [B, 1, H, W]
    return MeshWarp(torch.where(shown, sampled, torch.full_like(sampled, fill)), flow.visibility)
