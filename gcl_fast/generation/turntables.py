"""People turned through a full circle: an animation, and a strip of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from gcl_fast.errors import InputError
from gcl_fast.generation.decoding import novel_views
from gcl_fast.generation.inputs import bodies_for, load_photos, render_meshes
from gcl_fast.generation.picture_files import draw_records
from gcl_fast.images import mesh_to_uint8, photo_to_uint8
from gcl_fast.meshes import MeshSource, VertexMeshes
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.records import Record
from gcl_fast.visuals.canvas import compose
from gcl_fast.visuals.gif import save_gif
from gcl_fast.visuals.grids import novel_view_grid
from gcl_fast.visuals.png import save_png

FRAMES = 36
STRIP = 12  # of them, evenly spaced


def turntable(
    encoder: IdentityEncoder,
    generator: Generator,
    records: Sequence[Record],
    mesh_source: MeshSource,
    out: str | os.PathLike[str],
    *,
    num: int = 4,
    image_size: tuple[int, int] = (256, 128),
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> tuple[Path, Path]:
    """Draw `num` records at random (by `seed`) and turn their people once around, 10 degrees a frame. Deterministic.

    Arguments:
        records, mesh_source: of one split; meshes with vertices.
        image_size: (H, W) of the networks.

    Returns: the files `out/turntable.gif` and `out/turntable.png`, every third frame side by side.
    Errors: InputError where the meshes are rendered pictures, or there is nothing to turn.
    """
    if not isinstance(mesh_source, VertexMeshes):
        raise InputError("turntable: a full turn needs meshes with vertices; rendered pictures are there at eight angles only")
    if num < 1 or not len(records):
        raise InputError(f"num: expected at least 1 image out of at least 1 record, got num={num} and {len(records)} records")
    drawn = draw_records(records, num, seed)
    angles = [360 * frame / FRAMES for frame in range(FRAMES)]
    photos = load_photos([record.path for record in drawn], image_size).to(device)
    meshes = render_meshes(mesh_source, drawn, angles).to(device)  # [N, R, 1, H, W]
    bodies = bodies_for(generator, mesh_source, drawn, device)
    views = novel_views(encoder, generator, photos, meshes, bodies=bodies, yaws=angles)  # [N, R, 3, H, W]

    photo_row, mesh_rows, view_rows = photo_to_uint8(photos), mesh_to_uint8(meshes), photo_to_uint8(views)
    titles = ["photo", "mesh", "generated"]
    frames = [
        compose([list(photo_row), list(mesh_rows[:, r]), list(view_rows[:, r])], row_titles=titles, title=f"{angle:.0f}°")
        for r, angle in enumerate(angles)
    ]
    chosen = range(0, FRAMES, FRAMES // STRIP)
    strip = novel_view_grid(
        photos,
        views[:, chosen],
        [angles[r] for r in chosen],
        meshes=meshes[:, chosen],
        row_titles=[Path(record.path).stem for record in drawn],
    )
    caption = "People turned once around by their meshes."
    return save_gif(Path(out) / "turntable.gif", frames), save_png(Path(out) / "turntable.png", strip, caption)
