"""Photos and meshes for generation, straight from files and mesh sources."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.guides import Bodies, GuidedGenerator
from gcl_fast.images import load_image, load_uint8, mesh_from_unit
from gcl_fast.meshes import MeshSource
from gcl_fast.models import Generator
from gcl_fast.records import Record

Path = str | os.PathLike[str]


def load_photos(paths: Sequence[Path], image_size: tuple[int, int]) -> Tensor:
    """Image files as the networks read them: [N, 3, H, W] float32, bicubic to image_size = (H, W), ImageNet-normalised."""
    return torch.stack([load_image(path, image_size) for path in paths])


def load_units(paths: Sequence[Path], image_size: tuple[int, int]) -> Tensor:
    """Image files as RGB [N, 3, H, W] float32 in [0, 1], bicubic to image_size = (H, W)."""
    stack = torch.stack([torch.from_numpy(load_uint8(path, image_size)) for path in paths])  # [N, H, W, 3] uint8
    return stack.movedim(-1, 1).float() / 255


def render_meshes(meshes: MeshSource, records: Sequence[Record], yaws: Sequence[float]) -> Tensor:
    """The records' bodies at R yaws (degrees, relative to the photo) -> [N, R, 1, H, W] float32 in [-1, 1]."""
    guides = torch.stack([meshes.render(record, yaws) for record in records])  # [N, R, H, W] in [0, 1]
    return mesh_from_unit(guides[:, :, None].float())


def bodies_for(
    generator: Generator, mesh_source: MeshSource, records: Sequence[Record], device: torch.device | str
) -> Bodies | None:
    """The bodies of the records where the generator is guided by them, else None."""
    return Bodies(mesh_source, records, device) if isinstance(generator, GuidedGenerator) else None
