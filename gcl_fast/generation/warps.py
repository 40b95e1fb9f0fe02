"""Photos turned by their meshes alone: the photo's own pixels where the camera saw the body, the bare mesh where it did not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gcl_fast.errors import InputError
from gcl_fast.generation.inputs import load_photos, render_meshes
from gcl_fast.guides import Bodies, turned_view
from gcl_fast.images import mesh_to_uint8, normalise, photo_to_unit
from gcl_fast.meshes import MeshSource, VertexMeshes
from gcl_fast.ops import mesh_warp
from gcl_fast.records import Record
from gcl_fast.visuals.grids import novel_view_grid
from gcl_fast.visuals.png import save_png

PAPER = 235  # grey level behind a turned body: nothing is known there
SEEN, HIDDEN = 1, 2  # visibility as `ops.mesh_warp` gives it


def warped_views(
    photos: Tensor, records: Sequence[Record], mesh_source: MeshSource, angles: Sequence[float], guides: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each photo's body at R angles, by `ops.mesh_warp`. Deterministic.

    What the photo does not show is drawn as the shaded mesh; behind the body is PAPER.

    Arguments:
        photos: [N, 3, H, W], ImageNet-normalised; records: theirs.
        mesh_source: vertices (`meshes.VertexMeshes`).
        angles: degrees, relative to the photo.
        guides: the meshes at the angles, [N, R, 1, H, W] in [-1, 1], where they are rendered already.

    Returns: pictures [N, R, 3, H, W], ImageNet-normalised, and visibility [N, R, H, W] uint8 (0 background, 1 seen in the
        photo, 2 not).
    Errors: InputError where the meshes have no vertices.
    """
    if not isinstance(mesh_source, VertexMeshes):
        raise InputError("warping a photo needs meshes with vertices; rendered pictures do not say where a pixel comes from")
    paper = normalise(torch.full((1, 1, 3), PAPER, dtype=torch.uint8)).to(photos).view(3, 1, 1)
    guides = render_meshes(mesh_source, records, angles) if guides is None else guides
    shaded = normalise(mesh_to_uint8(guides)).to(photos)  # [N, R, 3, H, W]
    pictures, visibility = [], []
    for photo, mesh, record in zip(photos, shaded, records, strict=True):
        verts, faces = (t.to(photos.device) for t in mesh_source.project(record, (0.0, *angles)))  # [1 + R, V, 3]
        warped, seen = mesh_warp(photo[None], verts[:1], verts[1:], faces)
        level = seen[:, None]  # [R, 1, H, W]
        pictures.append(torch.where(level == SEEN, warped, torch.where(level == HIDDEN, mesh, paper)))
        visibility.append(seen)
    return torch.stack(pictures), torch.stack(visibility)


def carried_views(photo: Tensor, bodies: Bodies, row: int, yaws: Sequence[float]) -> Tensor:
    """What a guided generator is given, nothing painted: the photo's pixels on its turned body, its background elsewhere.

    Arguments:
        photo: [1, 3, H, W], ImageNet-normalised, on the device of the bodies; row: its body among them.
        yaws: R turns, degrees.

    Returns: [R, 3, H, W] RGB in [0, 1].
    """
    index = torch.full((len(yaws),), row, device=photo.device)
    seen, turned = bodies.seen(index), bodies.seen(index, torch.tensor(yaws, device=photo.device))
    return photo_to_unit(turned_view(photo.expand(len(yaws), -1, -1, -1), seen, turned, turned.mesh).composite())


def warp_pictures(
    records: Sequence[Record],
    mesh_source: MeshSource,
    out: str | os.PathLike[str],
    *,
    angles: Sequence[float],
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Path:
    """Write a sheet `warp.png` into `out`: each record's photo and its warped views, the meshes above. Returns its path."""
    if not len(angles):
        raise ValueError("angles: expected at least one angle in degrees, got none")
    photos = load_photos([record.path for record in records], image_size).to(device)
    meshes = render_meshes(mesh_source, records, angles)
    pictures, _ = warped_views(photos, records, mesh_source, angles, meshes)
    stems = [Path(record.path).stem for record in records]
    sheet = novel_view_grid(photos, pictures, angles, meshes=meshes, row_titles=stems, generated_title="warped")
    caption = "Each photo's pixels carried to new angles by its mesh; bare mesh where the photo does not show the body."
    return save_png(Path(out) / "warp.png", sheet, caption)
