"""The schedule, who is seen where and when: people walk from camera to camera along a graph with mean travel times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl_fast.synthetic.cameras import Camera
from gcl_fast.synthetic.gait import HANDS
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_config import WorldConfig

WALKING_SPEED = 1.25  # metres a second
STEP_CYCLES = 0.92  # gait cycles a second


@dataclass(frozen=True)
class Shot:
    """One image to be taken.

    person, camera  numbers; frame  the camera's frame number; index  counts the person's images
    yaw             heading in degrees, as in cameras.Camera.walk_yaw
    place           (x, z) of the person on the ground in the camera's metres
    phase           of the gait cycle, in turns; stands  no stride; hands  one of gait.HANDS
    stops           exposure of this visit
    stretch         metres along the camera's street: which piece of the background is behind
    """

    person: int
    camera: int
    frame: int
    index: int
    yaw: float
    place: tuple[float, float]
    phase: float
    stands: bool
    hands: str
    stops: float
    stretch: float


def travel_frames(seed: int, count: int, config: WorldConfig) -> np.ndarray:
    """Mean travel times in frames between cameras that stand in a plane [count, count]; the diagonal is the way back."""
    rng = stream(seed, "map")
    spots = rng.uniform(0, 130, (count, 2))  # metres
    metres = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + 25
    return metres / WALKING_SPEED * config.frames_per_second


def walk(
    seed: int, person: int, images: int, cameras: list[Camera], travel: np.ndarray, span: int, config: WorldConfig
) -> list[Shot]:
    """All shots of one person: a walk over most cameras that starts within `span` frames, two images or more a visit.

    `images` below 2 gives one visit; with enough images every person is seen by at least two cameras.
    """
    rng = stream(seed, "walk", person)
    most = len(cameras) if images >= 2 * len(cameras) else max(1, images // 2)
    seen = int(rng.integers(max(1, min(most, (most + 2) // 2)), most + 1)) if most > 2 else most
    route = [int(rng.integers(len(cameras)))]
    while len(route) < seen:  # the next camera is likely a near one
        left = [c for c in range(len(cameras)) if c not in route]
        near = np.exp(-travel[route[-1], left] / 1500)
        route.append(int(rng.choice(left, p=near / near.sum())))
    counts = np.full(seen, min(2, images))
    if images > counts.sum():
        counts += rng.multinomial(images - counts.sum(), np.full(seen, 1 / seen))
    frame = int(rng.integers(1, max(2, span)))
    shots: list[Shot] = []
    for stop, (number, count) in enumerate(zip(route, counts, strict=True)):
        if stop:
            frame += int(travel[route[stop - 1], number] * np.exp(rng.normal(0, 0.2)))
        visit = _visit(rng, person, cameras[number], frame, int(count), len(shots), config)
        shots += visit
        frame = visit[-1].frame
    return shots


def _visit(
    rng: np.random.Generator, person: int, camera: Camera, frame: int, count: int, first: int, config: WorldConfig
) -> list[Shot]:
    yaw = camera.walk_yaw + (180 if rng.random() < config.reverse_probability else 0) + rng.normal(0, config.yaw_spread)
    stands = bool(rng.random() < config.standing_probability)
    hands = str(rng.choice(HANDS, p=(0.35, 0.35, 0.3, 0.0) if stands else (0.74, 0.1, 0.1, 0.06)))
    stops = float(rng.normal(0, config.exposure_jitter))
    phase, stretch = rng.uniform(), float(rng.uniform(0, 60))
    steps = np.concatenate(([0], np.cumsum(rng.integers(4, 26, count - 1))))  # frames since the first image
    seconds = (steps - steps[-1] / 2) / config.frames_per_second
    middle = rng.uniform(*camera.distance)
    start = np.array((rng.uniform(-0.16, 0.16) * middle, middle))
    heading = np.deg2rad(yaw)
    shots = []
    for i in range(count):
        moved = 0.0 if stands else WALKING_SPEED * seconds[i]
        x, z = start + moved * np.array((-np.sin(heading), -np.cos(heading)))
        z = max(float(z), 3.0)
        shots.append(
            Shot(
                person=person,
                camera=camera.number,
                frame=frame + int(steps[i]),
                index=first + i,
                yaw=float((yaw + rng.normal(0, 25 if stands else 7)) % 360),
                place=(float(np.clip(x, -0.25 * z, 0.25 * z)), z),
                phase=float((phase + STEP_CYCLES * seconds[i]) % 1),
                stands=stands,
                hands=hands,
                stops=stops + float(rng.normal(0, 0.04)),
                stretch=stretch,
            )
        )
    return shots
