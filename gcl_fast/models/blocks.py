"""Building blocks of the generator and the discriminator: convolution and residual blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.models.norms import ChannelLayerNorm, adain
from gcl_fast.models.reflect_conv import ReflectConv

SLOPE = 0.2  # of every leaky ReLU


def check_images(where: str, name: str, x: Tensor, channels: int, *, multiple: int = 1, minimum: int = 1) -> None:
    """Raises unless x is a float tensor [B, channels, H, W] with H and W multiples of `multiple`, at least `minimum`."""
    sizes = f", H and W multiples of {multiple}" if multiple > 1 else ""
    expected = f"shape [B, {channels}, H, W]{sizes}, H and W at least {minimum}"
    if not isinstance(x, Tensor):
        raise TypeError(f"{where}: {name} must be a torch.Tensor of {expected}, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{where}: {name} must be a floating-point tensor of {expected}, got {x.dtype}")
    fits = x.dim() == 4 and x.shape[1] == channels
    if not fits or any(n % multiple or n < minimum for n in x.shape[2:]):
        raise ValueError(f"{where}: {name} must have {expected}, got {list(x.shape)}")


def check_width(where: str, name: str, value: int) -> None:
    """Raises unless value is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} must be an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{where}: {name} must be at least 1, got {value}")


class ConvBlock(nn.Module):
    """Convolution with reflection padding, then norm, then leaky ReLU 0.2; the last two where asked for."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: Callable[[int], nn.Module] | None = None,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = ReflectConv(c_in, c_out, kernel, stride=stride, dilation=dilation)
        self.norm = norm(c_out) if norm else nn.Identity()
        # In place where what it overwrites is no view: autograd would copy the gradient of one.
        inplace = norm in (None, ChannelLayerNorm)
        self.activation = nn.LeakyReLU(SLOPE, inplace=inplace) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # [B, c_in, H, W] -> [B, c_out, ceil(H/stride), ceil(W/stride)]
        y: Tensor = self.activation(self.norm(self.conv(x)))
        return y


# Of a pixel in the first or second half of its parent: which parent (before, own, after) each of 5 taps reads. [2, 3, 5]
_FOLD = (((1, 1, 0, 0, 0), (0, 0, 1, 1, 0), (0, 0, 0, 0, 1)), ((1, 0, 0, 0, 0), (0, 1, 1, 0, 0), (0, 0, 0, 1, 1)))


def _doubled_edge(step: Tensor, taps: Tensor, *, reflect: bool) -> Tensor:
    """5 taps [Co, Ci, 5] along a line of doubled pixels, its ends reflected or repeated: step [B, Ci, n] -> [B, Co, 2n]."""
    first, last = step[:, :, :1], step[:, :, -1:]
    before, after = (step[:, :, 1:2], step[:, :, -2:-1]) if reflect else (first, last)
    line = torch.cat([before, first, step.repeat_interleave(2, dim=2), last, after], 2)  # [B, Ci, 2n + 4]
    return F.conv1d(line, taps)


def _repeat_edges(x: Tensor) -> Tensor:
    """One more row and column on each side, by concatenation: its backward pass is deterministic everywhere."""
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
    return torch.cat([x[..., :1], x, x[..., -1:]], 3)


def upsampled_conv(x: Tensor, weight: Tensor, bias: Tensor, fold: Tensor) -> Tensor:
    """5x5 convolution, with reflection padding, of x doubled in height and width: the same sums from 9 products instead of 25.

    Arguments:
        x: [B, Ci, h, w], h and w at least 2.
        weight: [Co, Ci, 5, 5]; bias: [Co].
        fold: [2, 3, 5], `_FOLD` as a tensor.

    Returns: [B, Co, 2h, 2w], up to rounding the convolution of `F.interpolate(x, scale_factor=2, mode="nearest")`.
    Gradient: to all but fold.

    Of the doubled pixels under 5 taps many are the same: each of the four pixels that a parent becomes sees 3x3 parents, under
    kernels that are sums of the taps. One convolution makes all four, as channels. It pads by repeating the edge; reflection
    differs only in the outermost tap of the outermost rows and columns, which reads the second parent and not the first:
    that difference is added there.
    """
    c_out, c_in = weight.shape[:2]
    with torch.autocast(x.device.type, enabled=False):
        fold = fold.to(weight.dtype)
        folded = torch.einsum("pak,oikl,qbl->opqiab", fold, weight, fold)  # [Co, 2, 2, Ci, 3, 3]
    four = F.conv2d(_repeat_edges(x), folded.reshape(4 * c_out, c_in, 3, 3), bias.repeat_interleave(4))  # [B, 4 Co, h, w]
    y = F.pixel_shuffle(four, 2)  # [B, Co, 2h, 2w]
    height, width = y.shape[2:]
    top = _doubled_edge(x[:, :, 1] - x[:, :, 0], weight[:, :, 0], reflect=False)  # [B, Co, 2w]
    bottom = _doubled_edge(x[:, :, -2] - x[:, :, -1], weight[:, :, 4], reflect=False)
    y[:, :, :: height - 1] += torch.stack([top, bottom], 2)
    left = _doubled_edge(x[..., 1] - x[..., 0], weight[..., 0], reflect=True)  # [B, Co, 2h]
    right = _doubled_edge(x[..., -2] - x[..., -1], weight[..., 4], reflect=True)
    y[:, :, :, :: width - 1] += torch.stack([left, right], 3)
    return y


class UpsampledConvBlock(ConvBlock):
    """`ConvBlock` with a 5x5 kernel of its input doubled in height and width (nearest)."""

    def __init__(self, c_in: int, c_out: int, *, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__(c_in, c_out, 5, norm=norm)
        self.fold: Tensor
        # It lies where the weights do: a constant sent there at each call would make a GPU wait, and spoil a CUDA graph.
        self.register_buffer("fold", torch.tensor(_FOLD, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, c_in, h, w] -> [B, c_out, 2h, 2w]
        assert self.conv.bias is not None
        y: Tensor = self.activation(self.norm(upsampled_conv(x, self.conv.weight, self.conv.bias, self.fold)))
        return y


class ResidualBlock(nn.Module):
    """x + two 3x3 convolution blocks, the second without activation."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm)
        self.second = ConvBlock(channels, channels, 3, norm=norm, activation=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W], kept
        change: Tensor = self.second(self.first(x))
        return x + change


class AdaINResidualBlock(nn.Module):
    """x + conv, AdaIN, leaky ReLU, conv, AdaIN: scale and shift come from outside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ReflectConv(channels, channels, 3)
        self.second = ReflectConv(channels, channels, 3)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # [B, C, H, W], [B, 2C], [B, 2C]
        scale1, scale2 = scale.chunk(2, dim=1)  # [B, C] for the first AdaIN, [B, C] for the second
        shift1, shift2 = shift.chunk(2, dim=1)
        y = adain(self.first(x), scale1, shift1, slope=SLOPE)
        return x + adain(self.second(y), scale2, shift2)
