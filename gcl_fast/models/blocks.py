"""Building blocks of the generator and the discriminator: convolution and residual blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcl_fast.models.norms import ChannelLayerNorm, instance_norm
from gcl_fast.models.reflect_conv import ReflectConv
from gcl_fast.models.upsampled_conv import FOLD, upsampled_conv

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


class UpsampledConvBlock(ConvBlock):
    """`ConvBlock` with a 5x5 kernel of its input doubled in height and width (nearest)."""

    def __init__(self, c_in: int, c_out: int, *, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__(c_in, c_out, 5, norm=norm)
        self.fold: Tensor
        # It lies where the weights do: a constant sent there at each call would make a GPU wait, and spoil a CUDA graph.
        self.register_buffer("fold", torch.tensor(FOLD, dtype=torch.float32), persistent=False)

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
        y = instance_norm(self.first(x), scale1, shift1, slope=SLOPE)
        return x + instance_norm(self.second(y), scale2, shift2)
