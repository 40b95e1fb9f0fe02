"""Reflection padding of maps, in their memory format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gcl_fast import _native
from gcl_fast.ops._check import ANY_FLOATS, Shapes, integer, no_tangent


def reflect_pad(x: Tensor, pad: int) -> Tensor:
    """Maps with `pad` more rows and columns on each side, mirrored at the border, which is not repeated.

    Deterministic: forward and backward give the same bits for any number of threads and in every run, on CPU and CUDA the
    same ones. In the backward pass each pixel adds its readers, nine at most, row after row, in float32 for 16-bit types,
    rounded once.

    Arguments:
        x: [B, C, H, W] float32, float64, bfloat16 or float16. Channels last and contiguous are read as they lie; another
            layout is copied first, to channels last where its strides suggest that.
        pad: at least 0, smaller than H and W.

    Returns:
        [B, C, H + 2 pad, W + 2 pad] in the dtype and memory format of x, a copy for pad 0 too: the numbers of
        `torch.nn.functional.pad(x, (pad, pad, pad, pad), mode="reflect")`.

    Gradient:
        To x, of any order, in the memory format of the gradient that comes.

    Errors:
        TypeError, ValueError: an argument of the wrong type or shape.
    """
    shapes = Shapes("reflect_pad")
    shapes.tensor("x", x, ("B", "C", "H", "W"), ANY_FLOATS)
    pad = integer("reflect_pad", "pad", pad, 0)
    if pad >= min(x.shape[2:]):
        raise ValueError(f"reflect_pad: pad must be smaller than H={x.shape[2]} and W={x.shape[3]}, got {pad}")
    _native.require("reflect_pad", x.device)
    return padded(x, pad)


def padded(x: Tensor, pad: int) -> Tensor:
    """`reflect_pad` without the checks in Python: what the kernel refuses is a RuntimeError, as in torch's own padding."""
    no_tangent("reflect_pad", x=x)
    y: Tensor = torch.ops.gcl_fast.reflect_pad(_without_gaps(x), pad)
    return y


def _without_gaps(x: Tensor) -> Tensor:
    """x as the kernel reads it."""
    last = x.is_contiguous(memory_format=torch.channels_last) or (not x.is_contiguous() and x.shape[1] > 1 and x.stride(1) == 1)
    return x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _like(x: Tensor, height: int, width: int) -> Tensor:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    shape = (*x.shape[:2], height, width)
    return torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last if last else torch.contiguous_format
    )


def _fake(x: Tensor, pad: int) -> Tensor:
    return _like(x, x.shape[2] + 2 * pad, x.shape[3] + 2 * pad)


def _fake_backward(grad: Tensor, pad: int) -> Tensor:
    return _like(grad, grad.shape[2] - 2 * pad, grad.shape[3] - 2 * pad)


def _setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    ctx.pad = inputs[1]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    no_tangent("reflect_pad", gradient=grad)
    return torch.ops.gcl_fast.reflect_pad_backward(_without_gaps(grad), ctx.pad), None


def _second(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """The gradient is linear in the one that comes, so its own is padding again."""
    return torch.ops.gcl_fast.reflect_pad(_without_gaps(grad), ctx.pad), None


if _native.loaded:
    torch.library.register_fake("gcl_fast::reflect_pad", _fake)
    torch.library.register_fake("gcl_fast::reflect_pad_backward", _fake_backward)
    torch.library.register_autograd("gcl_fast::reflect_pad", _backward, setup_context=_setup_context)
    torch.library.register_autograd("gcl_fast::reflect_pad_backward", _second, setup_context=_setup_context)
