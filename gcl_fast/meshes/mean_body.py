"""The mean body, for the images whose own could not be estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gcl_fast.errors import InputError
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.ops.camera import project


def mean_body(meshes: Sequence[Mesh], image_size: tuple[int, int]) -> Mesh:
    """The mean of bodies of one topology, in the mean place of the image. Deterministic.

    Bodies are centred, and turned about the vertical axis onto the first before averaging: people seen from all sides would
    else cancel out. The mean is turned back by the mean angle. Its weak-perspective camera puts it into the mean of the boxes
    that the bodies take in an image of `image_size` (H, W).

    Errors: InputError where there is no body, or their topologies differ.
    """
    if not meshes:
        raise InputError("mean_body: meshes must hold at least one body, got none")
    if any(not _same_topology(mesh, meshes[0]) for mesh in meshes):
        raise InputError("mean_body: the bodies differ in their vertices or triangles, so they have no mean")
    height, width = image_size
    total, angles, boxes = np.zeros(meshes[0].vertices.shape), [], []
    first = _centred(meshes[0].vertices)
    for mesh in meshes:
        body = _centred(mesh.vertices)
        x, z, x0, z0 = body[:, 0], body[:, 2], first[:, 0], first[:, 2]
        angle = np.arctan2((x0 * z - z0 * x).sum(), (x0 * x + z0 * z).sum())  # least squares
        angles.append(angle)
        total += _turned(body, angle)
        pixels = project(torch.from_numpy(mesh.vertices)[None], torch.from_numpy(mesh.camera)[None], image_size)[0].numpy()
        boxes.append([pixels[:, 0].min(), pixels[:, 0].max(), pixels[:, 1].min(), pixels[:, 1].max()])
    back = -np.arctan2(np.sin(angles).mean(), np.cos(angles).mean())
    body = _turned(total / len(meshes), back)
    body -= (body.min(0) + body.max(0)) / 2
    left, right, top, bottom = np.mean(boxes, 0)
    scale = 2 * (bottom - top) / height / max(np.ptp(body[:, 1]), 1e-6)
    middle = np.array([(left + right) / 2 - width / 2, (top + bottom) / 2 - height / 2]) / (height / 2 * scale)
    return Mesh(body.astype(np.float32), np.array([scale, *middle], np.float32), meshes[0].faces)


def _same_topology(a: Mesh, b: Mesh) -> bool:
    if len(a.vertices) != len(b.vertices):
        return False
    return a.faces is b.faces or (a.faces is not None and b.faces is not None and np.array_equal(a.faces, b.faces))


def _centred(vertices: np.ndarray) -> np.ndarray:
    vertices = vertices.astype(np.float64)
    return vertices - vertices.mean(0)


def _turned(body: np.ndarray, angle: float) -> np.ndarray:
    """As `ops.camera.turn`: x' = c x + s z, z' = c z - s x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack((c * body[:, 0] + s * body[:, 2], body[:, 1], c * body[:, 2] - s * body[:, 0]), 1)
