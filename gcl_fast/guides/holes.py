"""Filling the place where somebody stood from what is around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 2  # rows or columns of the coarsest level
SQUARES, ROWS = (2, 2), (1, 2)  # how many pixels of a level make one of the next, down and across


def fill_holes(image: Tensor, known: Tensor) -> Tensor:
    """Known pixels as they are, the others a smooth continuation of what is around them: half of it from all sides, half from
    left and right alone, since kerbs, walls and horizons run across a street's pictures.

    Arguments:
        image: [B, C, H, W] floating point.
        known: [B, 1, H, W] bool or 0 to 1: how much of a pixel is known.

    Returns: [B, C, H, W]. An image of which nothing is known becomes 0.
    Gradient: to image. Deterministic, on CUDA without the gradient; nothing waits for a device.
    Source: push-pull of Gortler et al., The Lumigraph, SIGGRAPH 1996, section 3.3.3, once over squares and once over rows.
    """
    return (_push_pull(image, known, SQUARES) + _push_pull(image, known, ROWS)) / 2


def _push_pull(image: Tensor, known: Tensor, block: tuple[int, int]) -> Tensor:
    """Means of ever larger blocks, weighted by what is known, then down again, each level mixed over the coarser one by its own
    weight."""
    weight = known.to(image.dtype)
    sums, weights = [image * weight], [weight]
    while all(size > SMALLEST for size, factor in zip(sums[-1].shape[2:], block, strict=True) if factor > 1):
        sums.append(F.avg_pool2d(sums[-1], block, ceil_mode=True))
        weights.append(F.avg_pool2d(weights[-1], block, ceil_mode=True))
    every = sums[-1].sum((2, 3), keepdim=True) / weights[-1].sum((2, 3), keepdim=True).clamp_min(1e-6)  # [B, C, 1, 1]
    filled = torch.where(weights[-1] > 0, sums[-1] / weights[-1].clamp_min(1e-6), every)
    for level, share in zip(sums[-2::-1], weights[-2::-1], strict=True):
        coarse = F.interpolate(filled, size=level.shape[2:], mode="bilinear", align_corners=False)
        filled = level + (1 - share) * coarse
    return filled
