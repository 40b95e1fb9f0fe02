"""How joint angles go together in people who stand and walk: a point in a plane says how far the stride is and where in it.

The point is (r cos t, r sin t): t the phase of the left leg's cycle, 0 where its heel strikes, and r the length of the stride: 0
stands, 1 walks at an ordinary pace. Between them angles grow as a cycle's harmonics do: the first with r, mean and second with r
squared.

The curves are round figures of the shape that textbooks of human gait show (Winter, "The Biomechanics and Motor Control of Human
Gait", 1991: hip, knee, ankle; Perry and Burnfield, "Gait Analysis", 2010: arms, elbows, pelvis against shoulders); they were not
read off their tables. Each curve was then stretched and shifted as a whole, as served on three synthetic worlds
(docs/body_fit.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gcl_fast.estimation.posture import ANGLES, number

# Degrees at each tenth of the cycle of the leg of the same side, and where somebody stands. Signs as in `posture.ANGLES`:
# thighs and arms are negative forwards, feet positive with the toes down; the elbow's zero is a bend of 42 degrees.
CYCLES: dict[str, tuple[float, tuple[float, ...]]] = {
    "thigh": (-2, (-21, -18, -10, 1, 10, 16, 14, -2, -17, -22)),
    "knee": (10, (8, 22, 23, 16, 12, 17, 42, 70, 59, 24)),
    "foot": (-2, (1, 5, -2, -6, -8, -3, 19, 13, 1, 0)),
    "arm": (5, (21, 20, 15, 7, -3, -8, -9, -5, 4, 16)),
    "elbow": (-24, (-26, -26, -23, -19, -12, -7, -6, -9, -17, -23)),
}
TWIST = -12.0  # of the shoulders against the pelvis: the side whose leg is in front has its shoulder behind


def _coefficients() -> Tensor:
    """[6, A] radians, by which 1, x, y, x x, y y, x y count; of angles that do not take part only 1."""
    table = torch.zeros(6, len(ANGLES), dtype=torch.float64)
    table[0] = torch.tensor([angle.mean for angle in ANGLES])
    for name, (still, curve) in CYCLES.items():
        values = torch.tensor(curve, dtype=torch.float64)
        phase = 2 * math.pi * torch.arange(len(curve), dtype=torch.float64) / len(curve)
        a1, b1, a2, b2 = (2 * (values * wave).mean() for wave in (phase.cos(), phase.sin(), (2 * phase).cos(), (2 * phase).sin()))
        rise = values.mean() - still
        for side, sign in (("L", 1), ("R", -1)):
            row = torch.stack((torch.tensor(float(still)), sign * a1, sign * b1, rise + a2, rise - a2, 2 * b2))
            table[:, number(f"{name}.{side}")] = row
    table[1, number("twist")] = TWIST
    return table.deg2rad().float()


def usual_angles(gait: Tensor, coefficients: Tensor) -> Tensor:
    """Points of the gait plane [B, 2] -> angles [B, A]."""
    x, y = gait.unbind(1)
    return torch.stack((torch.ones_like(x), x, y, x * x, y * y, x * y), 1) @ coefficients


COEFFICIENTS = _coefficients()
