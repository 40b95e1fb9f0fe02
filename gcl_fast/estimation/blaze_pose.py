"""BlazePose in plain torch: photos -> landmarks and masks, averaged with those of the mirror image where asked.

Source: Bazarevsky et al., "BlazePose: On-device Real-time Body Pose tracking", 2020; Grishchenko et al., "BlazePose GHUM
Holistic", 2022 (landmarks in metres). The weights are the authors', see `pose_weights`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.estimation.landmarks import Landmarks
from gcl_fast.estimation.tflite_file import TfliteModel, read_tflite
from gcl_fast.estimation.tflite_network import TfliteNetwork
from gcl_fast.images import Pixels, pillow, resized, unit_from_levels, unit_to_levels

SIDE = 1.25  # of the square that the network sees, in longer sides of the photo: it was trained with a margin around people
POINTS = 33
# Number of each landmark's mirror image: nose, eyes and mouth by their places, from the shoulders on left and right in turn
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(i + 1 if i % 2 else i - 1 for i in range(11, POINTS)))
MASK_HEIGHT = 128
MASK = 2  # its place among the outputs, see _outputs


class BlazePose:
    """An `Estimator` of landmarks.

    path: a BlazePose landmark model (.tflite; lite, full or heavy); mirror: average with the mirrored photo (a little
    better, and nearly twice as long: docs/photos.md). Errors:
    MissingFileError, InputError naming the file.
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu", *, mirror: bool = False) -> None:
        model = read_tflite(path)
        try:
            outputs = _outputs(model)
            self.network = TfliteNetwork(model, outputs).to(device).eval()
        except (InputError, ValueError) as error:
            raise InputError(f"weights {path}: {error}") from error
        self.device, self.mirror = torch.device(device), mirror
        self.size = self.network.input_shape[1]

    def estimate(self, photos: Sequence[Pixels]) -> Landmarks:
        boxes = [self._box(photo) for photo in photos]
        canvas = torch.empty(len(photos), 3, self.size, self.size)
        for square, photo, box in zip(canvas, photos, boxes, strict=True):
            self._draw(square, photo, box)
        canvas = canvas.to(self.device)
        # Of the masks only the columns in which there are photos are computed; beside the photos the squares' columns repeat
        left, right = min(box[1] for box in boxes), max(box[1] + box[3] for box in boxes)
        points, metres, score, masks = self._seen(canvas, left, right)
        if self.mirror:
            points_m, metres_m, score_m, masks_m = self._seen(canvas.flip(3), self.size - right, self.size - left)
            points_m, metres_m = points_m[:, MIRRORED], metres_m[:, MIRRORED]
            points_m[..., 0], metres_m[..., 0] = 1 - points_m[..., 0], -metres_m[..., 0]
            points, metres = (points + points_m) / 2, (metres + metres_m) / 2
            score, masks = (score + score_m) / 2, (masks + masks_m.flip(3)) / 2
        # of the square, from its corner -> of the photo's height, from its middle
        longer = torch.tensor([max(photo.shape[:2]) / photo.shape[0] for photo in photos], device=self.device)
        placed = (points[..., :2] - 0.5) * (SIDE * longer)[:, None, None]
        seen = points[..., 3:5].amin(2).sigmoid()
        return Landmarks(placed, metres, seen, score, self._masks(masks, left, boxes, photos))

    def _seen(self, canvas: Tensor, left: int, right: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, 33, 5] x, y, z in [0, 1] of the square, visibility and presence before the sigmoid; metres [B, 33, 3]; score [B];
        masks [B, 1, S, right - left]."""
        flat, score, mask, world = self.network(canvas, {MASK: (left, right)}, (left, right))
        points = flat.unflatten(1, (-1, 5))[:, :POINTS].clone()
        points[..., :3] /= self.size
        return points, world.unflatten(1, (-1, 3))[:, :POINTS].clone(), score[:, 0], mask.sigmoid()

    def _box(self, photo: Pixels) -> tuple[int, int, int, int]:
        """Where the photo lies in the square: top, left, height, width."""
        height, width = photo.shape[:2]
        scale = self.size / SIDE / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        return (self.size - rows) // 2, (self.size - columns) // 2, rows, columns

    def _draw(self, square: Tensor, photo: Pixels, box: tuple[int, int, int, int]) -> None:
        """The photo in [0, 1] into its box of a square [3, S, S], and its edge repeated around it."""
        top, left, rows, columns = box
        bottom, right = top + rows, left + columns
        square[:, top:bottom, left:right] = unit_from_levels(resized(pillow().fromarray(photo), (rows, columns))).permute(2, 0, 1)
        square[:, top:bottom, :left] = square[:, top:bottom, left : left + 1]
        square[:, top:bottom, right:] = square[:, top:bottom, right - 1 : right]
        square[:, :top] = square[:, top : top + 1]
        square[:, bottom:] = square[:, bottom - 1 : bottom]

    def _masks(
        self, masks: Tensor, first: int, boxes: Sequence[tuple[int, int, int, int]], photos: Sequence[Pixels]
    ) -> list[Tensor]:
        """Each photo's part of the masks, which begin at column `first`."""
        cut = []
        for mask, (top, left, rows, columns), photo in zip(masks, boxes, photos, strict=True):
            size = (MASK_HEIGHT, max(1, round(MASK_HEIGHT * photo.shape[1] / photo.shape[0])))
            part = mask[None, :, top : top + rows, left - first : left - first + columns]
            cut.append(unit_to_levels(F.interpolate(part, size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)).cpu())
        return cut


def _outputs(model: TfliteModel) -> tuple[int, int, int, int]:
    """Tensor numbers of the landmarks, the score, the mask and the landmarks in metres, told by their shapes."""
    found: dict[tuple[int, ...], int] = {model.shapes[i]: i for i in model.outputs}
    size = model.shapes[model.inputs[0]][1] if model.inputs else 0
    wanted = ((1, 195), (1, 1), (1, size, size, 1), (1, 117))
    if any(shape not in found for shape in wanted):
        raise InputError(
            f"expected BlazePose's landmark model with outputs of shapes {', '.join(map(str, wanted))}, "
            f"got {', '.join(map(str, found))}"
        )
    landmarks, score, mask, metres = (found[shape] for shape in wanted)
    return landmarks, score, mask, metres
