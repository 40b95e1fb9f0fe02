"""Random changes of a training image, for stage 1 (stages 2 and 3 use none: there the generator is the augmentation)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gcl_fast.images import IMAGENET_MEAN

FILL = np.array([round(255 * m) for m in IMAGENET_MEAN], dtype=np.uint8)  # zero after normalisation, but for rounding
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Change(NamedTuple):
    """What was drawn for one image. Applied in this order, by whichever loader."""

    flip: bool
    top: int  # the crop's corner in the padded, flipped picture; top = left = pad leaves the picture where it is
    left: int
    jitter: tuple[float, float, float] | None  # factors of brightness, contrast, saturation
    box: tuple[int, int, int, int] | None  # top, left, height, width of what is erased


@dataclass(frozen=True)
class Augment:
    """The usual augmentation of ReID training, on a decoded and resized image.

    flip          probability of a left-right flip
    pad           pixels of black put around, then a crop of the old size anywhere within; 0 = none
    erase         probability of random erasing (Zhong et al., AAAI 2020): a rectangle becomes the ImageNet mean
    erase_area    its smallest and largest share of the image
    erase_aspect  its smallest height / width; the largest is 1 / erase_aspect
    color_jitter  s: brightness, contrast and saturation are each scaled by a factor drawn from [1 - s, 1 + s]; 0 = none
    """

    flip: float = 0.5
    pad: int = 10
    erase: float = 0.5
    color_jitter: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: float = 0.3

    def __post_init__(self) -> None:
        for name in ("flip", "erase", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Augment: {name} must be between 0 and 1, got {getattr(self, name)!r}")
        if not isinstance(self.pad, int) or self.pad < 0:
            raise ValueError(f"Augment: pad must be an integer of at least 0 pixels, got {self.pad!r}")
        if len(self.erase_area) != 2 or not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise ValueError(f"Augment: erase_area must be (low, high) with 0 < low <= high <= 1, got {self.erase_area!r}")
        if not 0 < self.erase_aspect <= 1:
            raise ValueError(f"Augment: erase_aspect must be above 0 and at most 1, got {self.erase_aspect!r}")

    def choose(self, image_size: tuple[int, int], rng: np.random.Generator) -> Change:
        """Draw the change of one image of (H, W) pixels. All chance comes from `rng`, none from the image."""
        flip = bool(rng.random() < self.flip)
        top, left = rng.integers(0, 2 * self.pad + 1, size=2).tolist() if self.pad else (0, 0)
        spread = self.color_jitter
        jitter = tuple(rng.uniform(1 - spread, 1 + spread, size=3).tolist()) if spread else None
        box = self._draw_box(image_size, rng) if rng.random() < self.erase else None
        return Change(flip, top, left, jitter, box)

    def apply(self, image: np.ndarray, change: Change) -> np.ndarray:
        """uint8 [H, W, 3] to a new uint8 [H, W, 3]; `image` is left as it is."""
        height, width, _ = image.shape
        if change.flip:
            image = image[:, ::-1]
        if self.pad:
            padded = np.zeros((height + 2 * self.pad, width + 2 * self.pad, 3), dtype=np.uint8)
            padded[self.pad : self.pad + height, self.pad : self.pad + width] = image
            image = padded[change.top : change.top + height, change.left : change.left + width]
        image = image.copy() if change.jitter is None else jitter_colors(image, change.jitter)
        if change.box is not None:
            top, left, h, w = change.box
            image[top : top + h, left : left + w] = FILL
        return image

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw and apply: uint8 [H, W, 3] to a new uint8 [H, W, 3]."""
        return self.apply(image, self.choose(image.shape[:2], rng))

    def _draw_box(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        height, width = image_size
        for _ in range(100):  # a tall or wide draw may not fit: draw again
            area = rng.uniform(*self.erase_area) * height * width
            aspect = rng.uniform(self.erase_aspect, 1 / self.erase_aspect)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                return int(top), int(left), h, w
        return None


def jitter_colors(image: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    """Scale brightness, contrast about the mean grey and saturation about each pixel's grey; uint8 [H, W, 3] to a new one."""
    brightness, contrast, saturation = factors
    x = image.astype(np.float32) * np.float32(brightness)
    x = _blend((x @ LUMA).mean(), x, contrast)
    x = _blend((x @ LUMA)[..., None], x, saturation)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _blend(grey: np.ndarray | np.floating, x: np.ndarray, factor: float) -> np.ndarray:
    """`factor` parts of x and 1 - factor of grey, clipped to [0, 255]."""
    return np.clip(grey + (x - grey) * np.float32(factor), 0, 255)
