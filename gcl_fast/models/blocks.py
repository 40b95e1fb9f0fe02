"""Building blocks of the generator and the discriminator: convolution, normalisation and residual blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of every leaky ReLU
EPS = 1e-5  # of every normalisation


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


def reflect_conv(c_in: int, c_out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution with reflection padding: the output has ceil(size / stride) rows and columns."""
    padding = dilation * (kernel // 2)
    mode = "reflect" if padding else "zeros"  # a 1x1 kernel needs no padding, hence no padded copy
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, padding_mode=mode)


def adain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Adaptive instance normalisation: each channel to mean 0, variance 1 over H x W, times scale, plus shift.

    x [B, C, H, W]; scale, shift [B, C], used as they are (no 1 is added to scale). Huang & Belongie, ICCV 2017.
    Gradient to all three.
    """
    return F.instance_norm(x, eps=EPS) * scale[:, :, None, None] + shift[:, :, None, None]


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over C, H, W with one gamma and one beta per channel.

    Divides by (std + 1e-5) with the unbiased std, unlike `nn.LayerNorm`; gamma starts as U(0, 1), beta as 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        mean = x.mean(dim=(1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
        std = x.std(dim=(1, 2, 3), keepdim=True)
        return (x - mean) / (std + EPS) * self.gamma[:, None, None] + self.beta[:, None, None]


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
        self.conv = reflect_conv(c_in, c_out, kernel, stride=stride, dilation=dilation)
        self.norm = norm(c_out) if norm else nn.Identity()
        self.activation = nn.LeakyReLU(SLOPE) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # [B, c_in, H, W] -> [B, c_out, ceil(H/stride), ceil(W/stride)]
        return self.activation(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
    """x + two 3x3 convolution blocks, the second without activation."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, norm=norm)
        self.second = ConvBlock(channels, channels, 3, norm=norm, activation=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W], kept
        return x + self.second(self.first(x))


class AdaINResidualBlock(nn.Module):
    """x + conv, AdaIN, leaky ReLU, conv, AdaIN: scale and shift come from outside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = reflect_conv(channels, channels, 3)
        self.second = reflect_conv(channels, channels, 3)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:  # [B, C, H, W], [B, 2C], [B, 2C]
        scale1, scale2 = scale.chunk(2, dim=1)  # [B, C] for the first AdaIN, [B, C] for the second
        shift1, shift2 = shift.chunk(2, dim=1)
        y = F.leaky_relu(adain(self.first(x), scale1, shift1), SLOPE)
        return x + adain(self.second(y), scale2, shift2)
