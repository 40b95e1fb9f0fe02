"""The grey guide of the generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.ops._camera import check_camera, check_yaws, cosines_sines, middle_of, project, turn
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes
from gcl_fast.ops.rasterize import rasterize

_LIGHT = (-0.3244428422615251, -0.48666426339228763, -0.8111071056538127)  # (-0.4, -0.6, -1.0) normalised


@torch.no_grad()
def render_mesh(
    verts: Tensor, faces: Tensor, camera: Tensor, yaw_degrees: Sequence[float] | Tensor, image_size: tuple[int, int]
) -> Tensor:
    """The grey shaded picture of a body that guides the generator, at any yaw angles.

    verts: [B, V, 3] float32/64 in body axes (x right, y down, z away from the camera, metres). faces: [F, 3] int32/64.
    camera: [B, 3] weak perspective or [B, 6] perspective, see `gcl_fast.bodies.project`. yaw_degrees: R angles (list or
    tensor); the body turns about the vertical axis through the middle of its x/z bounding box, see `gcl_fast.bodies.turn`.
    image_size: (H, W). Returns [B, R, 1, H, W] in [0, 1], dtype of verts.

    Background 0; a body pixel is 0.25 + 0.75 max(0, n.l), n the unit normal of its face turned to the viewer (flat
    shading), l = (-0.4, -0.6, -1.0) normalised, the direction to a far light at the upper left in front. A face with a
    vertex at or behind a perspective camera is dropped. Not differentiable. Deterministic.
    Raises ValueError/TypeError naming the argument.
    """
    shapes = Shapes("render_mesh")
    shapes.tensor("verts", verts, ("B", "V", 3), FLOATS)
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("verts", verts))
    check_camera("render_mesh", camera, verts)
    shapes.tensor("camera", camera, ("B", 6 if camera.shape[-1] == 6 else 3), ANY_FLOATS, ("verts", verts))
    height, width = shapes.image_size(image_size)
    views = check_yaws("render_mesh", yaw_degrees)
    batch, count = shapes["B"], shapes["V"]
    if batch * views * height * width * count * shapes["F"] == 0:
        return verts.new_zeros(batch, views, 1, height, width)

    camera = camera.to(verts.dtype).unsqueeze(1)  # [B, 1, 3 or 6]
    body = turn(verts, yaw_degrees)  # [B, R, V, 3]
    pixels = project(body, camera, (height, width)).flatten(0, 1)  # [B*R, V, 3]
    face_id = rasterize(pixels, faces, (height, width)).face_id.long()  # [B*R, H, W]

    shade = _shade(verts, faces.long().clamp(0, count - 1), camera, yaw_degrees).flatten(0, 1)  # [B*R, F]
    image = shade.gather(1, face_id.clamp_min(0).flatten(1)).view_as(face_id)  # [B*R, H, W]
    image = torch.where(face_id >= 0, image, torch.zeros_like(image))
    return image.view(batch, views, 1, height, width)


def _shade(verts: Tensor, faces: Tensor, camera: Tensor, yaw_degrees: Sequence[float] | Tensor) -> Tensor:
    """Grey of each face in each view [B, R, F]; camera [B, 1, 3 or 6]. Normals are made once and turned with the body."""
    middle = middle_of(verts)  # [B, 1, 3]
    corners = verts.index_select(1, faces.flatten()).unflatten(1, (-1, 3))  # [B, F, 3, 3]
    a, b, c = corners.unbind(2)  # each [B, F, 3]
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    nx, ny, nz = normal.unbind(-1)  # each [B, F]
    if camera.shape[-1] == 6:  # with p = R (a - m) + m + t from the eye: (R n).p = n.(a - m) + (R n).(m + t)
        own = (normal * (a - middle)).sum(-1)  # [B, F]
        ex, ey, ez = (middle + camera[..., :3]).unbind(-1)  # each [B, 1]
    views = []
    for cosine, sine in cosines_sines(yaw_degrees, verts):
        tx, tz = cosine * nx + sine * nz, cosine * nz - sine * nx
        away = tz > 0 if camera.shape[-1] == 3 else own + tx * ex + ny * ey + tz * ez > 0
        lit = tx * _LIGHT[0] + ny * _LIGHT[1] + tz * _LIGHT[2]
        views.append(torch.where(away, -lit, lit))
    return (0.25 + 0.75 * torch.stack(views, 1).clamp_min(0)).clamp_max(1)
