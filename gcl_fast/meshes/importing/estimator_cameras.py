"""Cameras of body estimators -> cameras of the image they were run on, in image heights (see `ops.camera.project`).

Estimators look at a square crop of the image; their cameras speak of that crop, or of the image in pixels. All functions
are exact re-writings of the same projection. box = (centre x, centre y, side) of the crop, size = (height, width) of the image,
in pixels.
"""

from __future__ import annotations

import numpy as np

from gcl_fast.errors import InputError


def whole_box(size: tuple[int, int]) -> tuple[float, float, float]:
    """The crop that an estimator takes when it is not told where the person is: the middle, as long as the longer side."""
    return size[1] / 2, size[0] / 2, float(max(size))


def weak_in_box(camera: np.ndarray, box: tuple[float, float, float], size: tuple[int, int]) -> np.ndarray:
    """HMR's and SPIN's (s, tx, ty), which give the crop's coordinates in [-1, 1] as s (X + tx) -> [3] of the image."""
    s, tx, ty = (float(v) for v in camera)
    cx, cy, side = box
    if s <= 0:
        raise InputError(f"the camera's scale must be positive, got {s}")
    half = side / 2 * s  # pixels a metre
    return np.array([side * s / size[0], tx + (cx - size[1] / 2) / half, ty + (cy - size[0] / 2) / half], np.float32)


def perspective_in_box(
    translation: np.ndarray, focal: float, crop: float, box: tuple[float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """(tx, ty, tz) and the focal length of a crop `crop` pixels wide, as 4D-Humans gives them -> [6] of the image."""
    cx, cy, side = box
    lens = (focal / crop * side / size[0], (cx - size[1] / 2) / size[0], (cy - size[0] / 2) / size[0])
    return np.array([*np.asarray(translation, np.float64), *lens], np.float32)


def perspective_of_image(translation: np.ndarray, focal: float, size: tuple[int, int]) -> np.ndarray:
    """(tx, ty, tz) and a focal length in pixels of the image, its centre the principal point -> [6]."""
    return np.array([*np.asarray(translation, np.float64), focal / size[0], 0, 0], np.float32)


def reshape_image(
    vertices: np.ndarray, camera: np.ndarray, size: tuple[int, int], target: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The body as it appears when the image is resized to `target` (height, width), whose shape may differ.

    A camera in image heights needs no change for a resize of the same shape. Where the image gets wider or narrower, the body is
    widened likewise, across and in depth, so that turned views are too; the photo's own view is exact.
    """
    factor = (target[1] / target[0]) / (size[1] / size[0])
    if abs(factor - 1) < 1e-6:
        return vertices, camera
    vertices, camera = np.array(vertices, np.float64), np.array(camera, np.float64)
    if len(camera) == 3:
        vertices[:, ::2] *= factor
        camera[1] *= factor
        return vertices.astype(np.float32), camera.astype(np.float32)
    x, y, z = (vertices + camera[:3]).T
    middle = (z.min() + z.max()) / 2
    deep = np.maximum(middle + factor * (z - middle), 1e-3)
    moved = np.stack((factor * x * deep / z, y * deep / z, deep), 1)  # the same pixels at another depth
    camera[4] *= factor
    return (moved - camera[:3]).astype(np.float32), camera.astype(np.float32)
