"""Variance where identity is not: another background, another camera's colours, something in front, a shifted crop.

Everything is drawn for the joint batch by `draw_variance`, so that processes share it and a resumed run repeats it, and applied
to tensors with gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast import distributed
from gcl_fast.config import VarianceConfig
from gcl_fast.ops._products import exact_products
from gcl_fast.transfer import send

COLOUR = 0.25  # largest change of gain, and of each channel's offset in standard deviations of the photos
SHIFT = 0.06  # largest shift of the crop, share of its height and of its width
ERASED = (0.05, 0.3)  # share of the picture behind an occluder
RATIO = (0.4, 2.5)  # of an occluder's height to its width


@dataclass(frozen=True)
class Variance:
    """What changes in each new view of this process's share [B]; in the rows where nothing does, values that change nothing.

    backdrop   [B] int64, rows of the joint batch whose background is taken
    swapped    [B, 1, 1, 1] bool: where it is
    gain       [B, 3, 1, 1], offset the same: of the colours
    place      [B, 4] int64: top, bottom, left, right of what stands in front (pixels; empty where nothing does)
    warp       [B, 2, 3]: the crop, as `torch.nn.functional.affine_grid` takes it
    """

    backdrop: Tensor
    swapped: Tensor
    gain: Tensor
    offset: Tensor
    place: Tensor
    warp: Tensor

    def before_backdrop(self, ground: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """(background, known) of a photo, the other photo's where it is drawn."""
        return torch.where(self.swapped, other[0], ground[0]), torch.where(self.swapped, other[1], ground[1])

    def apply(self, image: Tensor) -> Tensor:
        """Colours, crop and occluder of generated views [B, 3, H, W], float32 at least; gradient to them. Backgrounds are changed
        in the guide."""
        height, width = image.shape[2:]
        with exact_products(image.device):  # bfloat16 and TF32 would move the picture by parts of a pixel
            grid = F.affine_grid(self.warp, list(image.shape), align_corners=False)
        dtype = torch.promote_types(image.dtype, grid.dtype)
        image = F.grid_sample(image.to(dtype), grid.to(dtype), "bilinear", "border", align_corners=False)
        image = image * self.gain + self.offset
        y, x = torch.arange(height, device=image.device), torch.arange(width, device=image.device)
        top, bottom, left, right = self.place.unsqueeze(-1).unbind(1)  # each [B, 1]
        hidden = ((y >= top) & (y < bottom))[:, None, :, None] & ((x >= left) & (x < right))[:, None, None, :]
        return torch.where(hidden, torch.zeros_like(image), image)


def draw_variance(
    config: VarianceConfig, size: int, image_size: tuple[int, int], rng: np.random.Generator, device: torch.device
) -> Variance:
    """The variance of this process's `size` rows; every process draws that of the joint batch."""
    joint = distributed.world() * size
    swapped = rng.random(joint) < config.background
    backdrop = rng.permutation(joint)
    coloured = (rng.random((joint, 1)) < config.colour) * rng.uniform(-1, 1, (joint, 4))
    gain = np.repeat(1 + COLOUR * coloured[:, :1], 3, 1)
    moved = (rng.random((joint, 1)) < config.crop) * rng.uniform(-1, 1, (joint, 2))
    mirrored = np.where((rng.random(joint) < config.crop) & (rng.random(joint) < 0.5), -1.0, 1.0)
    warp = np.zeros((joint, 2, 3))
    warp[:, 0, 0], warp[:, 1, 1] = mirrored, 1.0
    warp[:, :, 2] = 2 * SHIFT * moved
    place = _places(rng, joint, image_size) * (rng.random((joint, 1)) < config.occluder)
    shares = (distributed.own_rows(part) for part in (backdrop, swapped, gain, COLOUR * coloured[:, 1:], place, warp))
    tensors = [send(torch.from_numpy(np.ascontiguousarray(share)), device) for share in shares]
    backdrop_, swapped_, gain_, offset_, place_, warp_ = tensors
    as_image = (-1, 3, 1, 1)
    return Variance(
        backdrop_,
        swapped_.view(-1, 1, 1, 1),
        gain_.float().view(as_image),
        offset_.float().view(as_image),
        place_.long(),
        warp_.float(),
    )


def _places(rng: np.random.Generator, count: int, image_size: tuple[int, int]) -> np.ndarray:
    """[count, 4]: rectangles anywhere in the picture."""
    height, width = image_size
    area, ratio = rng.uniform(*ERASED, count) * height * width, np.exp(rng.uniform(np.log(RATIO[0]), np.log(RATIO[1]), count))
    rows = np.clip(np.sqrt(area * ratio), 1, height - 1).astype(np.int64)
    columns = np.clip(np.sqrt(area / ratio), 1, width - 1).astype(np.int64)
    top = (rng.random(count) * (height - rows + 1)).astype(np.int64)
    left = (rng.random(count) * (width - columns + 1)).astype(np.int64)
    return np.stack([top, top + rows, left, left + columns], 1)
