"""Small meshes and cameras that the tests of the mesh ops share."""

from __future__ import annotations

import math

import torch


def ellipsoid(rings: int = 6, segments: int = 8, radii=(0.3, 0.9, 0.2), dtype=torch.float64):
    """A closed mesh: verts [V, 3], faces [F, 3]."""
    rows = [[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]
    for i in range(1, rings):
        a = math.pi * i / rings
        for j in range(segments):
            b = 2 * math.pi * (j + 0.3) / segments
            rows.append([math.sin(a) * math.cos(b), -math.cos(a), math.sin(a) * math.sin(b)])
    faces = []
    for j in range(segments):
        k = (j + 1) % segments
        faces += [[0, 2 + j, 2 + k], [1, 2 + (rings - 2) * segments + k, 2 + (rings - 2) * segments + j]]
        for i in range(rings - 2):
            p, q = 2 + i * segments, 2 + (i + 1) * segments
            faces += [[p + j, q + j, q + k], [p + j, q + k, p + k]]
    return torch.tensor(rows, dtype=dtype) * torch.tensor(radii, dtype=dtype), torch.tensor(faces, dtype=torch.int32)


def soup(seed: int, batch: int = 2, faces: int = 6, height: int = 9, width: int = 7):
    """Random triangles in pixels with depth around 0, some of them outside the image."""
    g = torch.Generator().manual_seed(seed)
    verts = torch.rand(batch, 8, 3, generator=g, dtype=torch.float64) * torch.tensor([width + 4, height + 4, 2.0])
    verts = verts - torch.tensor([2, 2, 1])
    return verts, torch.randint(0, 8, (faces, 3), generator=g, dtype=torch.int32), (height, width)


def square(depth: float, x=(0.0, 8.0), y=(0.0, 8.0)):
    """Two triangles over a rectangle, at one depth."""
    corners = [[x[0], y[0], depth], [x[1], y[0], depth], [x[1], y[1], depth], [x[0], y[1], depth]]
    return torch.tensor(corners, dtype=torch.float64), torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)


WEAK = torch.tensor([[1.0, 0.05, -0.02]], dtype=torch.float64)
EYE = torch.tensor([[0.05, -0.02, 4.0, 1.9, 0.01, 0.0]], dtype=torch.float64)
