"""The cameras: where they stand, their light, their colours, and what their sensors do to a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from gcl_fast.images import pillow
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_config import WorldConfig

GROUNDS = ("tiles", "asphalt", "grass", "slabs", "gravel")
WALLS = ("brick", "panels", "glass", "hedge", "shops", "plaster")


@dataclass(frozen=True)
class Camera:
    """One camera. It looks level and crops a part of its picture, as shift lenses do, so that a body turned about its
    vertical axis stays exact however high the camera hangs; axes as the bodies': x right, y down, z forward.

    walk_yaw       degrees, heading of most people: 0 towards the camera, 90 to image left, 180 away
    height         metres above the ground; distance, metres, nearest and farthest person
    light          [3] unit vector towards the sun; ambient, share of light from everywhere; tint [3], colour of the light
    response       [3, 3] linear colour mixing with the channel gains; gamma [3]; exposure in stops
    blur           Gaussian sigma as a share of image height; noise, sigma in sRGB; jpeg, quality
    ground, wall, wall_distance, wall_height, texture_seed   the place
    """

    number: int
    walk_yaw: float
    height: float
    distance: tuple[float, float]
    light: np.ndarray
    ambient: float
    tint: np.ndarray
    response: np.ndarray
    gamma: np.ndarray
    exposure: float
    blur: float
    noise: float
    jpeg: int
    ground: str
    wall: str
    wall_distance: float
    wall_height: float
    texture_seed: int


def make_cameras(seed: int, count: int, config: WorldConfig) -> list[Camera]:
    """`count` cameras whose properties are spread over their ranges, not drawn independently, so that any few differ."""
    rng = stream(seed, "cameras")
    strength = config.camera_color

    def spread(low: float, high: float) -> np.ndarray:
        return low + (high - low) * (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count

    yaws = (spread(0, 360) + rng.uniform(0, 360)) % 360
    heights, near = spread(1.4, 4.2), spread(3.5, 8.0)
    sun_side, sun_height = spread(0, 2 * np.pi), spread(0.5, 1.2)
    warmth, exposure, gamma = spread(-1, 1), spread(-0.4, 0.35), spread(0.88, 1.14)
    saturation, green = spread(0.72, 1.12), spread(-1, 1)
    blur, noise = spread(0.0015, 0.0065), spread(0.006, 0.026)
    jpeg = spread(*config.jpeg_quality)
    grounds, walls = rng.permutation(len(GROUNDS)), rng.permutation(len(WALLS))
    cameras = []
    for i in range(count):
        gain = np.array((1 + 0.16 * warmth[i], 1 + 0.06 * green[i], 1 - 0.18 * warmth[i]))
        mix = 1 + (saturation[i] - 1) * strength
        response = mix * np.eye(3) + (1 - mix) * np.array((0.30, 0.59, 0.11)) + 0.03 * strength * rng.standard_normal((3, 3))
        light = np.array((np.cos(sun_side[i]), 0.0, np.sin(sun_side[i])))
        light = np.cos(sun_height[i]) * light + np.array((0.0, -np.sin(sun_height[i]), 0.0))
        cameras.append(
            Camera(
                number=i,
                walk_yaw=float(yaws[i]),
                height=float(heights[i]),
                distance=(float(near[i]), float(near[i] + rng.uniform(3, 7))),
                light=light,
                ambient=float(np.clip(1 - config.light_contrast * rng.uniform(0.7, 1.2), 0.15, 1)),
                tint=1 + 0.05 * rng.standard_normal(3),
                response=response * (1 + strength * (gain - 1))[:, None],
                gamma=np.full(3, 1 + strength * (gamma[i] - 1)) + 0.02 * strength * rng.standard_normal(3),
                exposure=float(strength * exposure[i]),
                blur=float(config.blur * blur[i]),
                noise=float(config.noise * noise[i]),
                jpeg=round(np.clip(jpeg[i], *config.jpeg_quality)),
                ground=GROUNDS[grounds[i % len(GROUNDS)]],
                wall=WALLS[walls[i % len(WALLS)]],
                wall_distance=float(rng.uniform(3, 9)),
                wall_height=float(rng.uniform(2.6, 7.0)),
                texture_seed=int(rng.integers(1 << 31)),
            )
        )
    return cameras


def develop(camera: Camera, linear: np.ndarray, stops: float) -> np.ndarray:
    """Linear light [H, W, 3] -> the camera's picture [H, W, 3] float64 in [0, 1], without noise: colours, exposure, blur."""
    picture = np.maximum(linear @ camera.response.T, 0) * 2.0 ** (camera.exposure + stops)
    picture = picture / (1 + np.maximum(picture - 0.75, 0))  # soft shoulder instead of hard clipping
    picture = blurred(picture, camera.blur * linear.shape[0])
    return np.clip(picture, 0, 1) ** (camera.gamma / 2.2)


def photograph(camera: Camera, picture: np.ndarray, rng: np.random.Generator) -> bytes:
    """Sensor noise and JPEG: a developed picture [H, W, 3] -> JPEG bytes."""
    coarse = np.repeat(np.repeat(rng.standard_normal([-(-n // 2) for n in picture.shape[:2]]), 2, 0), 2, 1)
    grain = rng.standard_normal(picture.shape) + 0.7 * coarse[: picture.shape[0], : picture.shape[1], None]
    buffer = io.BytesIO()
    pillow().fromarray(to_bytes(picture + camera.noise * grain)).save(buffer, "JPEG", quality=camera.jpeg)
    return buffer.getvalue()


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of [H, W, C], edges repeated; sigma in pixels."""
    if sigma < 0.15:
        return picture
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (radius, radius)
        padded = np.pad(picture, pad, mode="edge")
        size = picture.shape[axis]
        picture = sum(w * np.take(padded, range(k, k + size), axis) for k, w in enumerate(kernel))
    return picture
