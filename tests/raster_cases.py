"""Triangles for the tests of rasterize, and exact coverage in rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

FLOATS = [torch.float32, torch.float64]
NEAR = Fraction(1, 1 << 60)  # far below what a snapped edge can tell from zero


def tensor(values, device="cpu", dtype=torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def random_mesh(generator, device, dtype=torch.float32, batch=2, num_verts=40, num_faces=60, size=(24, 32), grid=0):
    """Triangles all over the image and beyond; with `grid`, vertices on multiples of 1/grid pixel, so that edges meet centres."""
    span = torch.tensor([size[1] + 12.0, size[0] + 12.0, 1.0], dtype=dtype)
    verts = torch.rand(batch, num_verts, 3, generator=generator, dtype=dtype) * span - 6
    if grid:
        verts = (verts * grid).round() / grid
    faces = torch.randint(num_verts, (num_faces, 3), generator=generator)
    return verts.to(device), faces.to(device)


def assert_same(got, want) -> None:
    for name, a, b in zip(("face_id", "bary", "depth"), got, want, strict=True):
        assert a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu()), name


def closed_mesh(scale: float, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A bumpy ball of 2 x 12 x 16 triangles as large as `scale` pixels in radius, near and far side, and two vertices spoilt."""
    polar = torch.linspace(0.0, math.pi, 13)[:, None]
    around = torch.arange(16) * (math.pi / 8) + torch.arange(batch)[:, None, None] * 0.3
    radius = 1 + 0.2 * torch.sin(4 * polar) * torch.cos(3 * around)
    x, z = radius * torch.sin(polar) * torch.cos(around), radius * torch.sin(polar) * torch.sin(around)
    verts = torch.stack((x, torch.cos(polar).expand_as(x), z), -1).reshape(batch, -1, 3) * scale
    verts = verts + torch.tensor([21.3, 18.2, 0.0])
    verts[:, 40, 0], verts[:, 90, 2] = math.nan, math.inf
    ring, column = torch.meshgrid(torch.arange(12), torch.arange(16), indexing="ij")
    a, b = ring * 16 + column, ring * 16 + (column + 1) % 16
    return verts, torch.stack((a, b, a + 16, b, b + 16, a + 16), -1).reshape(-1, 3)


def snap(x: float) -> Fraction:
    return Fraction(round(Fraction(x) * 256), 256)  # Fraction rounds half to even


def cross(o, a, b) -> Fraction:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def exactly_covered(corners: list[list[float]], size: tuple[int, int]) -> set[tuple[int, int]]:
    """Pixels whose centre, moved right by NEAR and down by NEAR^2, lies strictly inside the snapped triangle.

    This is the top-left rule in other words: such a move enters through left edges first, then through top edges.
    """
    a, b, c = ((snap(x), snap(y)) for x, y, _ in corners)
    turn = cross(a, b, c)
    covered = set()
    for row in range(size[0] if turn else 0):
        for col in range(size[1]):
            p = (Fraction(2 * col + 1, 2) + NEAR, Fraction(2 * row + 1, 2) + NEAR * NEAR)
            if all(side * turn > 0 for side in (cross(a, b, p), cross(b, c, p), cross(c, a, p))):
                covered.add((row, col))
    return covered
