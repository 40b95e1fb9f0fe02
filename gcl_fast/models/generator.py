"""Generator: a structure encoder of the body-mesh image and a decoder that paints an identity code onto it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gcl_fast.models.blocks import (
    SLOPE,
    AdaINResidualBlock,
    ConvBlock,
    ResidualBlock,
    UpsampledConvBlock,
    check_images,
    check_width,
)
from gcl_fast.models.norms import ChannelLayerNorm, InstanceNorm
from gcl_fast.models.reflect_conv import ReflectConv

BLOCKS = 4  # residual blocks of the encoder and of the decoder; the code is cut into as many slices
DILATIONS = (3, 6, 9)
MINIMUM = 40  # rows and columns: reflection by 9 needs a map of at least 10, a quarter of the image


class AtrousPyramid(nn.Module):
    """Four parallel branches (1x1; 1x1 then 3x3 with dilation 3, 6, 9), concatenated and fused by a 1x1 convolution."""

    def __init__(self, c_in: int, c_branch: int, c_out: int) -> None:
        super().__init__()
        norm = InstanceNorm
        self.point = ConvBlock(c_in, c_branch, 1, norm=norm, activation=False)
        self.dilated = nn.ModuleList(
            nn.Sequential(
                ConvBlock(c_in, c_branch, 1, norm=norm), ConvBlock(c_branch, c_branch, 3, dilation=d, norm=norm, activation=False)
            )
            for d in DILATIONS
        )
        self.fuse = ConvBlock(c_branch * (1 + len(DILATIONS)), c_out, 1, norm=norm, activation=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, c_in, H, W] -> [B, c_out, H, W]
        y: Tensor = self.fuse(torch.cat([self.point(x), *(branch(x) for branch in self.dilated)], dim=1))
        return y


class StructureEncoder(nn.Module):
    """Mesh image [B, 1, H, W] -> structure [B, 8 * width, H/4, W/4]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm = InstanceNorm
        self.stem = nn.Sequential(
            ConvBlock(1, width, 3, stride=2, norm=norm),
            ConvBlock(width, 2 * width, 3, norm=norm),
            ConvBlock(2 * width, 2 * width, 3, norm=norm),
            ConvBlock(2 * width, 4 * width, 3, stride=2, norm=norm),
        )
        self.residual = nn.Sequential(*(ResidualBlock(4 * width, norm) for _ in range(BLOCKS)))
        self.pyramid = AtrousPyramid(4 * width, 2 * width, 8 * width)

    def forward(self, mesh: Tensor) -> Tensor:
        structure: Tensor = self.pyramid(self.residual(self.stem(mesh)))
        return structure


