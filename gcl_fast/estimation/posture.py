"""The joint angles that are fitted to a photo, and how likely they are for somebody who stands or walks.

Axes as in `meshes.anny_body`: x right, y down, z forward, of each bone in the rest pose (arms half lowered, elbows a little
bent).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Angle:
    """One angle in degrees: bone, axis (x, y, z, `along` the bone, or `hinge` of the elbow), and what is usual.

    mean, spread  of people who stand and walk; own judgement from how people walk, not fitted to any data
    low, high     what a joint allows
    """

    name: str
    bone: str
    axis: str
    mean: float
    spread: float
    low: float = -180.0
    high: float = 180.0


def _sides(name: str, bone: str, axis: str, mean: float, spread: float, low: float, high: float) -> list[Angle]:
    """The same joint left and right; turns about y and z are mirrored."""
    mirrored = axis in ("y", "z", "along")
    right = (-mean, spread, -high, -low) if mirrored else (mean, spread, low, high)
    return [Angle(f"{name}.L", f"{bone}.L", axis, mean, spread, low, high), Angle(f"{name}.R", f"{bone}.R", axis, *right)]


# In the order in which turns are applied: of one bone the last stands outermost.
ANGLES: tuple[Angle, ...] = (
    Angle("tilt", "root", "z", 0, 2.5),
    Angle("lean", "root", "x", -2, 4),
    Angle("yaw", "root", "y", 0, 1000),
    Angle("twist", "spine03", "y", 0, 6),
    Angle("bend", "spine03", "x", 0, 4),
    Angle("side", "spine03", "z", 0, 3),
    Angle("nod", "neck02", "x", 0, 10),
    Angle("look", "neck02", "y", 0, 15),
    *_sides("thigh_out", "upperleg01", "z", 4, 3, -25, 30),
    *_sides("thigh_turn", "upperleg01", "y", -4, 6, -30, 30),
    *_sides("thigh", "upperleg01", "x", -5, 16, -80, 35),
    *_sides("knee", "lowerleg01", "x", 18, 16, 0, 110),
    *_sides("foot", "foot", "x", -5, 10, -35, 35),
    *_sides("arm_turn", "upperarm01", "along", 0, 15, -60, 60),
    *_sides("arm_in", "upperarm01", "z", 32, 6, -60, 50),
    *_sides("arm", "upperarm01", "x", 3, 12, -110, 45),
    *_sides("elbow", "lowerarm01", "hinge", -20, 22, -42, 110),
)
NAMES = tuple(angle.name for angle in ANGLES)
# Legs go against each other, an arm goes with the leg of the other side.
CORRELATIONS = {
    ("thigh.L", "thigh.R"): -0.9,
    ("arm.L", "arm.R"): -0.75,
    ("thigh.L", "arm.R"): 0.75,
    ("thigh.R", "arm.L"): 0.75,
    ("thigh.L", "arm.L"): -0.75,
    ("thigh.R", "arm.R"): -0.75,
}


def number(name: str) -> int:
    """The place of an angle in ANGLES."""
    return NAMES.index(name)


def usual() -> tuple[Tensor, Tensor]:
    """Mean [A] and precision matrix [A, A] of the angles, radians."""
    spread = torch.tensor([a.spread for a in ANGLES], dtype=torch.float64).deg2rad()
    correlation = torch.eye(len(ANGLES), dtype=torch.float64)
    for (first, second), value in CORRELATIONS.items():
        i, j = number(first), number(second)
        correlation[i, j] = correlation[j, i] = value
    covariance = spread[:, None] * correlation * spread
    mean = torch.tensor([a.mean for a in ANGLES], dtype=torch.float64).deg2rad()
    return mean.float(), torch.linalg.inv(covariance).float()


def limits() -> tuple[Tensor, Tensor]:
    """Lowest and highest angles [A] each, radians."""
    return torch.tensor([a.low for a in ANGLES]).deg2rad(), torch.tensor([a.high for a in ANGLES]).deg2rad()
