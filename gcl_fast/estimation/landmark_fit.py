"""Fitting the body's angles and a camera to landmarks: Adam over a batch of people at once, no vertices in the loop.

The camera hangs above the person and looks level, as a shift lens does: what lies farther appears higher. `elevation` is the
slope to it, metres of height a metre of distance. Without it a person seen from above seems to lean.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.estimation.landmarks import Landmarks
from gcl_fast.estimation.posable_body import LANDMARKS, PosableBody, taken
from gcl_fast.estimation.posture import ARMS, limits, number, usual
from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

DISTANCE = 8.0  # metres to the person: perspective is weak, and this is usual for surveillance
ELEVATION = (0.3, 0.13)  # usual, and its spread
SHAPE = ((0.0, 0.83), (-0.09, 0.59), (0.07, 0.49), (-0.03, 0.5))  # the same of `posable_body.DIRECTIONS`
# How BlazePose's world shows directions: from, to, the part of their depth that is seen, the spread of what is seen, whether it
# is pitched. Legs and trunk are: z grows with y by PITCH, and by PITCH_UP times the elevation. These and ERRORS were set
# together with the prior, by gradient, for bodies that sit well when turned; see docs/body_fit.md.
LIMBS = (
    ("shoulder", "elbow", 0.54, 0.155, False),
    ("elbow", "wrist", 0.7, 0.25, False),
    ("hip", "knee", 0.34, 0.163, True),
    ("knee", "ankle", 0.353, 0.2, True),
)
ACROSS = (("shoulder", 0.82, 0.087), ("hip", 0.91, 0.141))  # from right to left
TRUNK = (0.646, 0.145)
PITCH, PITCH_UP = 0.146, 0.095
# Arms begin half bent before the body, degrees: from a straight one behind it descent does not find a hand that is held up
ARMS_START = {"arm": -10.0, "elbow": 20.0}
PACES = (1.0, 1.0, 1 / 3, 1 / 3, 1.0)  # of angles, shape, camera, elevation, gait
# Usual errors of landmarks, in FitSettings.pixel
ERRORS = {
    "nose": 1.23,
    "ear": 0.88,
    "shoulder": 0.96,
    "elbow": 1.14,
    "wrist": 0.83,
    "hip": 1.09,
    "knee": 0.8,
    "ankle": 0.81,
    "heel": 0.77,
    "toes": 1.19,
}


@dataclass(frozen=True)
class FitSettings:
    """How the fit goes.

    steps, rate  of Adam, radians; the second half slows down to 0
    pixel        usual error of a landmark in image heights, times its ERRORS
    prior        how much the usual posture counts; above 1, since the errors of landmarks go together
    phases       of a stride that are tried at the start
    stride       usual length of strides and its spread, see `walking`
    arm_tail     from how far off the usual (squared, in spreads) an arm counts only linearly: hands hold things
    """

    steps: int = 60
    rate: float = 0.06
    pixel: float = 0.016
    prior: float = 1.8
    phases: int = 4
    stride: tuple[float, float] = (0.89, 0.375)
    arm_tail: float = 1.1


@dataclass(frozen=True)
class Fit:
    """What is fitted.

    angles     [B, A] radians, see `posture.ANGLES`
    shape      [B, S], see `PosableBody.shaped`
    camera     [B, 3] log of the scale (image heights a metre), place of the body's origin in image heights from the middle
    elevation  [B]
    """

    angles: Tensor
    shape: Tensor
    camera: Tensor
    elevation: Tensor


def seen(points: Tensor, camera: Tensor, elevation: Tensor) -> Tensor:
    """Body points [B, N, 3] in metres -> where the camera sees them [B, N, 2], image heights from the image's middle."""
    shrink = DISTANCE / (DISTANCE + points[..., 2])  # [B, N]
    scale, height = camera[:, :1].exp(), elevation[:, None] * DISTANCE
    x = camera[:, 1:2] + scale * points[..., 0] * shrink
    y = camera[:, 2:3] + scale * ((points[..., 1] + height) * shrink - height)
    return torch.stack((x, y), -1)


def perspective(fit: Fit) -> Tensor:
    """The same camera as `ops.camera.project` takes it: [B, 6] (tx, ty, tz, f, cx, cy)."""
    scale, zero = fit.camera[:, 0].exp(), torch.zeros_like(fit.elevation)
    down = fit.elevation * DISTANCE
    return torch.stack((zero, down, zero + DISTANCE, scale * DISTANCE, fit.camera[:, 1], fit.camera[:, 2] - scale * down), 1)