class Decoder(nn.Module):
    """Structure [B, 8 * width, H/4, W/4] and the AdaIN scales and shifts -> image [B, 3, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm = ChannelLayerNorm
        self.residual = nn.ModuleList(AdaINResidualBlock(8 * width) for _ in range(BLOCKS))
        self.up = nn.ModuleList(UpsampledConvBlock(2 * c * width, c * width, norm=norm) for c in (4, 2))
        self.smooth = nn.Sequential(ConvBlock(2 * width, 2 * width, 3), ConvBlock(2 * width, 2 * width, 3))
        self.image = ReflectConv(2 * width, 3, 1)  # linear: images are ImageNet-normalised, not bounded by [-1, 1]

    def forward(self, x: Tensor, scales: list[Tensor], shifts: list[Tensor]) -> Tensor:  # each scale, shift [B, 16 * width]
        for block, scale, shift in zip(self.residual, scales, shifts, strict=True):
            x = block(x, scale, shift)
        for block in self.up:
            x = block(x)  # H/4 -> H/2 -> H
        image: Tensor = self.image(self.smooth(x))
        return image


def _mlp(c_in: int, hidden: int, c_out: int) -> nn.Sequential:
    act = nn.LeakyReLU(SLOPE)
    return nn.Sequential(nn.Linear(c_in, hidden), act, nn.Linear(hidden, hidden), act, nn.Linear(hidden, c_out))


class Generator(nn.Module):
    """E_str and G of the method: `decode(encode(mesh), code)` is a picture of the coded person in the mesh's pose.

    Weights start Kaiming normal (fan in, gain sqrt 2) with biases 0, drawn from torch's generator as in any module.

    Arguments:
        code_dim: length of the identity code, a multiple of 4 (`IdentityEncoder.code_dim`).
        width: base number of channels; 16 is the published size.
        mlp_width: hidden units of the eight MLPs that turn the code into AdaIN scales and shifts.

    Errors: ValueError or TypeError for a bad argument.
    Source: Chen et al., "Joint Generative and Contrastive Learning", CVPR 2021; TPAMI 2023, arXiv 2301.00725.
    """

    def __init__(self, code_dim: int = 8192, *, width: int = 16, mlp_width: int = 512) -> None:
        super().__init__()
        for name, value in (("code_dim", code_dim), ("width", width), ("mlp_width", mlp_width)):
            check_width("Generator", name, value)
        if code_dim % BLOCKS:
            raise ValueError(f"Generator: code_dim must be a multiple of {BLOCKS}, got {code_dim}")
        self.code_dim = code_dim
        self.structure_dim = 8 * width
        self.structure = StructureEncoder(width)
        self.decoder = Decoder(width)
        self.scale = nn.ModuleList(_mlp(code_dim // BLOCKS, mlp_width, 16 * width) for _ in range(BLOCKS))
        self.shift = nn.ModuleList(_mlp(code_dim // BLOCKS, mlp_width, 16 * width) for _ in range(BLOCKS))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode(self, mesh: Tensor) -> Tensor:
        """Structure of a mesh image.

        Arguments:
            mesh: [B, 1, H, W] in [-1, 1]; H and W multiples of 4, at least 40.

        Returns: [B, 8 * width, H/4, W/4].
        Gradient: to mesh and weights.
        Errors: ValueError or TypeError for another shape or type.
        """
        check_images("Generator.encode", "mesh", mesh, 1, multiple=4, minimum=MINIMUM)
        structure: Tensor = self.structure(mesh)
        return structure

    def decode(self, structure: Tensor, code: Tensor) -> Tensor:
        """Image of a structure and an identity code.

        Arguments:
            structure: [B, 8 * width, h, w].
            code: [B, code_dim]; slice i of it, cut into 4 in its flattened order, drives residual block i.

        Returns: [B, 3, 4h, 4w], ImageNet-normalised and unbounded.
        Gradient: to both inputs and the weights.
        Errors: ValueError or TypeError where shapes or types disagree.
        """
        check_images("Generator.decode", "structure", structure, self.structure_dim, minimum=2)
        if not isinstance(code, Tensor) or not code.is_floating_point():
            got = code.dtype if isinstance(code, Tensor) else type(code).__name__
            raise TypeError(f"Generator.decode: code must be a floating-point tensor [B, {self.code_dim}], got {got}")
        expected = [structure.shape[0], self.code_dim]
        if list(code.shape) != expected:
            raise ValueError(f"Generator.decode: code must have shape [B, code_dim] = {expected}, got {list(code.shape)}")
        image: Tensor = self.decoder(structure, *self.styles(code))
        return image

    def styles(self, code: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """AdaIN scales and shifts of a code [B, code_dim], one [B, 16 * width] of each for a residual block."""
        slices = code.chunk(BLOCKS, dim=1)  # 4 x [B, code_dim / 4]
        scales = [mlp(part) for mlp, part in zip(self.scale, slices, strict=True)]
        shifts = [mlp(part) for mlp, part in zip(self.shift, slices, strict=True)]
        return scales, shifts

    def forward(self, mesh: Tensor, code: Tensor) -> Tensor:
        """`decode(encode(mesh), code)`: [B, 1, H, W], [B, code_dim] -> [B, 3, H, W]."""
        return self.decode(self.encode(mesh), code)
