"""Bodies for the benches of the mesh ops, from one side or two, and the copy that is the floor of an op's time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def body(batch: int, size: tuple[int, int], rings: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A bumpy ellipsoid about the size of a person in a crop: verts [B,V,3] in pixels, faces [F,3]; 103 rings: 13,464 faces."""
    columns = round(rings * 66 / 103)
    polar = torch.linspace(0, math.pi, rings)[:, None]  # [rings, 1]
    around = torch.arange(columns) * (2 * math.pi / columns)  # [columns]
    turn = torch.arange(batch)[:, None, None] * 0.7
    radius = 1 + 0.15 * torch.sin(5 * polar) * torch.sin(3 * around + turn)  # [B, rings, columns]
    x = radius * torch.sin(polar) * torch.cos(around + turn)
    z = radius * torch.sin(polar) * torch.sin(around + turn)
    y = torch.cos(polar).expand_as(x)
    height, width = size
    verts = torch.stack((width * (0.5 + 0.3 * x), height * (0.5 - 0.47 * y), 5 + 0.3 * z), -1).reshape(batch, -1, 3)
    ring, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(columns), indexing="ij")
    a = ring * columns + column
    b = ring * columns + (column + 1) % columns
    faces = torch.stack((a, b, a + columns, b, b + columns, a + columns), -1).reshape(-1, 3)
    return verts.contiguous().to(device), faces.int().to(device)


def body_and_camera(
    batch: int, size: tuple[int, int], rings: int, kind: str, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """`body` in its own axes, about 2 high: verts [B, V, 3], faces [F, 3]; a "weak" or "perspective" camera [B, 3 or 6]."""
    verts, faces = body(batch, size, rings, torch.device("cpu"))
    verts = (verts - torch.tensor([size[1] / 2, size[0] / 2, 5.0])) / torch.tensor([size[0] / 2, size[0] / 2, 1.0])
    camera = torch.tensor([1.0, 0, 0] if kind == "weak" else [0.0, 0, 4.0, 1.9, 0, 0])
    return verts.to(device), faces.to(device), camera.expand(batch, -1).to(device)


def two_views(batch: int, views: int, size: tuple[int, int], rings: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """src_verts and dst_verts [B*R, V, 3] of bodies in their own view and turned by R angles, and faces [F, 3]."""
    src, faces = body(batch, size, rings, torch.device("cpu"))
    x, z = (src[..., 0] - size[1] / 2) / size[1], src[..., 2] - 5
    turned = []
    for view in range(views):
        angle = math.radians(45 * (view + 1))
        across, away = math.cos(angle) * x + math.sin(angle) * z, math.cos(angle) * z - math.sin(angle) * x
        turned.append(torch.stack((size[1] / 2 + size[1] * across, src[..., 1], 5 + away), -1))
    dst = torch.stack(turned, 1).flatten(0, 1)  # [B*R, V, 3]
    return src.repeat_interleave(views, 0).to(device), dst.to(device), faces.to(device)


def copy_of(num_bytes: int, device: torch.device) -> Callable[[], object]:
    """A copy that reads and writes num_bytes together."""
    source = torch.ones(max(num_bytes // 8, 1), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
