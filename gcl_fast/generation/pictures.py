"""Generated images as files: a labelled sheet and the single pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gcl_fast.generation.decoding import identity_mix, novel_views, reconstruct
from gcl_fast.generation.inputs import load_photos, render_meshes
from gcl_fast.images import photo_to_uint8
from gcl_fast.visuals.grids import image_rows, novel_view_grid
from gcl_fast.visuals.png import save_png

YAWS = (45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)  # degrees


def draw_records(records: Sequence[Any], num: int, seed: int) -> list[Any]:
    """`num` of the records at random (by `seed`), in their own order."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(records))[:num]
    return [records[i] for i in sorted(order)]


def generate_pictures(
    encoder: nn.Module,
    generator: nn.Module,
    records: Sequence[Any],
    mesh_source: Any,
    out: str | Path,
    *,
    what: str = "novel",
    angles: Sequence[float] = YAWS,
    weights: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.0),
    num: int = 8,
    image_size: tuple[int, int] = (256, 128),
    device: torch.device | str = "cpu",
    seed: int = 0,
    singles: bool = True,
) -> list[Path]:
    """Draw `num` records at random (by `seed`), generate from them and write a sheet `<what>.png` into `out`.

    what = "reconstruction": photo, mesh, reconstruction; "novel": the person at `angles` (degrees); "mix": the identity
    of one photo blended into the next one's by `weights`. `singles` also writes each generated image, unscaled, to
    `out/<what>/<stem>_<angle or share>.png`. records: with .path; mesh_source: render(record, yaws) -> [R, H, W].
    Returns the written files, the sheet first. Deterministic.
    """
    if what not in ("reconstruction", "novel", "mix"):
        raise ValueError(f"what: expected 'reconstruction', 'novel' or 'mix', got {what!r}")
    if what == "novel" and not len(angles):
        raise ValueError("angles: expected at least one angle in degrees, got none")
    if num < 1 or not len(records):
        raise ValueError(f"num: expected at least 1 image out of at least 1 record, got num={num} and {len(records)} records")
    chosen = draw_records(records, num, seed)
    if what == "mix" and len(chosen) < 2:
        raise ValueError(f"num: mixing needs at least 2 images, got {len(chosen)}")
    stems = [Path(record.path).stem for record in chosen]
    photos = load_photos([record.path for record in chosen], image_size).to(device)
    own = render_meshes(mesh_source, chosen, (0.0,)).to(device)[:, 0]  # [N, 1, H, W]
    out = Path(out)
    if what == "reconstruction":
        made = reconstruct(encoder, generator, photos, own)[:, None]  # [N, 1, 3, H, W]
        suffixes = ["reconstruction"]
        sheet = image_rows({"photo": photos, "mesh": own, "reconstruction": made[:, 0]}, max_images=len(chosen))
        caption = "Photos, their meshes, and what the generator makes of both."
    elif what == "novel":
        meshes = render_meshes(mesh_source, chosen, angles).to(device)
        made = novel_views(encoder, generator, photos, meshes)
        suffixes = [f"{angle:g}" for angle in angles]
        sheet = novel_view_grid(photos, made, angles, meshes=meshes, row_titles=stems)
        caption = "Each photo's person turned to new angles, with the meshes that guide the generator."
    else:
        others = photos.roll(-1, dims=0)
        made = identity_mix(encoder, generator, photos, others, own, weights)
        suffixes = [f"{weight:g}" for weight in weights]
        rows = {"photo": photos, "dressed as": others}
        rows |= {f"{weight:.0%} own": made[:, i] for i, weight in enumerate(weights)}
        sheet = image_rows(rows, max_images=len(chosen))
        caption = "The identity code of each photo blended into another's, on its own body and pose."
    written = [save_png(out / f"{what}.png", sheet, caption)]
    if singles:
        pictures = photo_to_uint8(made)  # [N, R, H, W, 3]
        for stem, row in zip(stems, pictures, strict=True):
            written += [save_png(out / what / f"{stem}_{s}.png", p) for s, p in zip(suffixes, row, strict=True)]
    return written
