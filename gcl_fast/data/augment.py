"""Random changes of a training image, for stage 1 (stages 2 and 3 use none: there the generator is the augmentation)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gcl_fast.data.images import IMAGENET_MEAN

_FILL = np.array([round(255 * m) for m in IMAGENET_MEAN], dtype=np.uint8)  # zero after normalisation, but for rounding
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


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

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [H, W, 3] to a new uint8 [H, W, 3]; `image` is left as it is. All chance comes from `rng`."""
        height, width, _ = image.shape
        if rng.random() < self.flip:
            image = image[:, ::-1]
        if self.pad:
            top, left = rng.integers(0, 2 * self.pad + 1, size=2)
            padded = np.zeros((height + 2 * self.pad, width + 2 * self.pad, 3), dtype=np.uint8)
            padded[self.pad : self.pad + height, self.pad : self.pad + width] = image
            image = padded[top : top + height, left : left + width]
        image = self._jitter(image, rng) if self.color_jitter else image.copy()
        if rng.random() < self.erase:
            self._erase(image, rng)
        return image

    def _jitter(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        brightness, contrast, saturation = rng.uniform(1 - self.color_jitter, 1 + self.color_jitter, size=3)
        x = image.astype(np.float32) * np.float32(brightness)
        x = _blend((x @ _LUMA).mean(), x, contrast)
        x = _blend((x @ _LUMA)[..., None], x, saturation)
        return np.clip(np.rint(x), 0, 255).astype(np.uint8)

    def _erase(self, image: np.ndarray, rng: np.random.Generator) -> None:
        height, width, _ = image.shape
        for _ in range(100):  # a tall or wide draw may not fit: draw again
            area = rng.uniform(*self.erase_area) * height * width
            aspect = rng.uniform(self.erase_aspect, 1 / self.erase_aspect)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                image[top : top + h, left : left + w] = _FILL
                return


def _blend(grey: np.ndarray | np.floating, x: np.ndarray, factor: float) -> np.ndarray:
    """`factor` parts of x and 1 - factor of grey, clipped to [0, 255]."""
    return np.clip(grey + (x - grey) * np.float32(factor), 0, 255)
