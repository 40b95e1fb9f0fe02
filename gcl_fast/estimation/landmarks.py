"""What estimators say of a batch of photos, and the interface that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gcl_fast.images import Pixels


@dataclass(frozen=True)
class Landmarks:
    """The 33 landmarks of BlazePose for each of B photos, in its order.

    points   [B, 33, 2] x right, y down, in image heights from the photo's middle
    world    [B, 33, 3] metres from the hips, x right, y down, z away
    visible  [B, 33] in [0, 1]
    score    [B] in [0, 1], that somebody is there
    masks    one [h, w] a photo, uint8 0 to 255, the person over the whole photo; None where the estimator gives none
    """

    points: Tensor
    world: Tensor
    visible: Tensor
    score: Tensor
    masks: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class EstimatedBodies:
    """Bodies of B photos.

    vertices  [B, V, 3] metres, x right, y down, z away from the camera
    faces     [F, 3] int32
    cameras   [B, 3] or [B, 6], see `gcl_fast.ops.camera.project`, for the photos as they are (not stretched)
    masks     one [h, w] a photo, uint8, the person over the whole photo; None where the estimator gives none
    doubts    one word or phrase a photo why its body may be wrong, "" where nothing speaks against it
    absent    [B] bool: nobody is there, the body means nothing
    """

    vertices: Tensor
    faces: Tensor
    cameras: Tensor
    masks: Sequence[Tensor] | None
    doubts: Sequence[str]
    absent: Tensor


def joined(parts: Sequence[Landmarks]) -> Landmarks:
    """Those of several batches of photos as of one."""
    points, world, visible, score = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("points", "world", "visible", "score")
    )
    masks = [mask for part in parts for mask in part.masks or ()]
    return Landmarks(points, world, visible, score, masks if all(part.masks is not None for part in parts) else None)


class Estimator(Protocol):
    """Photos of one person each -> landmarks, to which a body is then fitted, or bodies."""

    def estimate(self, photos: Sequence[Pixels]) -> Landmarks | EstimatedBodies:
        """photos: uint8 [h, w, 3], RGB, of any sizes."""
        ...