def fit_landmarks(body: PosableBody, observed: Landmarks, settings: FitSettings | None = None) -> tuple[Fit, Tensor]:
    """The likeliest posture, shape and camera of each person, and [B] how far landmarks lie off, in image heights.

    Deterministic; people do not influence each other.
    """
    settings = settings or FitSettings()
    energy = _Energy(body, observed, settings)
    with torch.no_grad():
        first, gait = start(body, observed, energy)
    parts = (first.angles, first.shape, first.camera, first.elevation[:, None], gait)
    widths = [part.shape[1] for part in parts]
    # Adam's steps are as long for every unknown: scale and place, and the elevation, go at a third of the pace
    rates = torch.cat([torch.full((width,), pace) for width, pace in zip(widths, PACES, strict=True)]).to(gait.device)
    with torch.enable_grad():
        unknowns = (torch.cat(parts, 1) / rates).requires_grad_()
        optimizer = torch.optim.Adam([unknowns], lr=settings.rate, betas=(0.9, 0.98), fused=True)
        for step in range(settings.steps):
            optimizer.param_groups[0]["lr"] = settings.rate * min(1.0, 2 * (1 - step / settings.steps))
            optimizer.zero_grad()
            energy(*_split(unknowns * rates, widths)).sum().backward()
            optimizer.step()
    fit, _ = _split(unknowns.detach() * rates, widths)
    return fit, energy.off(fit)


def _split(unknowns: Tensor, widths: list[int]) -> tuple[Fit, Tensor]:
    angles, shape, camera, elevation, gait = unknowns.split(widths, 1)
    return Fit(angles, shape, camera, elevation[:, 0]), gait


def start(body: PosableBody, observed: Landmarks, energy: _Energy) -> tuple[Fit, Tensor]:
    """People turned and placed as the landmarks say, in the likeliest of some phases of a stride; and their points of the
    gait plane [B, 2]."""
    batch, device, count = len(observed.points), observed.points.device, energy.settings.phases
    phases = torch.arange(count, device=device) * (2 * math.pi / count)
    gaits = energy.settings.stride[0] * torch.stack((phases.cos(), phases.sin()), 1)
    angles = usual_angles(gaits, energy.coefficients).repeat(batch, 1)  # [B P, A]
    shoulder, hip = _landmark("shoulder"), _landmark("hip")
    across = (observed.world[:, [shoulder, hip]] - observed.world[:, [shoulder + 1, hip + 1]]).sum(1)  # left minus right
    angles[:, number("yaw")] = torch.atan2(-across[:, 2], across[:, 0]).repeat_interleave(count)
    shape = energy.shape.repeat(len(angles), 1)
    place, turn, _ = body.skeleton(angles, shape)
    many = energy.repeated(count)
    camera = _placed(body.landmark_positions(place, turn)[..., :2], many.points, many.weight)
    tried = Fit(angles, shape, camera, torch.full((len(angles),), ELEVATION[0], device=device))
    best = many(tried, gaits.repeat(batch, 1)).unflatten(0, (batch, count)).argmin(1)
    rows = best + torch.arange(batch, device=device) * count
    first = angles[rows]
    for name, degrees in ARMS_START.items():
        first[:, [number(f"{name}.{side}") for side in "LR"]] = math.radians(degrees)
    return Fit(first, shape[rows], camera[rows], tried.elevation[rows]), gaits[best]


def _placed(model: Tensor, points: Tensor, visible: Tensor) -> Tensor:
    """The camera [B, 3] that puts points of the body [B, L, 2] where they are seen, as near as scale and place can."""
    weight = visible[..., None] + 1e-3
    weight = weight / weight.sum(1, keepdim=True)
    centres = [(p * weight).sum(1, keepdim=True) for p in (model, points)]  # [B, 1, 2]
    spreads = [
        ((p - c).square() * weight).sum((1, 2)).clamp(min=1e-6).sqrt() for p, c in zip((model, points), centres, strict=True)
    ]
    scale = spreads[1] / spreads[0]
    middle = centres[1][:, 0] - scale[:, None] * centres[0][:, 0]
    return torch.cat((scale.log()[:, None], middle), 1)


