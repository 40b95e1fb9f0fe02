"""Random changes of a training image, for stage 1 (stages 2 and 3 use none: there the generator is the augmentation).

Drawing (`Augment.choose`) and the arithmetic on one picture (`apply_change`) are here and serve every loader on the CPU. On a
GPU `loaders.finish` does the same to a whole batch at once, since each operation costs a launch there. That form cannot serve the
CPU as well: it sums the greys of colour jitter in another order, so the bits would differ, and it gathers pixel by pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gcl_fast.data.resample import cropped, turned
from gcl_fast.errors import InputError
from gcl_fast.images import IMAGENET_MEAN, IMAGENET_STD

Fill = Literal["released", "mean"]
FILLS: dict[Fill, tuple[int, ...]] = {  # [3] grey levels, within half of one
    "mean": tuple(round(255 * m) for m in IMAGENET_MEAN),  # 0 after normalisation
    "released": tuple(round(255 * m * (1 + s)) for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)),  # the mean after it
}
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


class Change(NamedTuple):
    """What was drawn for one image. Applied in this order, by whichever loader."""

    flip: bool
    top: int  # the crop's corner in the padded, flipped picture; top = left = pad leaves the picture where it is
    left: int
    jitter: tuple[float, float, float] | None  # factors of brightness, contrast, saturation
    box: tuple[int, int, int, int] | None  # top, left, height, width of what is erased
    crop: tuple[int, int, int, int] | None = (
        None  # top, left, height, width of what is seen, of the whole picture; before all else
    )
    angle: float = 0.0  # degrees, counter-clockwise; after the crop, before the colours
    fill: tuple[int, ...] = FILLS["mean"]  # what the box becomes


@dataclass(frozen=True)
class Augment:
    """The usual augmentation of ReID training, on a decoded and resized image.

    flip          probability of a left-right flip
    pad           pixels of black put around, then a crop of the old size anywhere within; 0 = none
    erase         probability of random erasing (Zhong et al., AAAI 2020): a rectangle becomes `erase_fill`
    erase_fill    "mean": the ImageNet mean, 0 once normalised; "released": lighter, as the authors' code of Cluster Contrast, MLC
                  and JVTC has it, which fills with the mean what is normalised already
    erase_area    its smallest and largest share of the image
    erase_aspect  its smallest height / width; the largest is 1 / erase_aspect
    color_jitter  s: brightness, contrast and saturation are each scaled by a factor drawn from [1 - s, 1 + s]; 0 = none
    crop_smallest  smallest share of the image that is seen, resized to the whole; 1 = all of it
    crop_aspect   height / width of what is seen, from and to
    rotation      r: turned by an angle drawn from [-r, r] degrees; 0 = not
    """

    flip: float = 0.5
    pad: int = 10
    erase: float = 0.5
    color_jitter: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: float = 0.3
    crop_smallest: float = 1.0
    crop_aspect: tuple[float, float] = (2.0, 3.0)
    rotation: float = 0.0
    erase_fill: Fill = "released"

    def __post_init__(self) -> None:
        for name in ("flip", "erase", "color_jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Augment: {name} must be between 0 and 1, got {getattr(self, name)!r}")
        if not isinstance(self.pad, int) or self.pad < 0:
            raise InputError(f"Augment: pad must be an integer of at least 0 pixels, got {self.pad!r}")
        if len(self.erase_area) != 2 or not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise InputError(f"Augment: erase_area must be (low, high) with 0 < low <= high <= 1, got {self.erase_area!r}")
        if self.erase_fill not in FILLS:
            raise InputError(f"Augment: erase_fill must be one of {', '.join(FILLS)}, got {self.erase_fill!r}")
        if not 0 < self.erase_aspect <= 1:
            raise InputError(f"Augment: erase_aspect must be above 0 and at most 1, got {self.erase_aspect!r}")
        if not 0 < self.crop_smallest <= 1:
            raise InputError(f"Augment: crop_smallest must be above 0 and at most 1, got {self.crop_smallest!r}")
        if len(self.crop_aspect) != 2 or not 0 < self.crop_aspect[0] <= self.crop_aspect[1] < math.inf:
            raise InputError(f"Augment: crop_aspect must be (low, high) with 0 < low <= high, finite, got {self.crop_aspect!r}")
        if not 0 <= self.rotation <= 180:
            raise InputError(f"Augment: rotation must be 0 to 180 degrees, got {self.rotation!r}")

    def choose(self, image_size: tuple[int, int], rng: np.random.Generator) -> Change:
        """Draw the change of one image of (H, W) pixels. All chance comes from `rng`, none from the image."""
        flip = bool(rng.random() < self.flip)
        top, left = rng.integers(0, 2 * self.pad + 1, size=2).tolist() if self.pad else (0, 0)
        spread = self.color_jitter
        jitter = None
        if spread:
            brightness, contrast, saturation = rng.uniform(1 - spread, 1 + spread, size=3).tolist()
            jitter = (brightness, contrast, saturation)
        box = self._draw_box(image_size, rng) if rng.random() < self.erase else None
        crop = self._draw_crop(image_size, rng) if self.crop_smallest < 1 else None
        angle = float(rng.uniform(-self.rotation, self.rotation)) if self.rotation else 0.0
        return Change(flip, top, left, jitter, box, crop, angle, FILLS[self.erase_fill])

    def apply(self, image: np.ndarray, change: Change) -> np.ndarray:
        """uint8 [H, W, 3] to a new uint8 [H, W, 3]; `image` is left as it is."""
        picture = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0)  # [3, H, W]
        changed = torch.empty(picture.shape, dtype=torch.float32)
        apply_change(changed, picture, change, self.pad)
        return changed.to(torch.uint8).movedim(0, -1).contiguous().numpy()

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw and apply: uint8 [H, W, 3] to a new uint8 [H, W, 3]."""
        return self.apply(image, self.choose((image.shape[0], image.shape[1]), rng))

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

    def _draw_crop(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        height, width = image_size
        for _ in range(10):  # the whole picture where none of these fits
            area = rng.uniform(self.crop_smallest, 1.0) * height * width
            aspect = rng.uniform(*self.crop_aspect)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h <= height and 0 < w <= width:
                top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
                return int(top), int(left), h, w
        return None


def apply_change(out: Tensor, picture: Tensor, change: Change, pad: int) -> None:
    """The changed picture into `out`, on the CPU.

    Arguments:
        out: [3, H, W] float32, whole numbers 0 .. 255 afterwards.
        picture: [3, H, W] uint8; left as it is.
        change: drawn with that `pad`.
    """
    height, width = picture.shape[1:]
    down, right = change.top - pad, change.left - pad
    if change.crop is not None:
        picture = cropped(picture[None], torch.tensor([change.crop], dtype=torch.float32))[0]
    source = picture.flip(2) if change.flip else picture
    if down or right:
        out.zero_()
    rows, columns = _overlap(height, down), _overlap(width, right)
    out[:, rows[0], columns[0]] = source[:, rows[1], columns[1]]
    if change.angle:
        out.copy_(turned(out.to(torch.uint8)[None], torch.tensor([change.angle]))[0])
    if change.jitter is not None:
        pixels = out.to(torch.uint8).movedim(0, -1).contiguous().numpy()  # [H, W, 3]
        out.copy_(torch.from_numpy(jitter_colors(pixels, change.jitter)).movedim(-1, 0))
    if change.box is not None:
        top, left, h, w = change.box
        out[:, top : top + h, left : left + w] = torch.tensor(change.fill, dtype=torch.float32).view(3, 1, 1)


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Where out[i] = source[i + shift] has both: the part of out, the part of source."""
    low, high = max(0, -shift), min(size, size - shift)
    high = max(low, high)
    return slice(low, high), slice(low + shift, high + shift)


def jitter_colors(image: np.ndarray, factors: tuple[float, float, float]) -> np.ndarray:
    """Scale brightness, contrast about the mean grey and saturation about each pixel's grey; uint8 [H, W, 3] to a new one."""
    brightness, contrast, saturation = factors
    x = image.astype(np.float32) * np.float32(brightness)
    x = _blend((x @ LUMA).mean(), x, contrast)
    x = _blend((x @ LUMA)[..., None], x, saturation)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def _blend(grey: np.ndarray, x: np.ndarray, factor: float) -> np.ndarray:
    """`factor` parts of x and 1 - factor of grey, clipped to [0, 255]."""
    return np.clip(grey + (x - grey) * np.float32(factor), 0, 255)
