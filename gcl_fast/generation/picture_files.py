"""Generated images as files: a labelled sheet and the single pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gcl_fast.constants import NOVEL_YAWS
from gcl_fast.errors import InputError
from gcl_fast.generation.decoding import identity_mix, novel_views, reconstruct
from gcl_fast.generation.inputs import bodies_for, load_photos, render_meshes
from gcl_fast.guides import Bodies
from gcl_fast.images import photo_to_uint8
from gcl_fast.meshes import MeshSource
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.records import Record
from gcl_fast.visuals.grids import image_rows, novel_view_grid
from gcl_fast.visuals.png import save_png

SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of its own identity in a mix


def draw_records(records: Sequence[Record], num: int, seed: int) -> list[Record]:
    """`num` of the records at random (by `seed`), in their own order."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(records))[:num]
    return [records[i] for i in sorted(order)]


@dataclass(frozen=True)
class _Drawn:
    """Records to generate from: their photos [N, 3, H, W] and meshes in the photos' own view [N, 1, H, W], on the device."""

    records: list[Record]
    photos: Tensor
    meshes: Tensor
    bodies: Bodies | None

    @property
    def names(self) -> list[str]:
        """Their stems, behind as many of the photos' folders as tell them apart."""
        paths = {record.path: Path(record.path).with_suffix("").parts for record in self.records}
        names = []
        for record in self.records:
            own = paths[record.path]
            tails = (own[-n:] for n in range(1, len(own) + 1))
            alone = (tail for tail in tails if sum(other[-len(tail) :] == tail for other in paths.values()) == 1)
            names.append("_".join(next(alone, own[-1:])))
        return names


@dataclass(frozen=True)
class _Generated:
    """images [N, R, 3, H, W], ImageNet-normalised; suffixes: R ends of file names."""

    images: Tensor
    suffixes: list[str]
    sheet: np.ndarray
    caption: str


def _reconstructions(encoder: IdentityEncoder, generator: Generator, drawn: _Drawn) -> _Generated:
    images = reconstruct(encoder, generator, drawn.photos, drawn.meshes, bodies=drawn.bodies)
    rows = {"photo": drawn.photos, "mesh": drawn.meshes, "reconstruction": images}
    sheet = image_rows(rows, max_images=len(drawn.records))
    caption = "Photos, their meshes, and what the generator makes of both."
    return _Generated(images[:, None], ["reconstruction"], sheet, caption)


def _turned(
    encoder: IdentityEncoder, generator: Generator, drawn: _Drawn, mesh_source: MeshSource, angles: Sequence[float]
) -> _Generated:
    guides = render_meshes(mesh_source, drawn.records, angles).to(drawn.photos.device)
    images = novel_views(encoder, generator, drawn.photos, guides, bodies=drawn.bodies, yaws=angles)
    sheet = novel_view_grid(drawn.photos, images, angles, meshes=guides, row_titles=drawn.names)
    caption = "Each photo's person turned to new angles, with the meshes that guide the generator."
    return _Generated(images, [f"{angle:g}" for angle in angles], sheet, caption)


def _mixed(encoder: IdentityEncoder, generator: Generator, drawn: _Drawn) -> _Generated:
    others = drawn.photos.roll(-1, dims=0)
    bodies = None if drawn.bodies is None else (drawn.bodies, drawn.bodies.rolled(-1))
    images = identity_mix(encoder, generator, drawn.photos, others, drawn.meshes, SHARES, bodies=bodies)
    rows = {"photo": drawn.photos, "dressed as": others}
    rows |= {f"{weight:.0%} own": images[:, i] for i, weight in enumerate(SHARES)}
    sheet = image_rows(rows, max_images=len(drawn.records))
    caption = "The identity code of each photo blended into another's, on its own body and pose."
    return _Generated(images, [f"{weight:g}" for weight in SHARES], sheet, caption)


def generate_pictures(
    encoder: IdentityEncoder,
    generator: Generator,
    records: Sequence[Record],
    mesh_source: MeshSource,
    out: str | os.PathLike[str],
    *,
    what: str = "novel",
    angles: Sequence[float] = NOVEL_YAWS,
    num: int = 8,
    image_size: tuple[int, int] = (256, 128),
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> list[Path]:
    """Draw `num` records at random (by `seed`), generate from them and write a sheet `<what>.png` into `out`, and each image,
    unscaled, as `<what>/<stem>_<angle or share>.png`, the photo's folders before a stem that several have. Deterministic.

    Arguments:
        records, mesh_source: of one split.
        what: "reconstruction": photo, mesh, reconstruction; "novel": the person at `angles` (degrees); "mix": the identity of
            one photo blended into the next one's.
        image_size: (H, W) of the networks.

    Returns: the written files, the sheet first.
    Errors: InputError for settings that leave nothing to generate.
    """
    if what not in ("reconstruction", "novel", "mix"):
        raise InputError(f"what: expected 'reconstruction', 'novel' or 'mix', got {what!r}")
    if what == "novel" and not len(angles):
        raise InputError("angles: expected at least one angle in degrees, got none")
    if num < 1 or not len(records):
        raise InputError(f"num: expected at least 1 image out of at least 1 record, got num={num} and {len(records)} records")
    chosen = draw_records(records, num, seed)
    if what == "mix" and len(chosen) < 2:
        raise InputError(f"num: mixing needs at least 2 images, got {len(chosen)}")
    photos = load_photos([record.path for record in chosen], image_size).to(device)
    meshes = render_meshes(mesh_source, chosen, (0.0,)).to(device)[:, 0]
    drawn = _Drawn(chosen, photos, meshes, bodies_for(generator, mesh_source, chosen, device))
    if what == "reconstruction":
        generated = _reconstructions(encoder, generator, drawn)
    elif what == "novel":
        generated = _turned(encoder, generator, drawn, mesh_source, angles)
    else:
        generated = _mixed(encoder, generator, drawn)
    out = Path(out)
    written = [save_png(out / f"{what}.png", generated.sheet, generated.caption)]
    for name, row in zip(drawn.names, photo_to_uint8(generated.images), strict=True):  # [R, H, W, 3]
        for suffix, picture in zip(generated.suffixes, row, strict=True):
            written.append(save_png(out / what / f"{name}_{suffix}.png", picture))
    return written
