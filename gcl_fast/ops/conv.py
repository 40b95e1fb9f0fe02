"""3x3 convolution that keeps height and width: on the CPU by Winograd's algorithm, with its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import _native

Padding = Literal["zeros", "reflect", "replicate"]
PADDINGS: tuple[str, ...] = ("zeros", "reflect", "replicate")
FEWEST = 64  # channels in and out from which it is the faster way: measured on AVX2
_plain = _images_only = False


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: Padding = "zeros") -> Tensor:
    """Convolution with 3x3 taps, stride 1, one row and column of padding on each side.

    x [B, C, H, W]; weight [K, C, 3, 3]; bias [K] or None -> [B, K, H, W], of x's dtype. padding: what lies outside of x.
    Equal, up to rounding, to `F.conv2d` of the padded x. Gradient to all three tensors, as often as wanted.

    In float32 on a CPU with AVX2 or more, for even H and W and at least 64 channels in and out, in fours: 16 products a tile of
    2x2 outputs instead of 36, and only x is kept for the backward, not a padded copy. There the result, gradients too, is the
    same for any number of threads, and of an image for any batch around it. Elsewhere, and when compiled or exported, it is
    `F.conv2d`. Under autocast it is always that.

    Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(2x2, 3x3).
    ValueError for an unknown padding or taps that are not 3x3; for other wrong shapes what `F.conv2d` raises.
    """
    if padding not in PADDINGS:
        raise ValueError(f"conv3x3: padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    if weight.dim() != 4 or weight.shape[2:] != (3, 3):
        raise ValueError(f"conv3x3: weight must be [K, C, 3, 3], got {list(weight.shape)}")
    if _is_native(x, weight, bias):
        return torch.ops.gcl_fast.conv3x3(x, weight, bias, PADDINGS.index(padding))
    if padding == "zeros":
        return F.conv2d(x, weight, bias, padding=1)
    return F.conv2d(_repeat_edges(x) if padding == "replicate" else F.pad(x, (1, 1, 1, 1), mode=padding), weight, bias)


class Conv3x3(torch.nn.Conv2d):
    """`nn.Conv2d` with 3x3 taps, stride 1 and padding 1, by `conv3x3`: the same parameters and state_dict."""

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3(x, self.weight, self.bias, padding=self.padding_mode)


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Inside, `conv3x3` is `F.conv2d`: what the native one is compared with. For all threads."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@contextmanager
def image_gradients_only() -> Iterator[None]:
    """Around `autograd.grad` to images alone: the native gradient to weight and bias, made in vain, is left out."""
    global _images_only
    before, _images_only = _images_only, True
    try:
        yield
    finally:
        _images_only = before


def _repeat_edges(x: Tensor) -> Tensor:
    """One more row and column on each side, by concatenation: its backward pass is deterministic everywhere."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
    return torch.cat([x[..., :1], x, x[..., -1:]], 3)


def _is_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if _plain or not _native.loaded or _native.isa == "baseline":
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    plain = all(type(t) in (Tensor, torch.nn.Parameter) for t in (x, weight, *(() if bias is None else (bias,))))
    if not plain or any(t.dtype != torch.float32 or t.device.type != "cpu" for t in (x, weight)):
        return False
    if x.dim() != 4 or x.shape[1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return False  # F.conv2d says what is wrong
    few = min(weight.shape[:2]) < FEWEST or weight.shape[0] % 4 or weight.shape[1] % 4
    return not few and not any(n % 2 or n < 2 for n in x.shape[2:])


def _setup(ctx, inputs, output) -> None:
    x, weight, bias, ctx.padding = inputs
    ctx.save_for_backward(x, weight)
    ctx.biased = bias is not None


def _backward(ctx, grad: Tensor):
    x, weight = ctx.saved_tensors
    ops, wanted = torch.ops.gcl_fast, ctx.needs_input_grad
    return (
        ops.conv3x3_input(grad, weight, ctx.padding) if wanted[0] else None,
        ops.conv3x3_weight(x, grad, ctx.padding) if wanted[1] and not _images_only else None,
        grad.sum((0, 2, 3)) if ctx.biased and wanted[2] and not _images_only else None,
        None,
    )


def _setup_second(ctx, inputs, output) -> None:
    *tensors, ctx.padding = inputs
    ctx.save_for_backward(*tensors)


def _input_backward(ctx, grad: Tensor):
    """Of conv3x3_input(g, weight), whose gradient `grad` has the shape of x."""
    g, weight = ctx.saved_tensors
    ops, wanted = torch.ops.gcl_fast, ctx.needs_input_grad
    return (
        ops.conv3x3(grad, weight, None, ctx.padding) if wanted[0] else None,
        ops.conv3x3_weight(grad, g, ctx.padding) if wanted[1] else None,
        None,
    )


def _weight_backward(ctx, grad: Tensor):
    """Of conv3x3_weight(x, g), whose gradient `grad` has the shape of weight."""
    x, g = ctx.saved_tensors
    ops, wanted = torch.ops.gcl_fast, ctx.needs_input_grad
    return (
        ops.conv3x3_input(g, grad, ctx.padding) if wanted[0] else None,
        ops.conv3x3(x, grad, None, ctx.padding) if wanted[1] else None,
        None,
    )


if _native.loaded:
    torch.library.register_fake(
        "gcl_fast::conv3x3", lambda x, weight, bias, padding: x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    )
    torch.library.register_fake(
        "gcl_fast::conv3x3_input", lambda grad, weight, padding: grad.new_empty(grad.shape[0], weight.shape[1], *grad.shape[2:])
    )
    torch.library.register_fake("gcl_fast::conv3x3_weight", lambda x, grad, padding: x.new_empty(grad.shape[1], x.shape[1], 3, 3))
    torch.library.register_autograd("gcl_fast::conv3x3", _backward, setup_context=_setup)
    torch.library.register_autograd("gcl_fast::conv3x3_input", _input_backward, setup_context=_setup_second)
    torch.library.register_autograd("gcl_fast::conv3x3_weight", _weight_backward, setup_context=_setup_second)
