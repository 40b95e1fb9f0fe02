"""Identity encoder: a backbone that gives the identity code (for the generator) and the feature (for matching)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gcl_fast.constants import BACKBONES
from gcl_fast.errors import InputError
from gcl_fast.models.backbones import GeM, backbone_entries, build_backbone
from gcl_fast.models.blocks import check_images, check_width
from gcl_fast.models.start_weights import TORCHVISION, imagenet_weights
from gcl_fast.models.weights import load_weights
from gcl_fast.ops._products import without_autocast

if TYPE_CHECKING:
    from typing_extensions import Self

PARTS = 4  # horizontal parts of the identity code
VARIANTS = ("jvtc", "mlc", "act")
POOLINGS = ("avg", "gem")
NORM_BIASES = ("learned", "frozen")


def _part_means(rows: Tensor) -> Tensor:
    """Adaptive average pooling of [B, C, h] to [B, C, 4], from slices: its backward pass is deterministic everywhere."""
    h = rows.shape[2]
    bounds = ((i * h // PARTS, -(-(i + 1) * h // PARTS)) for i in range(PARTS))
    return torch.stack([rows[:, :, low:high].mean(2) for low, high in bounds], dim=2)


class IdentityEncoder(nn.Module):
    """E_id of the method: image [B, 3, H, W], ImageNet-normalised -> (code [B, 4C], feature [B, feature_dim]).

    The code is the last map (H/16 x W/16) averaged in 4 horizontal parts; index = channel * 4 + part. The feature is in "jvtc"
    the pooled map -> Linear(C, feature_width) -> BatchNorm1d, in "mlc" and "act" pooled map -> BatchNorm1d; it is not
    L2-normalised: evaluation and the memories normalise, the identity loss does not. Both are float32 under autocast (pooling
    and head stay out of it), else of the image's dtype.

    Arguments:
        variant: "jvtc" | "mlc" | "act", the heads of the published encoders.
        backbone: a name of `constants.BACKBONES`: "resnet50", "resnet101", their "_ibn_a" (C = 2048), "resnet18", "osnet_x1_0"
            (512), "efficientnet_lite0" (1280), "vit_small_patch16" (384, needs timm); the last stage with stride 1.
        width: channels of a ResNet's stem; C scales with it.
        weights: None: random; "imagenet": what `start_weights.imagenet_source` says, downloaded on this request; path of a
            checkpoint: this encoder's state_dict, or the backbone's as published (then the head stays random).
        feature_width: outputs of the "jvtc" linear layer; the others have C.
        pooling: of the feature: "avg", the map's mean | "gem", its generalised mean (`backbones.GeM`); the code is averaged.
        norm_bias: "learned" | "frozen": the head's batch norm keeps its bias at 0, also where the encoder learns and where
            weights bring another.

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
        pooling: str = "avg",
        norm_bias: str = "learned",
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("variant", variant, VARIANTS),
            ("backbone", backbone, BACKBONES),
            ("pooling", pooling, POOLINGS),
            ("norm_bias", norm_bias, NORM_BIASES),
        ):
            if value not in known:
                raise ValueError(f"IdentityEncoder: {name} must be one of {', '.join(known)}, got {value!r}")
        check_width("IdentityEncoder", "width", width)
        check_width("IdentityEncoder", "feature_width", feature_width)
        self.variant = variant
        self.backbone_name, self.width = backbone, width
        self.pooling, self.norm_bias = pooling, norm_bias
        self.backbone, channels = build_backbone(backbone, width)
        self.code_dim = channels * PARTS
        self.feature_dim = feature_width if variant == "jvtc" else channels
        self.feat = nn.Linear(channels, feature_width) if variant == "jvtc" else nn.Identity()
        self.bn = nn.BatchNorm1d(self.feature_dim)
        self.pool = GeM() if pooling == "gem" else None
        self.requires_grad_(True)
        if weights is not None:
            self._load(weights, width)
        if norm_bias == "frozen":
            self.freeze_norm_bias()  # weights of one that learned it bring another

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        code, pooled = self.pooled(image)
        with without_autocast(image.device):
            feature = self.bn(self.feat(pooled))  # [B, feature_dim]
        return code, feature

    def pooled(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The code, and the pooled map [B, C], from which the head makes the feature."""
        check_images("IdentityEncoder", "image", image, 3)
        fmap = self.backbone(image)  # [B, C, H/16, W/16]
        # half-precision maps are averaged in float32
        dtype = torch.promote_types(fmap.dtype, self.bn.weight.dtype)
        rows = fmap.mean(3, dtype=dtype)  # [B, C, H/16]
        code = _part_means(rows).flatten(1)  # [B, C * 4]
        with without_autocast(image.device):
            pooled: Tensor = rows.mean(2) if self.pool is None else self.pool(fmap.to(dtype))  # [B, C]
        return code, pooled

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of every module; a frozen bias stays frozen."""
        super().requires_grad_(requires_grad)
        if self.norm_bias == "frozen":
            self.bn.bias.requires_grad_(False)
        return self

    def freeze_norm_bias(self) -> None:
        """Keep the bias of the head's batch norm at 0 from now on."""
        self.norm_bias = "frozen"
        nn.init.zeros_(self.bn.bias).requires_grad_(False)

    def _load(self, weights: str | os.PathLike[str], width: int) -> None:
        if weights == "imagenet":
            if width != 64:
                raise InputError(f"IdentityEncoder: weights='imagenet' exist for width 64 only, got width {width}")
            state: Mapping[str, Tensor] = imagenet_weights(self.backbone_name)
        else:
            state = load_weights(weights)
            nested = state.get("state_dict")
            state = nested if isinstance(nested, Mapping) else state
        whole = any(name.startswith("backbone.") for name in state)
        target = self if whole else self.backbone
        entries = state if whole or weights == "imagenet" else backbone_entries(self.backbone_name, state)
        try:
            target.load_state_dict(entries)
        except (RuntimeError, TypeError) as error:
            whose = "a torchvision" if self.backbone_name in TORCHVISION else "a published"
            layout = "this encoder's state_dict" if whole else f"{whose} {self.backbone_name}'s state_dict"
            raise InputError(f"IdentityEncoder: weights {os.fspath(weights)!r} must be {layout}: {error}") from error
