"""Meshes drawn over their photos, to see at once whether they sit right."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import torch
from torch import Tensor

from gcl_fast.errors import FileError, InputError, MissingFileError
from gcl_fast.files import write_whole
from gcl_fast.images import load_photo, load_uint8, pillow, unit_from_levels, unit_to_uint8
from gcl_fast.meshes.sources import MeshSource, open_mesh_source
from gcl_fast.records import Record, ReIDData, spread

TINT = (0.15, 0.75, 1.0)  # of the body, away from the colours of skin and most clothes
OPACITY = 0.65


def overlay(photo: Tensor, mesh: Tensor) -> Tensor:
    """photo [3, H, W] and grey mesh [H, W], both in [0, 1] -> the tinted body over the photo, [3, H, W]."""
    body = torch.tensor(TINT)[:, None, None] * mesh  # [3, H, W]
    return torch.where(mesh > 0, (1 - OPACITY) * photo + OPACITY * body, photo)


def preview_dataset(
    data: ReIDData, mesh_root: str | os.PathLike[str], path: str | os.PathLike[str], image_size: tuple[int, int], count: int
) -> pathlib.Path:
    """`preview_meshes` of at most `count` images that have vertices and can be read, spread over the training images, or over the
    test images where there are no others."""
    split = "train" if data.train else "test"
    source, records = open_mesh_source(mesh_root, data.name, split, image_size, kind="vertices"), data.mesh_split(split)
    left_out = {record.path for record in source.missing(records)}
    while True:
        shown = spread([record for record in records if record.path not in left_out], count)
        unreadable = {record.path for record in shown if not _can_be_read(record)}
        if not unreadable:
            return preview_meshes(source, shown, path, image_size)
        left_out |= unreadable


def _can_be_read(record: Record) -> bool:
    try:
        load_photo(record.path)
    except (FileError, MissingFileError):
        return False
    return True


def preview_meshes(
    source: MeshSource, records: Sequence[Record], path: str | os.PathLike[str], image_size: tuple[int, int], *, columns: int = 8
) -> pathlib.Path:
    """Write a PNG: for each record the photo, the mesh over it, and the mesh turned by 90 degrees.

    Arguments:
        source: where the meshes are.
        records: images to show, at least one.
        path: the .png to write.
        image_size: (height, width) of each picture in pixels.
        columns: records side by side.

    Returns: the path.
    Errors: InputError where nothing is to be shown or the path is no .png; those of the source and of reading the photos.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"the preview must be a .png, got {path}")
    if not records:
        raise InputError("no image to preview that has a mesh and can be read")
    height, width = image_size
    columns = min(columns, len(records))
    rows = -(-len(records) // columns)
    gap = 6
    sheet = torch.ones(3, rows * (3 * height + 2 + gap) - gap, columns * (width + gap) - gap)
    for i, record in enumerate(records):
        photo = unit_from_levels(load_uint8(record.path, image_size)).permute(2, 0, 1)
        front, side = source.render(record, [0, 90])
        stack = (photo, overlay(photo, front), side.expand(3, -1, -1))
        top, left = (i // columns) * (3 * height + 2 + gap), (i % columns) * (width + gap)
        for j, picture in enumerate(stack):
            sheet[:, top + j * (height + 1) : top + j * (height + 1) + height, left : left + width] = picture
    picture = pillow().fromarray(unit_to_uint8(sheet))
    return write_whole(path, lambda file: picture.save(file, format="PNG"))
