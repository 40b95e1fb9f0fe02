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

    mean, spread  of people who stand and walk: own judgement, moved towards what served on three synthetic worlds
                  (docs/body_fit.md) and rounded; where `walking` says how an angle goes through a stride, the
                  spread is about its course. The elbow's is wide: bags, telephones, pockets
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
    Angle("tilt", "root", "z", 0, 2),
    Angle("lean", "root", "x", -2, 2.5),
    Angle("yaw", "root", "y", 0, 1000),
    Angle("twist", "spine03", "y", 0, 5.5),
    Angle("bend", "spine03", "x", 0, 3.5),
    Angle("side", "spine03", "z", 0, 2),
    Angle("nod", "neck02", "x", 1, 9),
    Angle("look", "neck02", "y", 0, 15),
    *_sides("thigh_out", "upperleg01", "z", 4, 2, -25, 30),
    *_sides("thigh_turn", "upperleg01", "y", -2, 4.5, -30, 30),
    *_sides("thigh", "upperleg01", "x", -5, 4.5, -80, 35),
    *_sides("knee", "lowerleg01", "x", 18, 12, 0, 110),
    *_sides("foot", "foot", "x", -5, 10, -35, 35),
    *_sides("arm_turn", "upperarm01", "along", 5, 14, -60, 60),
    *_sides("arm_in", "upperarm01", "z", 32, 5.5, -60, 50),
    *_sides("arm", "upperarm01", "x", 3, 10, -110, 45),
    *_sides("elbow", "lowerarm01", "hinge", -20, 34, -42, 110),
)
NAMES = tuple(angle.name for angle in ANGLES)
_ARM = ("arm_turn", "arm_in", "arm", "elbow")
ARMS = tuple([NAMES.index(f"{part}.{side}") for part in _ARM] for side in "LR")  # numbers of each arm's angles, the last ones


def number(name: str) -> int:
    """The place of an angle in ANGLES."""
    return NAMES.index(name)


def usual() -> tuple[Tensor, Tensor]:
    """Mean and spread [A] each, radians."""
    return torch.tensor([a.mean for a in ANGLES]).deg2rad(), torch.tensor([a.spread for a in ANGLES]).deg2rad()


def limits() -> tuple[Tensor, Tensor]:
    """Lowest and highest angles [A] each, radians."""
    return torch.tensor([a.low for a in ANGLES]).deg2rad(), torch.tensor([a.high for a in ANGLES]).deg2rad()
