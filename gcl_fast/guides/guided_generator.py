"""Generator that is also given the view's guide: it paints, and mixes at each pixel its paint, the carried texture and the
background."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast.guides.guide import GUIDE_CHANNELS, Guide
from gcl_fast.models.blocks import ConvBlock, UpsampledConvBlock
from gcl_fast.models.generator import Decoder, Generator
from gcl_fast.models.norms import ChannelLayerNorm
from gcl_fast.models.reflect_conv import ReflectConv

TEXTURE = 1  # of the weights of paint, texture, background
START = 4.0  # logit of texture and background over paint at the beginning: they are nearly right before anything is learnt
OCCLUDED = -1.0  # added to that of texture where it is a guess
ON_BODY = -4.0  # ... to that of background where the body is
NEVER = -1e4


class GuidedDecoder(Decoder):
    """`Decoder` that is given the guide's channels at half and at full size.

    `image` makes six channels: paint [B, 3, H, W] and the logits of paint, texture and background.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.up[1] = UpsampledConvBlock(4 * width + GUIDE_CHANNELS, 2 * width, norm=ChannelLayerNorm)
        self.smooth[0] = ConvBlock(2 * width + GUIDE_CHANNELS, 2 * width, 3)
        self.image = ReflectConv(2 * width, 6, 1)

    def forward(  # type: ignore[override]  # the guide is one more input
        self, x: Tensor, scales: list[Tensor], shifts: list[Tensor], guide: Tensor
    ) -> Tensor:
        for block, scale, shift in zip(self.residual, scales, shifts, strict=True):
            x = block(x, scale, shift)
        x = self.up[0](x)  # H/4 -> H/2
        x = self.up[1](torch.cat([x, F.avg_pool2d(guide, 2)], 1))  # -> H
        painted: Tensor = self.image(self.smooth(torch.cat([x, guide], 1)))  # [B, 6, H, W]
        return painted


class GuidedGenerator(Generator):
    """`paint(encode(guide.mesh), code, guide)`: the view of `guide`, painted where its texture and background do not tell.

    Arguments as `Generator` has them. The structure encoder reads the mesh alone, as there.
    """

    def __init__(self, code_dim: int = 8192, *, width: int = 16, mlp_width: int = 512) -> None:
        super().__init__(code_dim, width=width, mlp_width=mlp_width)
        self.decoder = GuidedDecoder(width)
        for module in self.decoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            last = self.decoder.image
            last.weight[3:] *= 0.1
            if last.bias is not None:
                last.bias[3 + TEXTURE :] = START

    def paint(self, structure: Tensor, code: Tensor, guide: Guide) -> Tensor:
        """The view of a guide: structure [B, 8 * width, H/4, W/4] of its mesh, code [B, code_dim] -> [B, 3, H, W] in the dtype of
        the guide's images.

        Gradient: to structure, code, the guide's images, and the weights.
        """
        scales, shifts = self.styles(code)
        painted = self.decoder(structure, scales, shifts, guide.channels()).to(guide.texture.dtype)
        body = guide.body
        # No texture off the body, background on it only where the generator insists.
        offset = torch.cat([torch.zeros_like(body), OCCLUDED * guide.occluded + NEVER * (1 - body), ON_BODY * body], 1)
        weight = (painted[:, 3:] + offset).softmax(1)  # [B, 3, H, W]
        return weight[:, :1] * painted[:, :3] + weight[:, 1:2] * guide.texture + weight[:, 2:] * guide.background

    def decode(self, structure: Tensor, code: Tensor) -> Tensor:
        raise TypeError("GuidedGenerator.decode: a view needs its guide: use paint(structure, code, guide)")
