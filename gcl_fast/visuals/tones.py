"""From the networks' number ranges to bytes.

A *photo* is a float tensor [..., 3, H, W] normalised by the ImageNet mean and deviation (data and decoder output alike).
A *mesh* is a float tensor [..., 1, H, W] in [-1, 1]. A *unit* image is [..., C, H, W] in [0, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD


def _check(image: Tensor, name: str, channels: tuple[int, ...]) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.dim() < 3 or image.shape[-3] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        raise ValueError(f"{name}: expected shape [..., {wanted}, H, W], got {list(image.shape)}")


def photo_to_unit(image: Tensor) -> Tensor:
    """Undo the ImageNet normalisation: [..., 3, H, W] float -> RGB in [0, 1] float32, clamped. NaN becomes 0."""
    _check(image, "image", (3,))
    mean = torch.tensor(IMAGENET_MEAN, device=image.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=image.device).view(3, 1, 1)
    return (image.detach().float() * std + mean).nan_to_num(0.0).clamp(0.0, 1.0)


def unit_to_uint8(image: Tensor) -> np.ndarray:
    """[..., 3 or 1, H, W] float in [0, 1] -> uint8 [..., H, W, 3]; values outside are clamped, grey is repeated."""
    _check(image, "image", (3, 1))
    bytes_ = (image.detach().float().nan_to_num(0.0).clamp(0.0, 1.0) * 255).round().to(torch.uint8)
    rgb = bytes_.expand(*bytes_.shape[:-3], 3, *bytes_.shape[-2:])  # [..., 3, H, W]
    return np.ascontiguousarray(rgb.movedim(-3, -1).cpu().numpy())  # [..., H, W, 3]


def photo_to_uint8(image: Tensor) -> np.ndarray:
    """ImageNet-normalised [..., 3, H, W] float -> uint8 [..., H, W, 3]."""
    return unit_to_uint8(photo_to_unit(image))


def mesh_to_uint8(mesh: Tensor) -> np.ndarray:
    """Mesh render [..., 1, H, W] float in [-1, 1] -> grey uint8 [..., H, W, 3]."""
    _check(mesh, "mesh", (1,))
    return unit_to_uint8(mesh.detach().float() * 0.5 + 0.5)
