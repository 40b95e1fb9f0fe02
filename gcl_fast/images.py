"""From an image file to the numbers a network reads, and back: the one place of every conversion.

A *photo* is a float tensor [..., 3, H, W] normalised by the ImageNet mean and deviation (data and decoder output alike).
A *mesh* is a float tensor [..., 1, H, W] in [-1, 1]. A *unit* image is [..., C, H, W] in [0, 1].
"""

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


def mesh_from_unit(grey: Tensor) -> Tensor:
    """Rendered bodies in [0, 1] to the range that the networks read, [-1, 1]; any shape."""
    return grey * 2 - 1


def mesh_to_unit(mesh: Tensor) -> Tensor:
    """The inverse: [-1, 1] to [0, 1]."""
    return mesh * 0.5 + 0.5


def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


def _check(image: Tensor, name: str, channels: tuple[int, ...]) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.dim() < 3 or image.shape[-3] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        raise ValueError(f"{name}: expected shape [..., {wanted}, H, W], got {list(image.shape)}")


def photo_to_unit(image: Tensor) -> Tensor:
    """Undo the ImageNet normalisation: [..., 3, H, W] float -> RGB in [0, 1] float32, clamped. NaN becomes 0."""
    _check(image, "image", (3,))
    return denormalise(image.detach().float()).nan_to_num(0.0)


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
    return unit_to_uint8(mesh_to_unit(mesh.detach().float()))
