"""What stands on the rasterizer: attributes at pixels, the grey guide of the generator, flow and warp between two views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gcl_fast.ops._camera import check_camera, check_yaws, cosines_sines, middle_of, project, turn
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes
from gcl_fast.ops.rasterize import rasterize

_LIGHT = (-0.3244428422615251, -0.48666426339228763, -0.8111071056538127)  # (-0.4, -0.6, -1.0) normalised


class MeshFlow(NamedTuple):
    grid: Tensor  # [B, H, W, 2] in grid_sample(align_corners=False) units, -2 on background
    visibility: Tensor  # [B, H, W] uint8: 0 background, 1 visible, 2 occluded in the source


class MeshWarp(NamedTuple):
    warped: Tensor  # [B, C, H, W]
    visibility: Tensor  # [B, H, W] uint8, as in MeshFlow


def interpolate(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    """Vertex attributes at every pixel of a raster.

    attributes: [B, V, C] or [V, C] (one table for the batch), float32/64. faces: [F, 3] int32/64.
    face_id: [B, H, W] int32/64, -1 background; bary: [B, H, W, 3], as `rasterize` gives them.
    Returns [B, H, W, C] in the dtype of attributes: the sum over corners of bary * attribute, 0 on background. A face or
    vertex that does not exist reads the nearest one that does.
    Gradient to attributes and bary; none reaches either from background, whatever they hold there. Deterministic.
    Raises ValueError/TypeError naming the argument.
    """
    shapes = Shapes("interpolate")
    shapes.tensor("face_id", face_id, ("B", "H", "W"), INTEGERS)
    shared = isinstance(attributes, Tensor) and attributes.dim() == 2
    shapes.tensor("attributes", attributes, ("V", "C") if shared else ("B", "V", "C"), FLOATS, ("face_id", face_id))
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("face_id", face_id))
    shapes.tensor("bary", bary, ("B", "H", "W", 3), FLOATS, ("face_id", face_id))
    return _interpolate(attributes, faces, face_id, bary)


def _interpolate(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    batch, height, width = face_id.shape
    vertices, channels = attributes.shape[-2:]
    if vertices == 0 or faces.shape[0] == 0:  # nothing can be drawn; sums of nothing keep both in the graph
        nothing = attributes[..., :0, :].sum() + bary[..., :0].sum().to(attributes.dtype)
        return attributes.new_zeros(batch, height, width, channels) + nothing
    inside = (face_id >= 0).unsqueeze(-1)  # [B, H, W, 1]
    corners = faces.long().clamp(0, vertices - 1)[face_id.long().clamp(0, faces.shape[0] - 1)]  # [B, H, W, 3]
    if attributes.dim() == 3:
        offset = torch.arange(batch, device=faces.device) * vertices
        corners = corners + offset[:, None, None, None]
    table = attributes.reshape(-1, channels)  # [V or B*V, C]
    weights = torch.where(inside, bary, torch.zeros_like(bary)).to(attributes.dtype)
    total = attributes.new_zeros(batch, height, width, channels)
    for k in range(3):
        values = table[corners[..., k]]  # [B, H, W, C]; masked so that 0 * NaN never reaches a gradient
        total = total + weights[..., k, None] * torch.where(inside, values, torch.zeros_like(values))
    return total


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


@torch.no_grad()
def mesh_flow(src_verts: Tensor, dst_verts: Tensor, faces: Tensor, image_size: tuple[int, int]) -> MeshFlow:
    """Dense correspondence from one view of a mesh to another: where each destination pixel lies in the source image.

    src_verts, dst_verts: [B, V, 3] float32/64, pixels and depth as `rasterize` takes them. faces: [F, 3] int32/64.
    image_size: (H, W) of both views. Returns grid [B, H, W, 2] in grid_sample(align_corners=False) units, dtype of
    src_verts, -2 on background, and visibility [B, H, W] uint8: 0 background, 1 visible, 2 occluded in the source or
    outside its image (the grid then still points at the place; -2 where a source vertex is not finite).

    The point's source position and depth are those of its face's corners mixed by the destination's screen-space
    barycentric coordinates. Visibility compares that depth with the source raster's in the four pixels which a bilinear
    read would mix. A covered one agrees when it shows the point's own face, or when the plane of that face, carried to
    the pixel's centre (a slope at most the mesh's depth extent per pixel), lies behind the raster there by at most 0.01
    of the depth extent. The point is visible when the pixels that agree hold half of the covered ones' bilinear weight
    (so also when none is covered). Carrying the
    plane keeps both sides of a silhouette apart, where the depth changes much within a pixel; the tolerance is half a
    pixel of a body 250 pixels tall and a sixth as deep: surfaces closer than that cannot be told apart.
    Not differentiable. Deterministic. Raises ValueError/TypeError naming the argument.
    """
    height, width = _check_views("mesh_flow", src_verts, dst_verts, faces, image_size)
    return _flow(src_verts, dst_verts, faces, height, width)


def _check_views(op: str, src_verts: Tensor, dst_verts: Tensor, faces: Tensor, image_size: tuple[int, int]) -> tuple[int, int]:
    shapes = Shapes(op)
    shapes.tensor("src_verts", src_verts, ("B", "V", 3), FLOATS)
    shapes.tensor("dst_verts", dst_verts, ("B", "V", 3), (src_verts.dtype,), ("src_verts", src_verts))
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("src_verts", src_verts))
    return shapes.image_size(image_size)


def _flow(src_verts: Tensor, dst_verts: Tensor, faces: Tensor, height: int, width: int) -> MeshFlow:
    batch, count = src_verts.shape[:2]
    if batch * count * faces.shape[0] * height * width == 0:
        grid = src_verts.new_full((batch, height, width, 2), -2.0)
        return MeshFlow(grid, torch.zeros(batch, height, width, dtype=torch.uint8, device=src_verts.device))
    dst = rasterize(dst_verts, faces, (height, width))
    src = rasterize(src_verts, faces, (height, width))
    seen, seen_face = src.depth.flatten(1), src.face_id.flatten(1)  # [B, H*W], +inf and -1 on background
    point = _interpolate(src_verts, faces, dst.face_id, dst.bary)  # [B, H, W, 3]
    finite = point.isfinite().all(-1)  # [B, H, W]
    x, y, z = torch.where(finite.unsqueeze(-1), point, torch.zeros_like(point)).unbind(-1)

    usable = src_verts.isfinite().all(-1)  # [B, V]
    depth = src_verts[..., 2]
    nearest = torch.where(usable, depth, float("inf")).amin(1)
    farthest = torch.where(usable, depth, float("-inf")).amax(1)  # [B]
    extent = (farthest - nearest).clamp_min(0)[:, None, None]  # [B, 1, 1]
    tolerance = 0.01 * extent + 1e-5 * torch.maximum(nearest.abs(), farthest.abs())[:, None, None]
    gx, gy = _slopes(src_verts, faces, dst.face_id, extent)  # [B, H, W]

    covered, agreeing = torch.zeros_like(z), torch.zeros_like(z)
    left, top = (x - 0.5).floor(), (y - 0.5).floor()
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        j, i = left + column, top + row
        within = (j >= 0) & (j < width) & (i >= 0) & (i < height)
        index = i.clamp(0, height - 1).long() * width + j.clamp(0, width - 1).long()
        there = seen.gather(1, index.flatten(1)).view_as(z)
        same = seen_face.gather(1, index.flatten(1)).view_as(z) == dst.face_id
        dx, dy = j + 0.5 - x, i + 0.5 - y
        weight = (1 - dx.abs()) * (1 - dy.abs()) * (within & there.isfinite())
        covered = covered + weight
        agreeing = agreeing + weight * (same | (z + gx * dx + gy * dy <= there + tolerance))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    visible = finite & inside & (2 * agreeing >= covered)

    drawn = dst.face_id >= 0
    grid = torch.stack((2 * x / width - 1, 2 * y / height - 1), -1)
    grid = torch.where((drawn & finite).unsqueeze(-1), grid, torch.full_like(grid, -2.0))
    return MeshFlow(grid, torch.where(drawn, 2 - visible.to(torch.uint8), 0).to(torch.uint8))


def _slopes(verts: Tensor, faces: Tensor, face_id: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """d depth / d x and d depth / d y of each pixel's face [B, H, W], at most `limit` a pixel; 0 where it has no area."""
    faces = faces.long().clamp(0, verts.shape[1] - 1)
    x, y, z = verts.unbind(-1)  # each [B, V]
    (ax, bx, cx), (ay, by, cy), (az, bz, cz) = (tuple(c[:, faces[:, k]] for k in range(3)) for c in (x, y, z))
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)  # [B, F]
    across = ((bz - az) * (cy - ay) - (cz - az) * (by - ay)) / area
    down = ((cz - az) * (bx - ax) - (bz - az) * (cx - ax)) / area
    pixels = face_id.long().clamp(0, faces.shape[0] - 1).flatten(1)

    def at_pixels(slope: Tensor) -> Tensor:
        slope = torch.where((area != 0) & ~slope.isnan(), slope, torch.zeros_like(slope)).gather(1, pixels).view(face_id.shape)
        return torch.minimum(torch.maximum(slope, -limit), limit)

    return at_pixels(across), at_pixels(down)


