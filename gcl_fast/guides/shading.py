"""The shaded body from a raster that is there already: what `ops.render_mesh` draws, without rasterizing once more."""

from __future__ import annotations

import torch
from torch import Tensor

LIGHT = (-0.4, -0.6, -1.0)  # towards it: upper left, in front of the body
AMBIENT, DIFFUSE = 0.25, 0.75
LEAST = 1e-30  # of a normal's length: a face without area has none


@torch.no_grad()
def shaded(face_id: Tensor, body: Tensor, faces: Tensor, eye: Tensor, weak: Tensor) -> Tensor:
    """Grey picture [B, 1, H, W] in [0, 1], flat shading, background 0; within rounding of `ops.render_mesh`. No gradient.

    Arguments:
        face_id: [B, H, W] int32, -1 off the body.
        body: [B, V, 3] float32, turned, in body axes (not projected).
        faces: [F, 3] int32 or int64.
        eye: [B, 3], what a perspective camera adds to a vertex to see it from its eye.
        weak: [B] bool, where the camera is weak perspective and looks along z.
    """
    inside = face_id >= 0
    corners = faces[face_id.clamp_min(0)].long().flatten(1, 2)  # [B, H*W, 3]
    points = [torch.gather(body, 1, corners[..., k : k + 1].expand(-1, -1, 3)) for k in range(3)]  # of [B, H*W, 3]
    normal = torch.linalg.cross(points[1] - points[0], points[2] - points[0])
    ray = torch.where(weak[:, None, None], _vector((0.0, 0.0, 1.0), body), points[0] + eye[:, None])
    normal = torch.where((normal * ray).sum(-1, keepdim=True) > 0, -normal, normal)  # turned to the viewer
    light = torch.nn.functional.normalize(_vector(LIGHT, body), dim=0)
    lambert = (normal * light).sum(-1) / normal.norm(dim=-1).clamp_min(LEAST)
    shade = (AMBIENT + DIFFUSE * lambert.clamp_min(0)).clamp(0, 1).view(inside.shape)
    return (shade * inside)[:, None]


def _vector(values: tuple[float, float, float], like: Tensor) -> Tensor:
    """[3], made on the device: a copy from the host would wait for it."""
    return torch.stack([like.new_full((), value) for value in values])
