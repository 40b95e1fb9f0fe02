"""The grey picture of a body that guides the generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._check import ANY_FLOATS, FLOATS, INTEGERS, Shapes, check_faces
from gcl_fast.ops.camera import check_camera, check_yaws, turns_of
from gcl_fast.ops.rasterize import MAX_FACES, MAX_IMAGE_SIZE, Method, method_number


@torch.no_grad()
def render_mesh(
    verts: Tensor,
    faces: Tensor,
    camera: Tensor,
    yaw_degrees: Sequence[float] | Tensor,
    image_size: tuple[int, int],
    *,
    method: Method = "auto",
) -> Tensor:
    """The grey shaded picture of a body that guides the generator, at any yaw angles.

    A body pixel is 0.25 + 0.75 max(0, n.l), n the unit normal of its face turned to the viewer (flat shading),
    l = (-0.4, -0.6, -1.0) normalised, the direction to a far light at the upper left in front; background is 0. The face of
    a pixel is the one that `rasterize` gives for the vertices of `gcl_fast.ops.camera.turn` and `project`. A face with a vertex
    at or behind a perspective camera is dropped.

    Deterministic: the same bits for any number of threads, batch order and run, on CPU and CUDA the same. Nothing waits for the
    GPU; angles in a list or in a tensor on the CPU travel with the launch.

    Arguments:
        verts: [B, V, 3] float32 or float64 in body axes (x right, y down, z away from the camera), metres.
        faces: [F, 3] int32 or int64, shared by the batch.
        camera: [B, 3] weak perspective or [B, 6] perspective, floating point, see `gcl_fast.ops.camera.project`.
        yaw_degrees: R angles, a list or a tensor; the body turns about the vertical axis through the middle of its x/z
            bounding box, see `gcl_fast.ops.camera.turn`.
        image_size: (H, W), each at most 2^20.
        method: "auto", "plain" or "fused", how the B x R pictures are drawn, see `rasterize`: the bits are the same.

    Returns:
        [B, R, 1, H, W] in [0, 1], in the type of `verts`.

    Gradient:
        None: the result never asks for one.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
        IndexRangeError: a face names a vertex that is not there, on CPU. CUDA skips such a face, a compiled CPU call raises
            RuntimeError, as `rasterize` does.

    Source:
        Lambert's cosine law, flat shading.
    """
    shapes = Shapes("render_mesh")
    shapes.tensor("verts", verts, ("B", "V", 3), FLOATS)
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("verts", verts))
    check_camera("render_mesh", camera, verts)
    shapes.tensor("camera", camera, ("B", 6 if camera.shape[-1] == 6 else 3), ANY_FLOATS, ("verts", verts))
    height, width = shapes.image_size(image_size)
    if max(height, width) > MAX_IMAGE_SIZE:
        raise ValueError(f"render_mesh: image_size must be at most {MAX_IMAGE_SIZE} on a side, got {(height, width)}")
    if shapes["F"] >= MAX_FACES:
        raise ValueError(f"render_mesh: faces must be fewer than 2^31 - 1, got {shapes['F']}")
    check_yaws("render_mesh", yaw_degrees)
    number = method_number("render_mesh", method)
    _native.require("render_mesh", verts.device)
    if isinstance(yaw_degrees, Tensor) and yaw_degrees.device.type != "cpu":
        yaw_degrees = yaw_degrees.to(verts.device)
    arguments = (verts, faces, camera.to(verts.dtype), turns_of(yaw_degrees).to(verts.dtype), height, width, number)
    image: Tensor
    if torch.compiler.is_compiling():
        image = torch.ops.gcl_fast.render_mesh(*arguments)
        return image
    try:
        image = torch.ops.gcl_fast.render_mesh(*arguments)
        return image
    except RuntimeError:
        check_faces("render_mesh", faces, shapes["V"])  # the kernel has looked: this gives the error its kind
        raise


def _fake(verts: Tensor, faces: Tensor, camera: Tensor, turns: Tensor, height: int, width: int, method: int = 0) -> Tensor:
    return verts.new_empty((verts.shape[0], turns.shape[0], 1, height, width))


if _native.loaded:
    torch.library.register_fake("gcl_fast::render_mesh", _fake)
