"""Convolution with reflection padding, and the gradient to its input that can itself be differentiated at little cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import _native
from gcl_fast.ops.reflect_pad import padded


class ReflectConv(nn.Conv2d):
    """A square convolution, reflection padding: [B, c_in, H, W] -> [B, c_out, ceil(H / stride), ceil(W / stride)].

    Errors: RuntimeError where H or W is not larger than the padding, dilation * (kernel // 2).
    """

    to_image = False  # see `gradient_to_image`

    def __init__(self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(c_in, c_out, kernel, stride, padding, dilation, padding_mode="reflect" if padding else "zeros")

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode == "reflect":
            x = _pad(x, self._reversed_padding_repeated_twice)
        if not self.to_image:
            return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation)
        y: Tensor = _ToImage.apply(x, self.weight, self.bias, self.stride, self.dilation)
        return y


def _pad(x: Tensor, sides: list[int]) -> Tensor:
    """x with reflection padding, the same on all sides, by the native kernel where it can run.

    torch's own padding on CUDA knows no channels last (two copies around each), and adds gradients in no order. A compiled graph
    joins it with what surrounds it.
    """
    if torch.compiler.is_compiling() or x.dim() != 4 or not _native.built_for(x.device):
        return F.pad(x, sides, mode="reflect")
    if torch.is_autocast_enabled(x.device.type) and x.dtype == torch.float32:
        x = x.to(torch.get_autocast_dtype(x.device.type))  # the convolution would, after padding twice the bytes
    return padded(x, sides[0])


@contextmanager
def gradient_to_image(network: nn.Module) -> Iterator[None]:
    """While it lasts, network's forward pass may be differentiated with `create_graph=True`, to its input alone: its weights
    get no gradient then. A later backward pass, through that gradient too, gives them theirs as ever.

    torch's own second derivative of a convolution takes the gradient to weights for a convolution whose kernel is a whole
    map, for which no library has a fast way; here the gradient to the input is a transposed convolution, with derivatives as
    cheap as those of any other.
    """
    layers = [module for module in network.modules() if isinstance(module, ReflectConv)]
    for layer in layers:
        layer.to_image = True
    try:
        yield
    finally:
        for layer in layers:
            layer.to_image = False


class _ToImage(torch.autograd.Function):
    """Convolution without padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return F.conv2d(x, weight, bias, stride, 0, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            reached = [
                (n - 1) * s + d * (k - 1) + 1
                for n, s, d, k in zip(grad.shape[2:], ctx.stride, ctx.dilation, weight.shape[2:], strict=True)
            ]
            rest = [have - reach for have, reach in zip(x.shape[2:], reached, strict=True)]  # rows that a stride steps over
            to_x = F.conv_transpose2d(grad, weight, None, ctx.stride, 0, rest, 1, ctx.dilation)
        if not torch.is_grad_enabled():
            _, to_weight, to_bias = torch.ops.aten.convolution_backward(
                grad, x, weight, [len(weight)], ctx.stride, [0, 0], ctx.dilation, False, [0, 0], 1, [False, True, True]
            )
        return to_x, to_weight, to_bias, None, None
