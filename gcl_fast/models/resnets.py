"""ResNets under torchvision's names, last stride 1, of any width; IBN-a: half of the first norm of a block per image."""

from __future__ import annotations

from collections import OrderedDict
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcl_fast.packages import missing

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}  # blocks in each stage
IBN = "_ibn_a"


def torchvision_resnet() -> ModuleType:
    try:
        from torchvision.models import resnet
    except ImportError as error:
        raise missing("torchvision", "IdentityEncoder", error) from error
    module: ModuleType = resnet
    return module


class InstanceBatchNorm(nn.Module):
    """The first half of the channels is normalised per image (which drops an image's style), the rest over the batch.

    Source: Pan et al., Two at Once: IBN-Net, ECCV 2018; parameters are named as in the authors' files.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split_at = channels // 2
        self.IN = nn.InstanceNorm2d(self.split_at, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.split_at)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.tensor_split(x, [self.split_at], dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)


def _stage(block: type[BasicBlock | Bottleneck], c_in: int, planes: int, depth: int, stride: int, ibn: bool) -> nn.Sequential:
    c_out = planes * block.expansion
    shortcut = None
    if stride != 1 or c_in != c_out:
        shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    blocks = [block(c_in, planes, stride, shortcut), *(block(c_out, planes) for _ in range(depth - 1))]
    if ibn:
        for member in blocks:
            member.bn1 = InstanceBatchNorm(planes)
    return nn.Sequential(*blocks)


def build_resnet(name: str, width: int) -> tuple[nn.Sequential, int]:
    """Stages of the ResNet, `width` channels after the stem, and the channels of its map. IBN in the first three stages."""
    resnet, plain = torchvision_resnet(), name.removesuffix(IBN)
    block = resnet.BasicBlock if plain == "resnet18" else resnet.Bottleneck
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, width, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    channels = width
    for i, (depth, stride) in enumerate(zip(DEPTHS[plain], (1, 2, 2, 1), strict=True)):
        ibn = name.endswith(IBN) and i < 3
        layers[f"layer{i + 1}"] = _stage(block, channels, width * 2**i, depth, stride, ibn)
        channels = width * 2**i * block.expansion
    backbone = nn.Sequential(layers)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone, channels
