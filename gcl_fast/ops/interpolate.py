"""Vertex attributes at the pixels of a raster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._check import FLOATS, INTEGERS, Shapes, no_tangent


def interpolate(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    """Vertex attributes at every pixel of a raster: colours, texture coordinates, normals, positions.

    Deterministic: forward and backward give the same bits for any number of threads and in every run, on CPU and CUDA the
    same ones. Each vertex adds its pixels in their order. On CUDA the gradient of attributes sorts the corners of all
    pixels (a workspace of 8 * 3 * B * H * W bytes, some times over; torch sorts fewer than 2^31); nothing waits for the GPU.

    Arguments:
        attributes: [B, V, C] or [V, C] (one table for the batch), float32 or float64.
        faces: [F, 3] int32 or int64.
        face_id: [B, H, W] int32 or int64, negative on background, as `rasterize` gives it.
        bary: [B, H, W, 3] float32 or float64, as `rasterize` gives it; taken in the dtype of attributes.

    Returns:
        [B, H, W, C] in the dtype of attributes: the sum over corners of bary * attribute, 0 on background.

    Gradient:
        To attributes and bary, of any order; none reaches either from background, whatever they hold there.

    Errors:
        TypeError, ValueError: an argument of the wrong type, shape or device.
        No index is out of range: a vertex or face that does not exist reads the nearest that does, on every device.

    Source:
        Barycentric interpolation, in the screen (affine), as of `rasterize`.
    """
    shapes = Shapes("interpolate")
    shapes.tensor("face_id", face_id, ("B", "H", "W"), INTEGERS)
    shared = isinstance(attributes, Tensor) and attributes.dim() == 2
    shapes.tensor("attributes", attributes, ("V", "C") if shared else ("B", "V", "C"), FLOATS, ("face_id", face_id))
    shapes.tensor("faces", faces, ("F", 3), INTEGERS, ("face_id", face_id))
    shapes.tensor("bary", bary, ("B", "H", "W", 3), FLOATS, ("face_id", face_id))
    no_tangent("interpolate", attributes=attributes, bary=bary)
    _native.require("interpolate", attributes.device)
    values: Tensor = torch.ops.gcl_fast.interpolate(attributes, as_int32(faces), as_int32(face_id), bary.to(attributes.dtype))
    return values


def as_int32(index: Tensor) -> Tensor:
    """Indices as the kernels take them; what int32 cannot hold becomes the nearest number that it can."""
    if index.dtype == torch.int32:
        return index
    limits = torch.iinfo(torch.int32)
    return index.clamp(limits.min, limits.max).to(torch.int32)


def _fake(attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor) -> Tensor:
    return attributes.new_empty((*face_id.shape, attributes.shape[-1]))


def _fake_backward(
    grad_out: Tensor,
    attributes: Tensor,
    faces: Tensor,
    face_id: Tensor,
    bary: Tensor,
    entry_order: Tensor,
    entry_begin: Tensor,
    need_attributes: bool,
    need_bary: bool,
) -> tuple[Tensor, Tensor]:
    return (
        attributes.new_empty(attributes.shape if need_attributes else (0,)),
        bary.new_empty(bary.shape if need_bary else (0,)),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    attributes, faces, face_id, bary = ctx.saved_tensors
    need = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    grad_attributes, grad_bary = _gradients(grad_out, attributes, faces, face_id, bary, *need)
    return grad_attributes if need[0] else None, None, None, grad_bary if need[1] else None


def _gradients(
    grad_out: Tensor, attributes: Tensor, faces: Tensor, face_id: Tensor, bary: Tensor, need_attributes: bool, need_bary: bool
) -> tuple[Tensor, Tensor]:
    """Gradient of attributes and of bary, each [0] if not needed."""
    no_tangent("interpolate", gradient=grad_out, attributes=attributes, bary=bary)
    order = begin = face_id.new_empty(0, dtype=torch.int64)
    if need_attributes and grad_out.device.type == "cuda":
        order, begin = _entries_by_row(attributes, faces, face_id)
    arguments = grad_out, attributes, faces, face_id, bary, order, begin, need_attributes, need_bary
    gradients: tuple[Tensor, Tensor] = torch.ops.gcl_fast.interpolate_backward(*arguments)
    return gradients


def _entries_by_row(attributes: Tensor, faces: Tensor, face_id: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of pixels [3BHW] in the order of the table's rows that they read, ties in their own order, background last;
    and where each row begins [rows + 1]."""
    batch, vertices = face_id.shape[0], attributes.shape[-2]
    shared = attributes.dim() == 2
    rows = vertices if shared else batch * vertices
    if rows == 0 or faces.shape[0] == 0:
        entries = torch.arange(3 * face_id.numel(), device=face_id.device)
        return entries, entries.new_zeros(rows + 1)
    corner = faces.long().clamp(0, vertices - 1)[face_id.long().clamp(0, faces.shape[0] - 1)]  # [B, H, W, 3]
    if not shared:
        corner = corner + (torch.arange(batch, device=corner.device) * vertices)[:, None, None, None]
    row = torch.where((face_id >= 0).unsqueeze(-1), corner, rows).flatten()  # [3BHW]
    row, order = torch.sort(row, stable=True)
    return order, torch.searchsorted(row, torch.arange(rows + 1, device=row.device))


def _setup_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.need = inputs[7:]


def _second(ctx: Any, grad_grad_attributes: Tensor | None, grad_grad_bary: Tensor | None) -> tuple[Tensor | None, ...]:
    """The output is linear in attributes and in bary, so the derivatives of its gradients are interpolations again."""
    grad_out, attributes, faces, face_id, bary = ctx.saved_tensors
    a = grad_grad_attributes if ctx.need[0] and grad_grad_attributes is not None else torch.zeros_like(attributes)
    w = grad_grad_bary if ctx.need[1] and grad_grad_bary is not None else torch.zeros_like(bary)
    grad_grad_out = None
    if ctx.needs_input_grad[0]:
        interpolate = torch.ops.gcl_fast.interpolate
        grad_grad_out = interpolate(a, faces, face_id, bary) + interpolate(attributes, faces, face_id, w)
    need = ctx.needs_input_grad[1], ctx.needs_input_grad[4]
    of_attributes, of_bary = _gradients(grad_out, a, faces, face_id, w, *need)
    return grad_grad_out, of_attributes if need[0] else None, None, None, of_bary if need[1] else None, None, None, None, None


if _native.loaded:
    torch.library.register_fake("gcl_fast::interpolate", _fake)
    torch.library.register_fake("gcl_fast::interpolate_backward", _fake_backward)
    torch.library.register_autograd("gcl_fast::interpolate", _backward, setup_context=_setup_context)
    torch.library.register_autograd("gcl_fast::interpolate_backward", _second, setup_context=_setup_second)
