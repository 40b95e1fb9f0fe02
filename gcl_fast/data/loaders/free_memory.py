"""Memory for cached pictures: how much they take, and how much of what is free they may take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

HOST_SHARE, GPU_SHARE = 0.5, 0.25  # of what is free: the rest is for networks, activations, the bank


def cached_bytes(count: int, image_size: tuple[int, int], views: int = 0) -> int:
    """Of `count` records: 3 bytes a pixel for the image, 1 for each view of the mesh that is kept."""
    return count * image_size[0] * image_size[1] * (3 + views)


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that can still be taken: of a GPU, or of the host within the limit of its container. A large number where the
    system does not say."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [n for n in (_available(), *_container()) if n is not None]
    return max(0, min(limits, default=2**62))


def may_take(device: torch.device | str = "cpu") -> int:
    """Bytes that cached pictures may take of it: a share of what is free, divided among the processes that torchrun started
    on this machine (each holds its own)."""
    device = torch.device(device)
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if device.type == "cpu" else 1
    return int(free_bytes(device) * (GPU_SHARE if device.type == "cuda" else HOST_SHARE) / processes)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _container() -> list[int]:
    """What the limits of this process's control groups leave (version 2 and 1), the page cache counted as free."""
    left = []
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most, now = (int(Path(folder, name).read_text()) for name in (limit, used))
            statistics = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            left.append(most - now + int(statistics.get("inactive_file", statistics.get("total_inactive_file", 0))))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return left
