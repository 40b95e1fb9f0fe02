"""Plain definition of render_mesh: one view at a time, one step a line, on the CPU wherever the tensors are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.reference.camera import project_one, turn_one
from gcl_fast.reference.rasterize import rasterize

LIGHT = (-0.4, -0.6, -1.0)  # towards the light: upper left, in front of the body


def _rays(verts: Tensor, camera: Tensor) -> Tensor:
    """[V, 3]: the direction from the eye to each vertex."""
    if len(camera) == 3:
        return torch.tensor([0.0, 0.0, 1.0], dtype=verts.dtype).expand_as(verts)
    return verts + camera[:3]


def render_mesh(
    verts: Tensor,
    faces: Tensor,
    camera: Tensor,
    yaw_degrees: Sequence[float] | Tensor,
    image_size: tuple[int, int],
    *,
    method: str = "auto",
) -> Tensor:
    """See `gcl_fast.ops.render_mesh`; method is ignored."""
    del method
    height, width = image_size
    yaws, device = [float(y) for y in yaw_degrees], verts.device
    verts, faces, camera = verts.cpu(), faces.cpu(), camera.cpu()
    out = verts.new_zeros(len(verts), len(yaws), 1, height, width)
    light = torch.tensor(LIGHT, dtype=verts.dtype)
    light = light / light.norm()
    for b in range(len(verts)):
        for r, degrees in enumerate(yaws):
            body, lens = turn_one(verts[b], degrees), camera[b].to(verts.dtype)
            pixels, ray = project_one(body, lens, height, width), _rays(body, lens)
            face_id = rasterize(pixels[None], faces, (height, width)).face_id[0]  # [H, W]
            p, q, s = body[faces.long()].unbind(1)  # each [F, 3]
            normal = torch.linalg.cross(q - p, s - p)
            away = (normal * ray[faces[:, 0].long()]).sum(1) > 0
            normal = torch.where(away[:, None], -normal, normal)
            normal = normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-30)
            shade = (0.25 + 0.75 * (normal @ light).clamp_min(0)).clamp(0, 1)  # [F]
            inside = face_id >= 0
            out[b, r, 0][inside] = shade[face_id[inside].long()]
    return out.to(device)
