"""Pictures cropped and resized, or turned, a batch at a time: the same arithmetic for every loader, on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def cropped(pictures: Tensor, boxes: Tensor) -> Tensor:
    """A box of each picture, resized bilinearly to the picture's size. Deterministic.

    Arguments:
        pictures: [B, 3, H, W] uint8.
        boxes: [B, 4] float32: top, left, height, width in pixels, inside the picture.

    Returns: [B, 3, H, W] uint8; Pillow's, where the box is not larger than the picture, to one grey level. Pixels outside the box
        have no part in it.
    """
    height, width = pictures.shape[2:]
    top, left, tall, wide = (column.unsqueeze(1) for column in boxes.unbind(1))  # [B, 1]
    row, column = _centres(height, pictures), _centres(width, pictures)
    y = (row / height * tall).clamp(min=0.5).minimum(tall - 0.5) + top  # [B, H]
    x = (column / width * wide).clamp(min=0.5).minimum(wide - 0.5) + left  # [B, W]
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=3)
    return _sampled(pictures, grid, "bilinear")


def turned(pictures: Tensor, degrees: Tensor) -> Tensor:
    """Each picture turned about its middle, counter-clockwise; every pixel is the nearest old one, black where there was none.

    Arguments:
        pictures: [B, 3, H, W] uint8.
        degrees: [B] float32.
    """
    height, width = pictures.shape[2:]
    angle = (degrees * (math.pi / 180))[:, None, None]  # [B, 1, 1]
    y, x = (_centres(n, pictures) - n / 2 for n in (height, width))
    down, right = y[None, :, None], x[None, None, :]
    back_x = right * angle.cos() - down * angle.sin()  # where the pixel was
    back_y = right * angle.sin() + down * angle.cos()
    return _sampled(pictures, torch.stack([back_x + width / 2, back_y + height / 2], dim=3), "nearest")


def _centres(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, dtype=torch.float32, device=like.device) + 0.5


def _sampled(pictures: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Pictures at places [B, H, W, 2] of (x, y) in pixels, pixel centres at +0.5."""
    height, width = pictures.shape[2:]
    size = torch.tensor([width, height], dtype=torch.float32, device=pictures.device)
    border = "border" if mode == "bilinear" else "zeros"
    found = F.grid_sample(pictures.to(torch.float32), grid * (2 / size) - 1, mode, border, align_corners=False)
    return found.round().clamp(0, 255).to(torch.uint8)
