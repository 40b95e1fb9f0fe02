"""Dense flow between two views of a mesh, and pictures carried along it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast._op_types import MeshFlow, MeshWarp, Rasterized
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes, check_faces, no_tangent
from gcl_fast.ops.interpolate import as_int32
from gcl_fast.ops.rasterize import MAX_IMAGE_SIZE, rasterize

MAX_PIXELS = (1 << 31) - 1  # of one image
MAX_COUNT = MAX_PIXELS // 3  # of vertices, of faces


@torch.no_grad()
def mesh_flow(src_verts: Tensor, dst_verts: Tensor, faces: Tensor, image_size: tuple[int, int]) -> MeshFlow:
    """Dense correspondence from one view of a mesh to another: where each destination pixel lies in the source image.

    The point's source position and depth are those of its face's corners mixed by the destination's screen-space
    barycentric coordinates. Visibility compares that depth with the source raster's in the four pixels which a bilinear
    read would mix. A covered one agrees when it shows the point's own face, or when the plane of that face, carried to
    the pixel's centre (a slope at most the mesh's depth extent per pixel), lies behind the raster there by at most 0.01
    of the depth extent. The point is visible when the pixels that agree hold half of the covered ones' bilinear weight
    (so also when none is covered). Carrying the
    plane keeps both sides of a silhouette apart, where the depth changes much within a pixel; the tolerance is half a
    pixel of a body 250 pixels tall and a sixth as deep: surfaces closer than that cannot be told apart.

    Deterministic: the same bits for any number of threads and batch order, on CPU and CUDA the same. Nothing waits for the GPU.

    Arguments:
        src_verts, dst_verts: [B, V, 3] float32 or float64, pixels and depth as `rasterize` takes them, depths within 1e30 of
            each other. One source, [1, V, 3], serves all B destinations and is rasterized once.
        faces: [F, 3] int32 or int64.
        image_size: (H, W) of both views.

    Returns:
        MeshFlow(grid, visibility). grid: [B, H, W, 2] in the dtype of src_verts, in units of
        `torch.nn.functional.grid_sample(align_corners=False)`, so that it also reads feature maps of any other size, and -2
        on background. visibility: [B, H, W] uint8: 0 background, 1 visible, 2 occluded in the source or outside its image
        (the grid then still points at the place; -2 where a source vertex is not finite).

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
        IndexRangeError: a face names a vertex that is not there, where `rasterize` raises it.
    """
    height, width = _check_views("mesh_flow", src_verts, dst_verts, faces, image_size)
    return MeshFlow(*torch.ops.gcl_fast.mesh_flow(*_inputs(src_verts.detach(), dst_verts.detach(), faces, height, width)))


@torch.no_grad()
def mesh_flow_of_rasters(src_verts: Tensor, faces: Tensor, src: Rasterized, dst: Rasterized) -> MeshFlow:
    """`mesh_flow` of views that are rasterized already, for those who turn one body to several views.

    Arguments:
        src_verts: [B, V, 3] float32 or float64, those that `src` was drawn of.
        faces: [F, 3] int32 or int64, as `rasterize` had them.
        src, dst: what `rasterize` gave of the source and of the destination, [B, H, W] both, in the dtype of src_verts.

    Returns, determinism: as `mesh_flow`.

    Gradient:
        None: not differentiable.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device. Face ids are not looked at.
    """
    shapes, verts = Shapes("mesh_flow_of_rasters"), ("src_verts", src_verts)
    shapes.tensor("src_verts", src_verts, ("B", "V", 3), FLOATS)
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, verts)
    for name, raster in (("src", src), ("dst", dst)):
        if not isinstance(raster, Rasterized):
            raise TypeError(f"{shapes.op}: {name} must be what rasterize gives, got {type(raster).__name__}")
        shapes.tensor(f"{name}.face_id", raster.face_id, ("B", "H", "W"), (torch.int32,), verts)
        shapes.tensor(f"{name}.bary", raster.bary, ("B", "H", "W", 3), (src_verts.dtype,), verts)
        shapes.tensor(f"{name}.depth", raster.depth, ("B", "H", "W"), (src_verts.dtype,), verts)
    if max(shapes["H"], shapes["W"]) > MAX_IMAGE_SIZE:
        sides = shapes["H"], shapes["W"]
        raise ValueError(f"{shapes.op}: src and dst must be at most {MAX_IMAGE_SIZE} on a side, got {sides}")
    _native.require(shapes.op, src_verts.device)
    views = (src_verts, as_int32(faces), dst.face_id, dst.bary, src.face_id, src.depth)
    return MeshFlow(*torch.ops.gcl_fast.mesh_flow(*views))


def mesh_warp(image: Tensor, src_verts: Tensor, dst_verts: Tensor, faces: Tensor, *, fill: float = 0.0) -> MeshWarp:
    """Carry the pixels of one view of a mesh to another view.

    Deterministic: forward and backward give the same bits for any number of threads and in every run, on CPU and CUDA the
    same ones: a pixel of the image gathers its gradient in a fixed order. On CUDA that sorts the pixels by where they read
    (a workspace of 8 * B * H * W bytes, some times over; torch sorts fewer than 2^31); nothing waits for the GPU.

    Arguments:
        image: [B, C, H, W] floating point, the source view; one, [1, C, H, W], serves all B destinations.
        src_verts, dst_verts: [B, V, 3] float32 or float64, in pixels of that size, with depth. One source, [1, V, 3], serves
            all B destinations and is rasterized once.
        faces: [F, 3] int32 or int64.
        fill: what to write where the source does not show the body, any number but NaN.

    Returns:
        MeshWarp(warped, visibility): the image read at the places of `mesh_flow` (bilinear, zeros outside), `fill` where
        that is not visible, [B, C, H, W] in the image's dtype; and the visibility of `mesh_flow`. Half-precision images are
        read in float32. A feature map of another size: `grid_sample` at the grid of `mesh_flow`.

    Gradient:
        To image only; there is no second derivative (NotImplementedError), as the first does not depend on the image.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
        IndexRangeError: a face names a vertex that is not there, where `rasterize` raises it.
    """
    shapes = Shapes("mesh_warp")
    shapes.tensor("image", image, ("B", "C", "H", "W"), ANY_FLOATS)
    Shapes("mesh_warp").tensor("src_verts", src_verts, ("B", "V", 3), FLOATS, ("image", image))
    fill = float(shapes.number("fill", fill, float("-inf")))
    height, width = _check_views("mesh_warp", src_verts, dst_verts, faces, (shapes["H"], shapes["W"]))
    if image.shape[0] not in (1, dst_verts.shape[0]):
        count = dst_verts.shape[0]
        raise ValueError(f"mesh_warp: image must be 1 or, as dst_verts, B={count} in number, got {list(image.shape)}")
    no_tangent("mesh_warp", image=image)
    with torch.no_grad():
        views = _inputs(src_verts.detach(), dst_verts.detach(), faces, height, width)
    precise = (image if image.dtype in FLOATS else image.float()).expand(dst_verts.shape[0], -1, -1, -1)
    keep = torch.is_grad_enabled() and image.requires_grad
    warped, _, visibility = torch.ops.gcl_fast.mesh_warp(precise, *views, fill, keep)
    return MeshWarp(warped.to(image.dtype), visibility)


def _check_views(op: str, src_verts: Tensor, dst_verts: Tensor, faces: Tensor, image_size: tuple[int, int]) -> tuple[int, int]:
    shapes = Shapes(op)
    shapes.tensor("src_verts", src_verts, ("B", "V", 3), FLOATS)
    if shapes["B"] == 1:
        del shapes.sizes["B"]  # one source for any number of destinations
    shapes.tensor("dst_verts", dst_verts, ("B", "V", 3), (src_verts.dtype,), ("src_verts", src_verts))
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("src_verts", src_verts))
    height, width = shapes.image_size(image_size)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{op}: image_size must be fewer than 2^31 pixels, got {(height, width)}")
    if max(shapes["V"], shapes["F"]) > MAX_COUNT:
        raise ValueError(f"{op}: at most {MAX_COUNT} vertices and faces, got {shapes['V']} and {shapes['F']}")
    check_faces(op, faces, shapes["V"])
    _native.require(op, src_verts.device)
    return height, width


def _inputs(src_verts: Tensor, dst_verts: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, ...]:
    """What the kernels read: src_verts, faces, the destination's face_id and bary, the source's face_id and depth."""
    batch = dst_verts.shape[0]
    both = rasterize(torch.cat([dst_verts, src_verts]), faces, (height, width))  # in one call: half the launches
    src = src_verts, both.face_id[batch:], both.depth[batch:]
    src_verts, src_face_id, src_depth = (t.expand(batch, -1, -1) for t in src)  # from one
    return src_verts, as_int32(faces), both.face_id[:batch], both.bary[:batch], src_face_id, src_depth


def _fake_flow(
    src_verts: Tensor, faces: Tensor, dst_face_id: Tensor, dst_bary: Tensor, src_face_id: Tensor, src_depth: Tensor
) -> tuple[Tensor, Tensor]:
    return src_verts.new_empty((*dst_face_id.shape, 2)), src_verts.new_empty(dst_face_id.shape, dtype=torch.uint8)


def _fake_warp(
    image: Tensor,
    src_verts: Tensor,
    faces: Tensor,
    dst_face_id: Tensor,
    dst_bary: Tensor,
    src_face_id: Tensor,
    src_depth: Tensor,
    fill: float,
    keep_source: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        image.new_empty(image.shape),
        src_verts.new_empty((*dst_face_id.shape, 2) if keep_source else (0,)),
        src_verts.new_empty(dst_face_id.shape, dtype=torch.uint8),
    )


def _fake_warp_backward(
    grad_warped: Tensor, source: Tensor, visibility: Tensor, pixel_order: Tensor, cell_begin: Tensor
) -> Tensor:
    return grad_warped.new_empty(grad_warped.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, source, visibility = output
    ctx.kept = inputs[8]
    ctx.mark_non_differentiable(source, visibility)
    ctx.save_for_backward(source, visibility)


def _backward(ctx: Any, grad_warped: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    source, visibility = ctx.saved_tensors
    if not ctx.kept:
        raise RuntimeError("mesh_warp: called without keep_source, so that it has no gradient")
    no_tangent("mesh_warp", gradient=grad_warped)
    order = begin = visibility.new_empty(0, dtype=torch.int64)
    if grad_warped.device.type == "cuda":
        order, begin = _pixels_by_cell(source, visibility)
    grad = torch.ops.gcl_fast.mesh_warp_backward(grad_warped, source, visibility, order, begin)
    return grad, None, None, None, None, None, None, None, None


def _pixels_by_cell(source: Tensor, visibility: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels [BHW] in the order of the lattice cell between pixel centres that they read, ties in their own order, those
    that are not visible last; and where each of the B(H+1)(W+1) cells begins."""
    batch, height, width = visibility.shape
    left, top = ((source - 0.5).floor().long() + 1).unbind(-1)  # each [B, H, W], 0 to W and 0 to H where visible
    image = torch.arange(batch, device=source.device)[:, None, None]
    cells = batch * (height + 1) * (width + 1)
    cell = torch.where(visibility == 1, (image * (height + 1) + top) * (width + 1) + left, cells).flatten()
    cell, order = torch.sort(cell, stable=True)
    return order, torch.searchsorted(cell, torch.arange(cells + 1, device=cell.device))


def _no_second_derivative(ctx: Any, grad: Tensor) -> None:
    raise NotImplementedError("mesh_warp: the second derivative is not implemented")


if _native.loaded:
    torch.library.register_fake("gcl_fast::mesh_flow", _fake_flow)
    torch.library.register_fake("gcl_fast::mesh_warp", _fake_warp)
    torch.library.register_fake("gcl_fast::mesh_warp_backward", _fake_warp_backward)
    torch.library.register_autograd("gcl_fast::mesh_warp", _backward, setup_context=_setup_context)
    torch.library.register_autograd("gcl_fast::mesh_warp_backward", _no_second_derivative)
