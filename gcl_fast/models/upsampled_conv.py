"""A 5x5 convolution of an image doubled in height and width, in nine products a pixel instead of 25."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.models.map_layout import layout_of
from gcl_fast.ops._products import without_autocast

# Of a pixel in the first or second half of its parent: which parent (before, own, after) each of 5 taps reads. [2, 3, 5]
FOLD = (((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)), ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)))


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor, fold: Tensor) -> Tensor:
    """5x5 convolution, with reflection padding, of x doubled in height and width: the same sums from 9 products instead of 25.

    Arguments:
        x: [B, Ci, h, w], h and w at least 2.
        weight: [Co, Ci, 5, 5]; bias: [Co].
        fold: [2, 3, 5], `FOLD` as a tensor.

    Returns: [B, Co, 2h, 2w] in x's memory layout, up to rounding the convolution of `F.interpolate(x, scale_factor=2,
        mode="nearest")`.
    Gradient: to all but fold. Deterministic.

    Of the doubled pixels under 5 taps many are the same: each of the four pixels that a parent becomes sees 3x3 parents, under
    kernels that are sums of the taps. One convolution makes all four, as channels. It pads by repeating the edge; reflection
    differs only in the outermost tap of the outermost rows and columns, which reads the second parent and not the first:
    that difference is added there.
    """
    c_out, c_in = weight.shape[:2]
    with without_autocast(x.device):
        fold = fold.to(weight.dtype)
        folded = torch.einsum("pak,oikl,qbl->opqiab", fold, weight, fold)  # [Co, 2, 2, Ci, 3, 3]
    padded, top, bottom, left, right = _Edges.apply(x)
    four = F.conv2d(padded, folded.reshape(4 * c_out, c_in, 3, 3), bias.repeat_interleave(4))  # [B, 4 Co, h, w]
    y: Tensor = _Doubled.apply(
        four,
        _doubled_edge(top, weight[:, :, 0], reflect=False),  # [B, Co, 2w]
        _doubled_edge(bottom, weight[:, :, 4], reflect=False),
        _doubled_edge(left, weight[..., 0], reflect=True),  # [B, Co, 2h]
        _doubled_edge(right, weight[..., 4], reflect=True),
    )
    return y


def _doubled_edge(step: Tensor, taps: Tensor, *, reflect: bool) -> Tensor:
    """5 taps [Co, Ci, 5] along a line of doubled pixels, its ends reflected or repeated: step [B, Ci, n] -> [B, Co, 2n]."""
    first, last = step[:, :, :1], step[:, :, -1:]
    before, after = (step[:, :, 1:2], step[:, :, -2:-1]) if reflect else (first, last)
    line = torch.cat([before, first, step.repeat_interleave(2, dim=2), last, after], 2)  # [B, Ci, 2n + 4]
    return F.conv1d(line, taps)


class _Edges(torch.autograd.Function):
    """x [B, C, h, w] with each edge pixel repeated once [B, C, h + 2, w + 2], and what the second line from each edge has more
    than the first: top, bottom [B, C, w], left, right [B, C, h].

    One function: autograd alone would make a map of zeros for the gradient of each line.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        batch, channels, height, width = x.shape
        padded = torch.empty((batch, channels, height + 2, width + 2), dtype=x.dtype, device=x.device, memory_format=layout_of(x))
        padded[:, :, 1:-1, 1:-1] = x
        padded[:, :, 0, 1:-1], padded[:, :, -1, 1:-1] = x[:, :, 0], x[:, :, -1]
        padded[..., 0], padded[..., -1] = padded[..., 1], padded[..., -2]
        return padded, x[:, :, 1] - x[:, :, 0], x[:, :, -2] - x[:, :, -1], x[..., 1] - x[..., 0], x[..., -2] - x[..., -1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
        own = grad[:, :, 1:-1, 1:-1].clone(memory_format=torch.preserve_format)
        own[:, :, 0] += grad[:, :, 0, 1:-1] - top
        own[:, :, 1] += top
        own[:, :, -1] += grad[:, :, -1, 1:-1] - bottom
        own[:, :, -2] += bottom
        for edge, second, repeated, step in ((0, 1, grad[..., 0], left), (-1, -2, grad[..., -1], right)):
            own[..., edge] += repeated[:, :, 1:-1] - step
            own[:, :, 0, edge] += repeated[:, :, 0]  # the corners
            own[:, :, -1, edge] += repeated[:, :, -1]
            own[..., second] += step
        return own


class _Doubled(torch.autograd.Function):
    """Four channels [B, 4 C, h, w] as the four pixels that each becomes [B, C, 2h, 2w]; then top and bottom [B, C, 2w] are added
    to the outermost rows, left and right [B, C, 2h] to the outermost columns."""

    @staticmethod
    def forward(ctx: Any, four: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
        batch, channels, height, width = four.shape
        ctx.last = layout_of(four) is torch.channels_last
        if ctx.last:  # torch's pixel_shuffle would go over to the other layout on a GPU
            parts = four.permute(0, 2, 3, 1).view(batch, height, width, channels // 4, 2, 2)
            y = parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
        else:
            y = F.pixel_shuffle(four, 2)
        y[:, :, 0] += top
        y[:, :, -1] += bottom
        y[..., 0] += left
        y[..., -1] += right
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        batch, channels, height, width = grad.shape
        if ctx.last:
            parts = grad.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
            four = parts.permute(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)
        else:
            four = F.pixel_unshuffle(grad, 2)
        return four, grad[:, :, 0], grad[:, :, -1], grad[..., 0], grad[..., -1]
