"""Identity encoder: a ResNet that gives the identity code (for the generator) and the feature (for matching)."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcl_fast.errors import FileError, InputError
from gcl_fast.models.blocks import check_images, check_width
from gcl_fast.models.weights import load_weights
from gcl_fast.packages import missing

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck

PARTS = 4  # horizontal parts of the identity code
VARIANTS = ("jvtc", "mlc", "act")
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}  # blocks in each stage


def _torchvision_resnet() -> ModuleType:
    try:
        from torchvision.models import resnet
    except ImportError as error:
        raise missing("torchvision", "IdentityEncoder", error) from error
    module: ModuleType = resnet
    return module


def _stage(block: type[BasicBlock | Bottleneck], c_in: int, planes: int, depth: int, stride: int) -> nn.Sequential:
    c_out = planes * block.expansion
    shortcut = None
    if stride != 1 or c_in != c_out:
        shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    rest = (block(c_out, planes) for _ in range(depth - 1))
    return nn.Sequential(block(c_in, planes, stride, shortcut), *rest)


def _backbone(name: str, width: int) -> tuple[nn.Sequential, int]:
    """Stages of torchvision's ResNet under its names, last stride 1, `width` channels after the stem."""
    resnet = _torchvision_resnet()
    block = resnet.Bottleneck if name == "resnet50" else resnet.BasicBlock
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, width, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
    )
    channels = width
    for i, (depth, stride) in enumerate(zip(DEPTHS[name], (1, 2, 2, 1), strict=True)):
        layers[f"layer{i + 1}"] = _stage(block, channels, width * 2**i, depth, stride)
        channels = width * 2**i * block.expansion
    backbone = nn.Sequential(layers)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone, channels


def _part_means(rows: Tensor) -> Tensor:
    """Adaptive average pooling of [B, C, h] to [B, C, 4], from slices: its backward pass is deterministic everywhere."""
    h = rows.shape[2]
    bounds = ((i * h // PARTS, -(-(i + 1) * h // PARTS)) for i in range(PARTS))
    return torch.stack([rows[:, :, low:high].mean(2) for low, high in bounds], dim=2)


class IdentityEncoder(nn.Module):
    """E_id of the method: image [B, 3, H, W], ImageNet-normalised -> (code [B, 4C], feature [B, feature_dim]).

    The code is the last map (H/16 x W/16) averaged in 4 horizontal parts; index = channel * 4 + part. The feature is in "jvtc"
    the global average -> Linear(C, feature_width) -> BatchNorm1d, in "mlc" and "act" average -> BatchNorm1d; it is not
    L2-normalised: evaluation and the memories normalise, the identity loss does not. Both are float32 under autocast (pooling
    and head stay out of it), else of the image's dtype.

    Arguments:
        variant: "jvtc" | "mlc" | "act", the heads of the published encoders.
        backbone: "resnet50" (C = 2048) | "resnet18" (C = 512), the last stage with stride 1.
        width: channels of the stem; C scales with it.
        weights: None: random; "imagenet": torchvision's IMAGENET1K_V1, downloaded on this request; path of a checkpoint: this
            encoder's state_dict, or a torchvision ResNet's (then the head stays random).
        feature_width: outputs of the "jvtc" linear layer; the others have C.

    Gradient: to the image and the weights.
    Errors: ValueError or TypeError for bad arguments; InputError, MissingFileError or FileError for weights that cannot be had;
        MissingPackageError without torchvision.
    Sources: He et al., CVPR 2016; JVTC: Li & Zhang, ECCV 2020; MMCL: Wang & Zhang, CVPR 2020.
    """

    def __init__(
        self,
        variant: str = "jvtc",
        backbone: str = "resnet50",
        *,
        width: int = 64,
        weights: str | os.PathLike[str] | None = None,
        feature_width: int = 512,
    ) -> None:
        super().__init__()
        for name, value, known in (("variant", variant, VARIANTS), ("backbone", backbone, tuple(DEPTHS))):
            if value not in known:
                raise ValueError(f"IdentityEncoder: {name} must be one of {', '.join(known)}, got {value!r}")
        check_width("IdentityEncoder", "width", width)
        check_width("IdentityEncoder", "feature_width", feature_width)
        self.variant = variant
        self.backbone_name = backbone
        self.backbone, channels = _backbone(backbone, width)
        self.code_dim = channels * PARTS
        self.feature_dim = feature_width if variant == "jvtc" else channels
        self.feat = nn.Linear(channels, feature_width) if variant == "jvtc" else nn.Identity()
        self.bn = nn.BatchNorm1d(self.feature_dim)
        if weights is not None:
            self._load(weights, width)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        check_images("IdentityEncoder", "image", image, 3)
        fmap = self.backbone(image)  # [B, C, H/16, W/16]
        # half-precision maps are averaged in float32
        rows = fmap.mean(3, dtype=torch.promote_types(fmap.dtype, self.bn.weight.dtype))  # [B, C, H/16]
        code = _part_means(rows).flatten(1)  # [B, C * 4]
        with torch.autocast(image.device.type, enabled=False):
            feature = self.bn(self.feat(rows.mean(2)))  # [B, feature_dim]
        return code, feature

    def _load(self, weights: str | os.PathLike[str], width: int) -> None:
        if weights == "imagenet":
            if width != 64:
                raise InputError(f"IdentityEncoder: weights='imagenet' exist for width 64 only, got width {width}")
            state: Mapping[str, Tensor] = self._imagenet()
        else:
            state = load_weights(weights)
            nested = state.get("state_dict")
            state = nested if isinstance(nested, Mapping) else state
        whole = any(name.startswith("backbone.") for name in state)
        target = self if whole else self.backbone
        entries = state if whole else {name: value for name, value in state.items() if not name.startswith("fc.")}
        try:
            target.load_state_dict(entries)
        except (RuntimeError, TypeError) as error:
            layout = "this encoder's state_dict" if whole else f"a torchvision {self.backbone_name}'s state_dict"
            raise InputError(f"IdentityEncoder: weights {os.fspath(weights)!r} must be {layout}: {error}") from error

    def _imagenet(self) -> Mapping[str, Tensor]:
        from torchvision.models import get_weight

        name = {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights"}[self.backbone_name]
        try:
            state: Mapping[str, Tensor] = get_weight(f"{name}.IMAGENET1K_V1").get_state_dict(progress=True, check_hash=True)
        except OSError as error:
            problem = f"weights='imagenet' could not be downloaded ({error}); give a file instead"
            raise FileError(f"IdentityEncoder: {problem}") from error
        return state
