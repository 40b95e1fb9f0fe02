"""From an image file to the numbers a network reads, and back."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def pillow() -> ModuleType:
    """PIL.Image, or an error that says what to install."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images are read through Pillow, which is missing: pip install pillow") from error
    return Image


def load_uint8(path: str | os.PathLike[str], image_size: tuple[int, int]) -> np.ndarray:
    """Decode to RGB and resize (bicubic, as Pillow does) to (H, W): uint8 [H, W, 3]. OSError names a bad file."""
    Image = pillow()
    height, width = image_size
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"cannot read image {path}: no such file") from None
    except Exception as error:  # a broken file may raise nearly anything in a decoder
        raise OSError(f"cannot read image {path}: {error}") from error
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(rgb)  # [H, W, 3]


def normalise(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W]: x / 255, minus ImageNet mean, over ImageNet std; the same bits
    as torchvision's ToTensor and Normalize."""
    x = torch.as_tensor(pixels)
    if x.dtype != torch.uint8 or x.dim() < 3 or x.shape[-1] != 3:
        raise ValueError(f"normalise: pixels must be uint8 [..., H, W, 3], got {x.dtype} {list(x.shape)}")
    x = x.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)  # [..., 3, H, W]
    return x.div_(255).sub_(_column(IMAGENET_MEAN, x)).div_(_column(IMAGENET_STD, x))


def denormalise(image: Tensor) -> Tensor:
    """The inverse for pictures: normalised [..., 3, H, W] to values in [0, 1], clamped, same shape and dtype."""
    return (image * _column(IMAGENET_STD, image) + _column(IMAGENET_MEAN, image)).clamp(0, 1)


def load_image(path: str | os.PathLike[str], image_size: tuple[int, int]) -> Tensor:
    """An image file as a network reads it: float32 [3, H, W], bicubic, ImageNet-normalised."""
    return normalise(load_uint8(path, image_size))


def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)
