"""OSNet x1.0, a small network made for re-identification. Parameters are named as in torchreid, whose files load."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

SCALES = 4  # streams of a block: 1, 2, 3, 4 light convolutions in a row, which see 3, 5, 7, 9 pixels
WIDTHS = (64, 256, 384, 512)


class ConvUnit(nn.Module):
    """Convolution, batch norm, and ReLU where asked for."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, *, active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return torch.relu(x) if self.active else x


class LightConv(nn.Module):
    """1x1 over the channels, then 3x3 in each, batch norm, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv2(self.conv1(x))))


class ChannelGate(nn.Module):
    """x times a weight in (0, 1) of each channel, told by the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(mean))))


class OmniScaleBlock(nn.Module):
    """Streams of several scales, weighed by one gate that they share, added to the input."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        middle = c_out // 4
        self.conv1 = ConvUnit(c_in, middle)
        self.conv2a = LightConv(middle)
        for letter, depth in zip("bcd", range(2, SCALES + 1), strict=True):
            self.add_module(f"conv2{letter}", nn.Sequential(*(LightConv(middle) for _ in range(depth))))
        self.gate = ChannelGate(middle)
        self.conv3 = ConvUnit(middle, c_out, active=False)
        self.downsample = None if c_in == c_out else ConvUnit(c_in, c_out, active=False)

    def forward(self, x: Tensor) -> Tensor:
        start = self.conv1(x)
        mixed = self.gate(self.conv2a(start))
        for letter in "bcd":
            mixed = mixed + self.gate(self.get_submodule(f"conv2{letter}")(start))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv3(mixed) + shortcut)


class OSNet(nn.Module):
    """Image [B, 3, H, W] -> map [B, 512, H/16, W/16].

    Source: Zhou et al., Omni-Scale Feature Learning for Person Re-Identification, ICCV 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvUnit(3, WIDTHS[0], 7, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, (c_in, c_out) in enumerate(pairwise(WIDTHS)):
            blocks: list[nn.Module] = [OmniScaleBlock(c_in, c_out), OmniScaleBlock(c_out, c_out)]
            if i < 2:
                blocks.append(nn.Sequential(ConvUnit(c_out, c_out), nn.AvgPool2d(2, 2)))
            self.add_module(f"conv{i + 2}", nn.Sequential(*blocks))
        self.conv5 = ConvUnit(WIDTHS[-1], WIDTHS[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(image))
        for i in range(2, 6):
            x = self.get_submodule(f"conv{i}")(x)
        fmap: Tensor = x
        return fmap
