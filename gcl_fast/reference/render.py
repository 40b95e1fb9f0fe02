"""Plain definition of render_mesh: one view at a time, one step a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.reference.rasterize import rasterize

LIGHT = (-0.4, -0.6, -1.0)  # towards the light: upper left, in front of the body


def _turned(verts: Tensor, degrees: float) -> Tensor:
    """[V, 3] turned about the vertical axis through the middle of its x/z bounding box."""
    middle = (verts.min(0).values + verts.max(0).values) / 2
    x, _, z = (verts - middle).unbind(1)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack((c * x + s * z + middle[0], verts[:, 1], -s * x + c * z + middle[2]), 1)


def _seen(verts: Tensor, camera: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[V, 3] in pixels and depth, and [V, 3] the direction from the eye to each vertex."""
    x, y, z = verts.unbind(1)
    if len(camera) == 3:
        s, tx, ty = camera
        pixels = torch.stack((width / 2 + height / 2 * s * (x + tx), height / 2 + height / 2 * s * (y + ty), z), 1)
        return pixels, torch.tensor([0.0, 0.0, 1.0], dtype=verts.dtype).expand_as(verts)
    tx, ty, tz, f, cx, cy = camera
    ray = torch.stack((x + tx, y + ty, z + tz), 1)
    x, y, z = ray.unbind(1)
    pixels = torch.stack((width / 2 + height * (f * x / z + cx), height / 2 + height * (f * y / z + cy), z), 1)
    pixels[z <= 0] = float("nan")  # the rasterizer drops triangles with a vertex that is not finite
    return pixels, ray


def render_mesh(
    verts: Tensor, faces: Tensor, camera: Tensor, yaw_degrees: Sequence[float] | Tensor, image_size: tuple[int, int]
) -> Tensor:
    """See `gcl_fast.ops.render_mesh`."""
    height, width = image_size
    yaws = [float(y) for y in yaw_degrees]
    out = verts.new_zeros(len(verts), len(yaws), 1, height, width)
    light = torch.tensor(LIGHT, dtype=verts.dtype)
    light = light / light.norm()
    for b in range(len(verts)):
        for r, degrees in enumerate(yaws):
            body = _turned(verts[b], degrees)
            pixels, ray = _seen(body, camera[b].to(verts.dtype), height, width)
            face_id = rasterize(pixels[None], faces, (height, width)).face_id[0]  # [H, W]
            p, q, s = body[faces.long()].unbind(1)  # each [F, 3]
            normal = torch.linalg.cross(q - p, s - p)
            away = (normal * ray[faces[:, 0].long()]).sum(1) > 0
            normal = torch.where(away[:, None], -normal, normal)
            normal = normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-30)
            shade = (0.25 + 0.75 * (normal @ light).clamp_min(0)).clamp(0, 1)  # [F]
            inside = face_id >= 0
            out[b, r, 0][inside] = shade[face_id[inside].long()]
    return out