class _Energy:
    """How badly a fit explains the landmarks, [B]; lower is better."""

    def __init__(self, body: PosableBody, observed: Landmarks, settings: FitSettings) -> None:
        self.body, self.settings = body, settings
        device = observed.points.device
        self.coefficients, self.spreads = COEFFICIENTS.to(device), usual()[1].to(device)
        self.low, self.high = (bound.to(device) for bound in limits())
        self.points, self.weight = observed.points[:, body.landmarks], observed.visible[:, body.landmarks]
        rows = [(a, b, s, part, spread, pitched) for a, b, part, spread, pitched in LIMBS for s in (0, 1)]
        pairs = [(_landmark(a) + s, _landmark(b) + s) for a, b, s, *_ in rows]
        pairs += [(_landmark(name) + 1, _landmark(name)) for name, *_ in ACROSS]
        parts = [row[3] for row in rows] + [part for _, part, _ in ACROSS]
        spreads = [row[4] for row in rows] + [spread for *_, spread in ACROSS]
        pitched = [float(row[5]) for row in rows] + [0.0] * len(ACROSS)
        pixels = [settings.pixel * ERRORS[name] for name, (first, *_) in LANDMARKS.items() for _ in range(2 if first else 1)]
        self.pixel, (self.shape, self.shapes) = torch.tensor(pixels, device=device), torch.tensor(SHAPE, device=device).T
        self.part, self.spread, self.pitched = (torch.tensor(v, device=device) for v in (parts, spreads, pitched))
        self.pairs = torch.tensor([[body.landmarks.index(n) for n in pair] for pair in pairs], device=device).T.contiguous()
        shoulder, hip = (body.landmarks.index(_landmark(name)) for name in ("shoulder", "hip"))
        self.ends = [torch.tensor([left, left + 1], device=device) for left in (shoulder, hip)]
        world = observed.world[:, body.landmarks]
        self.depth, self.trunk = self._directions(world)[..., 2], self._trunk(world)[:, 2]
        self.limb_weight = torch.minimum(*(self.weight[:, row] for row in self.pairs))
        self.arms = [torch.tensor(arm, device=device) for arm in ARMS]

    def _directions(self, points: Tensor) -> Tensor:  # [B, P, 3]
        first, second = (taken(points, row) for row in self.pairs)
        return F.normalize(second - first, dim=-1)

    def _trunk(self, points: Tensor) -> Tensor:
        """From the middle of the hips to that of the shoulders, [B, 3]."""
        shoulders, hips = (taken(points, pair).mean(1) for pair in self.ends)
        return F.normalize(shoulders - hips, dim=-1)

    def off(self, fit: Fit) -> Tensor:
        """[B] mean distance of landmarks from where they should be, image heights, by visibility."""
        place, turn, _ = self.body.skeleton(fit.angles, fit.shape)
        away = (seen(self.body.landmark_positions(place, turn), fit.camera, fit.elevation) - self.points).norm(dim=-1)
        return (away * self.weight).sum(1) / self.weight.sum(1).clamp(min=1e-3)

    def repeated(self, times: int) -> _Energy:
        """The same with each person so many times in a row."""
        many = copy(self)
        for name in ("points", "weight", "depth", "trunk", "limb_weight"):
            setattr(many, name, getattr(self, name).repeat_interleave(times, 0))
        return many

    def __call__(self, fit: Fit, gait: Tensor) -> Tensor:
        place, turn, _ = self.body.skeleton(fit.angles, fit.shape)
        points = self.body.landmark_positions(place, turn)
        away = (seen(points, fit.camera, fit.elevation) - self.points).square().sum(-1)
        total = (self.weight * _linear_far(away / self.pixel.square())).sum(1)
        pitch = PITCH + PITCH_UP * fit.elevation[:, None]
        limbs = self._directions(points)
        expected = self.part * limbs[..., 2] + self.pitched * pitch * limbs[..., 1]
        total = total + (self.limb_weight * _linear_far(((expected - self.depth) / self.spread).square())).sum(1)
        trunk = self._trunk(points)
        total = total + ((TRUNK[0] * trunk[:, 2] + pitch[:, 0] * trunk[:, 1] - self.trunk) / TRUNK[1]).square()
        return total + self._unusual(fit, gait)

    def _unusual(self, fit: Fit, gait: Tensor) -> Tensor:
        settings = self.settings
        away = ((fit.angles - usual_angles(gait, self.coefficients)) / self.spreads).square()
        posture = away[:, : ARMS[0][0]].sum(1)
        for arm in self.arms:
            posture = posture + settings.arm_tail * _linear_far(2 * taken(away, arm).sum(1) / settings.arm_tail)
        outside = (fit.angles - self.high).clamp(min=0) + (self.low - fit.angles).clamp(min=0)
        camera = ((fit.elevation - ELEVATION[0]) / ELEVATION[1]).square()
        shape = ((fit.shape - self.shape) / self.shapes).square().sum(1)
        length = (gait.square().sum(1) + 1e-4).sqrt()
        stride = ((length - settings.stride[0]) / settings.stride[1]).square()
        return settings.prior * posture + (outside / 0.05).square().sum(1) + camera + shape + stride


def _linear_far(square: Tensor) -> Tensor:
    """Squared errors, growing only linearly where they are large."""
    return 2 * ((1 + square / 2).sqrt() - 1)


def _landmark(name: str) -> int:
    return LANDMARKS[name][0]