def mesh_warp(image: Tensor, src_verts: Tensor, dst_verts: Tensor, faces: Tensor, *, fill: float = 0.0) -> MeshWarp:
    """Carry the pixels of one view of a mesh to another view.

    image: [B, C, H, W] floating point, the source view; src_verts, dst_verts: [B, V, 3] float32/64 in pixels of that size,
    with depth; faces: [F, 3] int32/64. Returns warped [B, C, H, W] in the image's dtype: `grid_sample` (bilinear, zeros
    outside, align_corners=False) at the grid of `mesh_flow` where the source shows the body, `fill` elsewhere; and the
    visibility of `mesh_flow`. Half-precision images are sampled in float32.
    Gradient to image only. Deterministic forward; on CUDA the gradient's atomic additions may differ in the last bits.
    Raises ValueError/TypeError naming the argument.
    """
    shapes = Shapes("mesh_warp")
    shapes.tensor("image", image, ("B", "C", "H", "W"), ANY_FLOATS)
    shapes.tensor("src_verts", src_verts, ("B", "V", 3), FLOATS, ("image", image))
    fill = float(shapes.number("fill", fill, float("-inf")))
    height, width = _check_views("mesh_warp", src_verts, dst_verts, faces, (shapes["H"], shapes["W"]))
    with torch.no_grad():
        grid, visibility = _flow(src_verts, dst_verts, faces, height, width)
    if image.numel() == 0:
        return MeshWarp(image.clone(), visibility)
    precise = image if image.dtype in FLOATS else image.float()
    sampled = torch.nn.functional.grid_sample(precise, grid.to(precise.dtype), mode="bilinear", align_corners=False)
    shown = (visibility == 1).unsqueeze(1)  # [B, 1, H, W]
    return MeshWarp(torch.where(shown, sampled, torch.full_like(sampled, fill)).to(image.dtype), visibility)
