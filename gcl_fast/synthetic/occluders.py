"""Things in front of people: poles, boxes, bushes, bicycles; shapes with soft edges over a crop."""

from __future__ import annotations

import numpy as np

from gcl_fast.synthetic.backgrounds import noise

KINDS = ("pole", "box", "bush", "bicycle", "rail")


def occluder(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A random thing over an image of `size`: linear colour [H, W, 3] and coverage [H, W] in [0, 1]."""
    height, width = size
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / height, indexing="ij")
    across = width / height
    kind = str(rng.choice(KINDS, p=(0.3, 0.22, 0.2, 0.16, 0.12)))
    base = rng.uniform(0.04, 0.5, 3) * rng.uniform(0.4, 1.0)
    base = 0.6 * base.mean() + 0.4 * base
    color = np.broadcast_to(base, (height, width, 3)).copy()
    if kind == "pole":
        middle, half = rng.uniform(0.1, 0.9) * across, rng.uniform(0.018, 0.055)
        cover = np.abs(u - middle) < half
        color *= (1.15 - 0.6 * np.abs((u - middle) / half + 0.3))[..., None]
    elif kind == "box":
        left, wide, top = rng.uniform(-0.2, 0.8) * across, rng.uniform(0.35, 0.8) * across, rng.uniform(0.60, 0.85)
        cover = (u > left) & (u < left + wide) & (v > top)
        color[v < top + 0.03] *= 1.5
    elif kind == "bush":
        seed = int(rng.integers(1 << 31))
        edge = rng.uniform(0.62, 0.88) + 0.07 * noise(seed, 60 * u, 0 * u) + 0.05 * noise(seed, 9 * u, 0 * u + 50)
        edge = edge + rng.uniform(-0.35, 0.35) * (u - across / 2)
        cover = v > edge
        leaf = noise(seed, 110 * u, 110 * v)
        color = np.array((0.06, 0.13, 0.04)) * np.clip(1 + 0.9 * leaf, 0.2, 2.2)[..., None]
    elif kind == "bicycle":
        cx, cy, radius = rng.uniform(0, 1) * across, rng.uniform(0.82, 0.92), rng.uniform(0.10, 0.15)
        far = cx + 2.6 * radius * rng.choice((-1, 1))
        cover = np.zeros((height, width), bool)
        for wheel in (cx, far):
            distance = np.hypot(u - wheel, v - cy)
            cover |= (np.abs(distance - radius) < 0.008) | (distance < 0.012)
        saddle, bars = (0.7 * cx + 0.3 * far, cy - 1.5 * radius), (0.15 * cx + 0.85 * far, cy - 1.6 * radius)
        pedals = (0.55 * cx + 0.45 * far, cy)
        for a, b in (((cx, cy), saddle), (saddle, pedals), (pedals, bars), (saddle, bars), ((far, cy), bars), ((cx, cy), pedals)):
            cover |= _segment(u, v, a, b) < 0.008
    else:
        top, gap = rng.uniform(0.5, 0.7), rng.uniform(0.07, 0.12)
        cover = (v > top) & ((np.mod(v - top, gap) < 0.016) | (np.mod(u + rng.uniform(), 0.3) < 0.02))
    return np.clip(color, 0.005, 1), cover.astype(np.float64)


def _segment(u: np.ndarray, v: np.ndarray, a: tuple[float, float], b: tuple[float, float]) -> np.ndarray:
    """Distance of every point to the segment from a to b."""
    du, dv = b[0] - a[0], b[1] - a[1]
    t = np.clip(((u - a[0]) * du + (v - a[1]) * dv) / max(du * du + dv * dv, 1e-9), 0, 1)
    return np.hypot(u - a[0] - t * du, v - a[1] - t * dv)
