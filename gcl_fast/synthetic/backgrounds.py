"""The place behind the people: a ground and a wall in true perspective, coloured by rules, different for every camera."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from gcl_fast.synthetic.cameras import GROUNDS, WALLS, Camera
from gcl_fast.synthetic.seeds import stream

NOISE = 256  # size of the tiling noise table
SECTION = 7.0  # metres of street with one kind of ground and wall


@functools.lru_cache(maxsize=1)
def _noise_table() -> np.ndarray:
    """Smooth noise that tiles, [NOISE, NOISE] in about [-1, 1]: white noise shaped to 1/f by a Fourier transform."""
    white = stream(0, "noise table").standard_normal((NOISE, NOISE))
    fy, fx = np.fft.fftfreq(NOISE)[:, None], np.fft.fftfreq(NOISE)[None]
    shaped = np.fft.ifft2(np.fft.fft2(white) / np.maximum(np.hypot(fx, fy), 1.5 / NOISE) ** 1.2).real
    return (shaped / (2 * shaped.std())).astype(np.float32)


def noise(seed: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Noise at (u, v) in table cells, nearest cell; any real numbers. The seed says where in the one table (0, 0) lies."""
    row, column = (seed * 7919) % NOISE, (seed * 104729 // NOISE) % NOISE
    return _noise_table()[(np.floor(v).astype(np.int64) + row) % NOISE, (np.floor(u).astype(np.int64) + column) % NOISE]


def background(
    camera: Camera,
    lens: tuple[float, float, float],
    place: tuple[float, float],
    stretch: float,
    size: tuple[int, int],
    shadow: bool,
) -> np.ndarray:
    """What the camera sees in one crop with nobody in it, linear light [H, W, 3].

    lens: (f, cx, cy) of the crop in image heights; place: the person's ground position (x, z) in the camera's metres.
    stretch: metres along the street where the camera's x = 0 lies, for a place that is seldom twice the same.
    shadow: with the soft dark spot under a person at `place`.
    """
    height, width = size
    focal, cx, cy = lens
    row = ((np.arange(height) + 0.5 - height / 2) / height - cy) / focal  # slope of the view ray, down
    column = ((np.arange(width) + 0.5 - width / 2) / height - cx) / focal
    slope, side = np.meshgrid(row, column, indexing="ij")
    wall_z = place[1] + camera.wall_distance
    with np.errstate(divide="ignore"):
        ground_z = np.where(slope > 0, camera.height / np.maximum(slope, 1e-6), np.inf)
    on_ground = ground_z < wall_z
    z = np.where(on_ground, ground_z, wall_z)
    x = side * z
    up = camera.height - slope * wall_z  # height of the wall point
    out = np.empty((height, width, 3))
    out[:] = np.where((up > camera.wall_height)[..., None], (0.62, 0.70, 0.80), 0.0)
    wall = ~on_ground & (up <= camera.wall_height)
    along = x + stretch  # metres along the street
    out[on_ground] = _by_section(_ground, camera, along[on_ground], z[on_ground]) * _lit(camera, (0.0, -1.0, 0.0))
    out[wall] = _by_section(_wall, camera, along[wall], up[wall]) * _lit(camera, (0.0, 0.0, -1.0))
    near_wall = np.clip(1 - (wall_z - z) / 0.5, 0, 1) * on_ground  # dirt and shade along the wall's foot
    out *= (1 - 0.35 * near_wall)[..., None]
    if shadow:
        spot = ((x - place[0]) / 0.34) ** 2 + ((z - place[1]) / 0.34) ** 2
        out *= (1 - 0.5 * np.exp(-spot) * on_ground)[..., None]
    return out * camera.tint


def _lit(camera: Camera, normal: tuple[float, float, float]) -> float:
    return camera.ambient + (1 - camera.ambient) * max(0.0, float(np.dot(normal, camera.light)))


@functools.lru_cache(maxsize=64)
def _palette(seed: int, what: str) -> np.ndarray:
    """Three muted colours of a place, linear light [3, 3]."""
    rng = stream(seed, "palette " + what)
    base = np.clip(rng.uniform(0.34, 0.58) + rng.normal(0, 0.025, 3) + rng.uniform(0, 0.06) * np.array((1, 0, -1)), 0.08, 0.85)
    return np.clip(np.stack((base, base * rng.uniform(0.65, 0.85), base * rng.uniform(1.1, 1.3))), 0, 1) ** 2.2


def _by_section(paint: Callable, camera: Camera, along: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Colours [P, 3] of points of a street whose ground and walls change every few metres."""
    out = np.empty((len(along), 3))
    section = np.floor(along / SECTION).astype(np.int64)
    for number in np.unique(section):
        here = section == number
        rng = stream(camera.texture_seed, "section", int(number) + 1000)
        ground = camera.ground if rng.random() < 0.6 else str(rng.choice(GROUNDS))
        wall = camera.wall if rng.random() < 0.5 else str(rng.choice(WALLS))
        seed = camera.texture_seed + int(number % 3)
        out[here] = paint(ground if paint is _ground else wall, seed, along[here], other[here])
    return out


def _ground(kind: str, seed: int, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    colors = _palette(seed, "ground")
    fine, broad = noise(seed, 40 * x, 40 * z), noise(seed + 1, 3 * x, 3 * z)
    color = colors[0] * (1 + 0.15 * fine + 0.2 * broad)[:, None]
    if kind in ("tiles", "slabs"):
        size = 0.5 if kind == "tiles" else 1.2
        tone = noise(seed + 2, 7 * np.floor(x / size), 5 * np.floor(z / size))
        joint = (np.mod(x, size) < 0.05 * size) | (np.mod(z, size) < 0.05 * size)
        color = np.where(joint[:, None], colors[1], color * (1 + 0.2 * tone)[:, None])
    elif kind == "asphalt":
        paint = (np.mod(x, 4.0) < 0.16) & (np.mod(z, 6.0) < 4.0)
        color = np.where(paint[:, None], 0.62, 0.55 * color * (1 + 0.2 * fine)[:, None])
    elif kind == "grass":
        path = np.abs(np.mod(x + 3 * noise(seed + 3, 0.6 * z, 0 * z), 9.0) - 4.5) < 1.1
        green = np.array((0.17, 0.22, 0.11)) * (1 + 0.5 * fine + 0.25 * broad)[:, None]
        color = np.where(path[:, None], color, green)
    else:
        color = color * (1 + 0.45 * noise(seed + 4, 90 * x, 90 * z))[:, None]
    return np.clip(color, 0.01, 1)


def _wall(kind: str, seed: int, x: np.ndarray, up: np.ndarray) -> np.ndarray:
    seed = seed + 11
    colors = _palette(seed, "wall")
    broad = noise(seed, 2.5 * x, 2.5 * up)
    color = colors[0] * (1 + 0.16 * broad + 0.08 * noise(seed + 1, 30 * x, 30 * up))[:, None]
    if kind == "brick":
        course = np.floor(up / 0.14)
        along = x / 0.42 + 0.5 * np.mod(course, 2)
        joint = (np.mod(up, 0.14) < 0.025) | (np.mod(along, 1) < 0.06)
        tone = noise(seed + 2, 9 * np.floor(along), 5 * course)
        brick = colors[0] * np.array((1.15, 0.88, 0.78)) * (1 + 0.25 * tone)[:, None]
        color = np.where(joint[:, None], colors[2], brick)
    elif kind == "panels":
        joint = (np.mod(x, 1.6) < 0.05) | (np.mod(up, 1.1) < 0.04)
        tone = noise(seed + 2, 11 * np.floor(x / 1.6), 7 * np.floor(up / 1.1))
        color = np.where(joint[:, None], 0.5 * colors[1], color * (1 + 0.3 * tone)[:, None])
    elif kind == "glass":
        frame = (np.mod(x, 1.3) < 0.09) | (np.mod(up, 2.2) < 0.12) | (up < 0.3)
        mirror = 0.18 + 0.14 * noise(seed + 3, 4 * x + 2 * up, 1.5 * up)
        pane = np.stack((0.75 * mirror, 0.95 * mirror, 1.15 * mirror), -1)
        color = np.where(frame[:, None], colors[1], pane)
    elif kind == "hedge":
        leaf = noise(seed + 3, 22 * x, 22 * up) + 0.7 * noise(seed + 4, 60 * x, 60 * up)
        color = np.array((0.09, 0.14, 0.07)) * (1 + 0.7 * leaf)[:, None]
    elif kind == "shops":
        unit = np.floor(x / 3.2)
        tone = np.stack([noise(seed + k, 13 * unit, 0 * unit + 17 * k) for k in (5, 6, 7)], -1)
        front = np.clip(0.28 + 0.06 * tone + 0.12 * tone.mean(-1, keepdims=True), 0.05, 0.7)
        window = (np.mod(x, 3.2) > 0.4) & (np.mod(x, 3.2) < 2.6) & (up > 0.5) & (up < 2.1)
        inside = 0.10 + 0.10 * noise(seed + 8, 8 * x, 8 * up)
        color = np.where(window[:, None], np.maximum(inside, 0.01)[:, None], front)
    else:
        window = (np.mod(x, 2.8) > 1.7) & (np.mod(up, 2.7) > 1.0) & (np.mod(up, 2.7) < 2.2)
        color = np.where(window[:, None], 0.10 + 0.05 * broad[:, None], color)
    return np.clip(color, 0.01, 1)
