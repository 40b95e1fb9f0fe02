"""Plain definition of turning a body and of projecting it: one body, one view, one step a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def turn(verts: Tensor, yaw_degrees: Sequence[float] | Tensor) -> Tensor:
    """See `gcl_fast.ops.camera.turn`: [..., V, 3] -> [..., R, V, 3]."""
    angles = yaw_degrees.tolist() if isinstance(yaw_degrees, Tensor) else list(yaw_degrees)
    bodies = verts.reshape(-1, *verts.shape[-2:])  # [N, V, 3]
    views = [turn_one(body, degrees) for body in bodies for degrees in angles]
    shape = (*verts.shape[:-2], len(angles), *verts.shape[-2:])
    return torch.stack(views).reshape(shape) if views else verts.new_zeros(shape)


def turn_each(verts: Tensor, yaw_degrees: Tensor) -> Tensor:
    """See `gcl_fast.ops.camera.turn_each`: [B, V, 3] by an angle each [B] -> [B, V, 3]."""
    bodies = [turn_one(body, degrees) for body, degrees in zip(verts, yaw_degrees.tolist(), strict=True)]
    return torch.stack(bodies) if bodies else torch.zeros_like(verts)


def turn_one(verts: Tensor, degrees: float) -> Tensor:
    """[V, 3] turned about the vertical axis through the middle of its x/z bounding box."""
    if len(verts) == 0:
        return verts
    middle = (verts.min(0).values + verts.max(0).values) / 2
    x, _, z = (verts - middle).unbind(1)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.stack((c * x + s * z + middle[0], verts[:, 1], -s * x + c * z + middle[2]), 1)


def project(verts: Tensor, camera: Tensor, image_size: tuple[int, int]) -> Tensor:
    """See `gcl_fast.ops.camera.project`: [..., V, 3] and a camera [..., 3 or 6] -> pixels and depth [..., V, 3]."""
    leading = np.broadcast_shapes(tuple(verts.shape[:-2]), tuple(camera.shape[:-1]))
    bodies = verts.expand(*leading, *verts.shape[-2:]).reshape(-1, *verts.shape[-2:])
    cameras = camera.expand(*leading, camera.shape[-1]).reshape(-1, camera.shape[-1])
    pixels = [project_one(body, lens.to(verts.dtype), *image_size) for body, lens in zip(bodies, cameras, strict=True)]
    shape = (*leading, *verts.shape[-2:])
    return torch.stack(pixels).reshape(shape) if pixels else verts.new_zeros(shape)


def project_one(verts: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """[V, 3] in pixels and depth; NaN for a vertex at or behind the eye of a perspective camera."""
    x, y, z = verts.unbind(1)
    if len(camera) == 3:
        s, tx, ty = camera
        return torch.stack((width / 2 + height / 2 * s * (x + tx), height / 2 + height / 2 * s * (y + ty), z), 1)
    tx, ty, tz, f, cx, cy = camera
    depth = torch.where(z + tz > 0, z + tz, math.nan)
    column, row = f * (x + tx) / depth + cx, f * (y + ty) / depth + cy  # in image heights from the centre
    return torch.stack((width / 2 + height * column, height / 2 + height * row, depth), 1)
