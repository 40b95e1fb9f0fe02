"""Backbones of the identity encoder by name: each is a module from an ImageNet-normalised image [B, 3, H, W] to a map
[B, C, h, w]. A new one needs a line in `constants.BackboneName` and one in `build_backbone`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.models.efficientnet import HEAD, EfficientNetLite0, UnitRange, lite_names
from gcl_fast.models.osnet import WIDTHS, OSNet
from gcl_fast.models.resnets import build_resnet
from gcl_fast.packages import missing

VIT = "vit_small_patch16"
TIMM_VIT = "vit_small_patch16_224.augreg_in21k_ft_in1k"
CLASSIFIERS = ("fc.", "classifier.", "head.")  # in published files, after the map


class TimmTransformer(nn.Module):
    """A vision transformer of timm: its patch tokens, laid out as the map [B, C, H/16, W/16]. Any image size: the position
    embedding is resized."""

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise missing("timm", f"backbone {VIT}", error) from error
        net: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
        self.net: Any = net
        self.unit_range = UnitRange()
        self.channels: int = net.embed_dim
        self.patch: int = net.patch_embed.patch_size[0]

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.net.forward_features(self.unit_range(image))[:, self.net.num_prefix_tokens :]  # [B, h * w, C]
        fmap: Tensor = tokens.transpose(1, 2).unflatten(2, (image.shape[2] // self.patch, image.shape[3] // self.patch))
        return fmap


def build_backbone(name: str, width: int = 64) -> tuple[nn.Module, int]:
    """The backbone and the channels of its map; width: of a ResNet's first stage."""
    if name.startswith("resnet"):
        return build_resnet(name, width)
    if name == "osnet_x1_0":
        return OSNet(), WIDTHS[-1]
    if name == "efficientnet_lite0":
        return EfficientNetLite0(), HEAD
    transformer = TimmTransformer(TIMM_VIT)
    return transformer, transformer.channels


def backbone_entries(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a published weight file by the names of our backbone, classifiers left out."""
    names = {key.removeprefix("module."): value for key, value in state.items()}
    if name == "efficientnet_lite0" and "_conv_stem.weight" in names:
        names = lite_names(names)
    names = {key: value for key, value in names.items() if not key.startswith(CLASSIFIERS)}
    return {f"net.{key}": value for key, value in names.items()} if name == VIT else names


class GeM(nn.Module):
    """Generalised mean over the map's positions, exponent p learned: 1 is the mean, large p the maximum.

    Source: Radenovic et al., TPAMI 2019; starting at 3 as Cluster Contrast's code has it.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))

    def forward(self, fmap: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C]; what is below 1e-6 counts as that."""
        return fmap.clamp(min=1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)
