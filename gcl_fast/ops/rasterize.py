"""Triangle rasterization with exact coverage."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast._op_types import Rasterized
from gcl_fast.ops._check import FLOATS, INTEGERS, Shapes, check_faces, flag, no_tangent

MAX_IMAGE_SIZE = 1 << 20
MAX_FACES = (1 << 31) - 1
Method = Literal["auto", "plain", "fused"]
METHODS = {"auto": 0, "plain": 1, "fused": 2}  # as csrc/rasterize/rasterize.h numbers them


def method_number(op: str, method: str) -> int:
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"{op}: method must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]


def rasterize(
    verts: Tensor, faces: Tensor, image_size: tuple[int, int], *, cull_backfaces: bool = False, method: Method = "auto"
) -> Rasterized:
    """The face seen at each pixel centre, the barycentric coordinates of the centre in it, and its depth.

    A centre is covered by exact integer edge functions of the triangle snapped to 1/256 pixel, with the top-left rule: a
    centre on the edge of two adjacent triangles belongs to exactly one of them. The nearest depth wins, on a tie the
    lowest face. Barycentrics are affine in the screen and those of the triangle as given; where snapping covers a centre
    just outside of it, they are clamped to [0, 1] and scaled to sum to 1. Depth is their combination of the corners' z.

    Skipped are triangles of zero snapped area and those with a corner that is not finite or further than 2^21 pixels
    from the origin. There is no near plane: bring only points in front of the camera.

    Deterministic: forward and backward give the same bits for any number of threads, batch order and run; face_id and
    depth are bit-equal on CPU and CUDA. Nothing waits for the GPU.

    Arguments:
        verts: [B,V,3] float32 or float64. x (right) and y (down) in pixels, the first centre at (0.5, 0.5); z = depth,
            larger is farther, any finite number.
        faces: [F,3] int32 or int64, shared by the batch, F < 2^31.
        image_size: (H, W), each at most 2^20.
        cull_backfaces: skip faces whose corners run clockwise on the screen, as a closed mesh with counter-clockwise
            outward faces shows from behind.
        method: how to draw; the bits are the same, the time is not. "fused": a strip of each image at a time, in a block's
            shared memory or a core's cache; float32 and, on a GPU, images of at most 16 strips (512x256 on an H100), others
            are drawn plainly whatever this says. "plain": face by face, on a GPU into a z-buffer in global memory. "auto": on
            a GPU plain, which is faster on an H100 at every size measured, on a CPU fused wherever it can be.

    Returns:
        Rasterized(face_id [B,H,W] int32, bary [B,H,W,3], depth [B,H,W]), floats in the type of `verts`.

    Gradient:
        Of bary and depth to `verts`, visibility held fixed: coverage and occlusion have none. A clamped coordinate has none
        either. There is no second derivative (NotImplementedError).

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
        IndexRangeError: a face names a vertex that is not there, on CPU. On CUDA, and in compiled code, reading the faces back
            would stall: CUDA skips such a face, a compiled CPU call raises RuntimeError.

    Source:
        Pineda, "A Parallel Algorithm for Polygon Rasterization", SIGGRAPH 1988; top-left rule of Direct3D.
    """
    shapes = Shapes("rasterize")
    shapes.tensor("verts", verts, ("B", "V", 3), FLOATS)
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, device_of=("verts", verts))
    height, width = shapes.image_size(image_size)
    if max(height, width) > MAX_IMAGE_SIZE:
        raise ValueError(f"rasterize: image_size must be at most {MAX_IMAGE_SIZE} on a side, got {(height, width)}")
    if shapes["F"] > MAX_FACES:
        raise ValueError(f"rasterize: faces must be fewer than 2^31, got {shapes['F']}")
    cull_backfaces = flag("rasterize", "cull_backfaces", cull_backfaces)
    number = method_number("rasterize", method)
    check_faces("rasterize", faces, shapes["V"])
    no_tangent("rasterize", verts=verts)
    _native.require("rasterize", verts.device)
    # Floats first, as opcheck wants them.
    bary, depth, face_id = torch.ops.gcl_fast.rasterize(verts, faces, height, width, cull_backfaces, number)
    return Rasterized(face_id, bary, depth)


def _fake(
    verts: Tensor, faces: Tensor, height: int, width: int, cull_backfaces: bool, method: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    batch = verts.shape[0]
    return (
        verts.new_empty((batch, height, width, 3)),
        verts.new_empty((batch, height, width)),
        verts.new_empty((batch, height, width), dtype=torch.int32),
    )


def _fake_backward(
    grad_bary: Tensor,
    grad_depth: Tensor,
    verts: Tensor,
    faces: Tensor,
    face_id: Tensor,
    corner_order: Tensor,
    corner_begin: Tensor,
) -> Tensor:
    return verts.new_empty(verts.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    verts, faces, *_ = inputs
    ctx.num_inputs = len(inputs)
    _, _, face_id = output
    ctx.mark_non_differentiable(face_id)
    ctx.save_for_backward(verts, faces, face_id)


def _backward(ctx: Any, grad_bary: Tensor, grad_depth: Tensor, _grad_face_id: Tensor | None) -> tuple[Tensor | None, ...]:
    verts, faces, face_id = ctx.saved_tensors
    no_tangent("rasterize", gradient=grad_bary, gradient_of_depth=grad_depth)
    # Corners grouped by vertex, so that each vertex adds its corners in one fixed order on every device.
    vertex_of_corner, corner_order = torch.sort(faces.reshape(-1).long(), stable=True)  # [3F]
    every_vertex = torch.arange(verts.shape[1] + 1, device=verts.device)
    corner_begin = torch.searchsorted(vertex_of_corner, every_vertex)  # [V+1]
    grad = torch.ops.gcl_fast.rasterize_backward(grad_bary, grad_depth, verts, faces, face_id, corner_order, corner_begin)
    return grad, *(None,) * (ctx.num_inputs - 1)


def _no_second_derivative(ctx: Any, grad: Tensor) -> None:
    raise NotImplementedError("rasterize: the second derivative is not implemented")


if _native.loaded:
    torch.library.register_fake("gcl_fast::rasterize", _fake)
    torch.library.register_fake("gcl_fast::rasterize_backward", _fake_backward)
    torch.library.register_autograd("gcl_fast::rasterize", _backward, setup_context=_setup_context)
    torch.library.register_autograd("gcl_fast::rasterize_backward", _no_second_derivative)
