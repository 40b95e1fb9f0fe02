"""Discriminator: the same patch network at three image scales."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.models.blocks import ConvBlock, ResidualBlock, check_images, check_width
from gcl_fast.models.reflect_conv import ReflectConv

SCALES = 3
MINIMUM = 17  # rows and columns: a sixteenth of the image must still have 2 to reflect


def _patch_network(width: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(3, width, 1),
        ConvBlock(width, width, 3),
        ConvBlock(width, width, 3, stride=2),
        ConvBlock(width, width, 3),
        ConvBlock(width, 2 * width, 3, stride=2),
        *(ResidualBlock(2 * width) for _ in range(4)),
        ReflectConv(2 * width, 1, 1),
    )


class Discriminator(nn.Module):
    """D of the method: image [B, 3, H, W] -> 3 score maps [B, 1, ~H/4, ~W/4], of the full, half and quarter image.

    Scores are unbounded (least-squares GAN: real 1, fake 0). No normalisation layer. Weights start as N(0, 0.02), biases as 0.

    Arguments:
        width: channels after the first layer; 32 is the published size.

    Gradient: to the image and the weights, twice to the image, as the gradient penalty on real images needs.
    Errors: ValueError or TypeError for a bad image; H and W must be at least 17.
    Source: as `Generator`; multi-scale patch discriminators: Wang et al., CVPR 2018; least squares: Mao et al., ICCV 2017.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        check_width("Discriminator", "width", width)
        self.scales = nn.ModuleList(_patch_network(width) for _ in range(SCALES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        check_images("Discriminator", "image", image, 3, minimum=MINIMUM)
        maps = []
        for i, network in enumerate(self.scales):
            if i:
                image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)  # [B, 3, ~H/2, ~W/2]
            maps.append(network(image))
        return maps
