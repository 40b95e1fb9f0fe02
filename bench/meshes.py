"""What the benches of the mesh ops share: bodies from two sides, and the copy that is the floor of an op's time."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.rasterize import body


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
