"""Which of several people in a picture is the one that it was cut out for."""

from __future__ import annotations

import numpy as np
import torch

from gcl_fast.meshes.importing.estimates import Estimate
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.ops.camera import project

MIDDLE = (0.25, 0.75)  # of width and height


def middle_covered(person: Estimate, mesh: Mesh, size: tuple[int, int]) -> tuple[float, float, float]:
    """To be compared: the share of the picture's middle that a person's box covers, how near their middles are, the box's area.

    Arguments:
        person: its box is the detector's where the file has one, else that of the projected body.
        mesh: the body as it appears in the picture.
        size: (height, width) of the picture in pixels.
    """
    left, top, right, bottom = _bounds(person, mesh, person.size or size)
    low, high = MIDDLE
    across, down = (max(0.0, min(b, high) - max(a, low)) for a, b in ((left, right), (top, bottom)))
    distance = float(np.hypot((left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5))
    return round(across * down / (high - low) ** 2, 6), -distance, (right - left) * (bottom - top)


def _bounds(person: Estimate, mesh: Mesh, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in [0, 1] of the picture."""
    if person.bounds is not None:
        left, top, right, bottom = person.bounds
        return left / size[1], top / size[0], right / size[1], bottom / size[0]
    points = project(torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.camera), size)[:, :2].numpy() / (size[1], size[0])
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom
