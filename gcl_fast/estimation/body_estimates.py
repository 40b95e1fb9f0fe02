"""From landmarks to bodies, and what speaks against each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.estimation.landmark_fit import Fit, FitSettings, fit_landmarks, perspective
from gcl_fast.estimation.landmarks import EstimatedBodies, Landmarks
from gcl_fast.estimation.posable_body import LANDMARKS, posable_body
from gcl_fast.estimation.posture import number

NOBODY = "nobody seen"
SEEN = 0.5  # score from which somebody is there
OFF = 0.05  # mean distance of the landmarks from the fitted body, as a share of their height; on foot it is 0.02 to 0.035
HIDDEN = 0.3  # visibility of the legs
SMALL = 0.55  # of the photo's height
BENT = -50.0  # degrees: thighs of somebody who sits or cycles
# From the hips down to the lower ankle, in lengths of the trunk in the picture: of 32 photos of Market-1501 0.53 to 0.74 on a
# bicycle, 0.93 and more on foot. The fitted body does not tell: the usual posture keeps its thighs down.
SHORT = 0.8


def bodies_from_landmarks(
    landmarks: Landmarks, shapes: Sequence[tuple[int, int]], settings: FitSettings | None = None
) -> EstimatedBodies:
    """Anny bodies fitted to landmarks of photos of the given (height, width)."""
    body = posable_body(str(landmarks.points.device))
    fit, off = fit_landmarks(body, landmarks, settings)
    with torch.no_grad():
        place, turn, rest = body.skeleton(fit.angles, fit.shape)
        vertices = body.vertices(place, turn, rest, fit.shape)
    absent = landmarks.score < SEEN
    doubts = _doubts(landmarks, fit, off, shapes)
    return EstimatedBodies(vertices, body.faces, perspective(fit), landmarks.masks, doubts, absent)


def _doubts(landmarks: Landmarks, fit: Fit, off: Tensor, shapes: Sequence[tuple[int, int]]) -> list[str]:
    """The first reason that holds, "" where none does."""
    points = landmarks.points
    half = torch.tensor([[w / h / 2, 0.5] for h, w in shapes], device=points.device)[:, None]  # [B, 1, 2]
    ends = [LANDMARKS["nose"][0], *(LANDMARKS["ankle"][0] + side for side in (0, 1))]
    legs = [LANDMARKS[name][0] + side for name in ("knee", "ankle") for side in (0, 1)]
    outside = (points[:, ends].abs() > half + 0.01).any(2).any(1)
    hidden = landmarks.visible[:, legs].mean(1) < HIDDEN
    tall = points[..., 1].amax(1) - points[..., 1].amin(1)
    shoulders, hips = (points[:, LANDMARKS[name][0] : LANDMARKS[name][0] + 2].mean(1) for name in ("shoulder", "hip"))
    trunk = (hips - shoulders).norm(dim=1)
    reach = points[:, ends[1:], 1].amax(1) - hips[:, 1]
    thighs = torch.stack([fit.angles[:, number(f"thigh.{side}")] for side in "LR"], 1).rad2deg()
    reasons = (
        (landmarks.score < SEEN, NOBODY),
        (outside, "cut off"),
        ((reach < SHORT * trunk) | (thighs < BENT).any(1), "sitting or cycling"),
        (hidden, "legs hidden"),
        (tall < SMALL, "small in the photo"),
        (off > OFF * tall, "body does not fit the landmarks"),
    )
    words = [""] * len(points)
    for holds, reason in reasons:
        for row in holds.nonzero().flatten().tolist():
            words[row] = words[row] or reason
    return words
