"""Scores of generated images that need no true views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gcl_fast.generation.decoding import novel_views, reconstruct
from gcl_fast.generation.inputs import bodies_for, load_photos, render_meshes
from gcl_fast.generation.measures import FrechetDistance, psnr, ssim
from gcl_fast.images import photo_to_unit
from gcl_fast.meshes import MeshSource
from gcl_fast.models import Generator, IdentityEncoder
from gcl_fast.records import Record


def score_generated(
    encoder: IdentityEncoder,
    generator: Generator,
    records: Sequence[Record],
    mesh_source: MeshSource,
    image_size: tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    yaws: Sequence[float],
    fid: FrechetDistance | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Reconstructions against their photos, and novel views against the photos as a set. Deterministic; no gradient.

    Arguments:
        records: at least one; mesh_source: of their split.
        image_size: (H, W) of the networks.
        yaws: degrees of the novel views, for the FID.
        fid: counts photos and novel views in.
        progress: called with (images done, images in all).

    Returns: "reconstruction_psnr", "reconstruction_ssim": G(E_str(mesh), E_id(photo).code) against the photo, means over the
        images; "images", their number; and where fid is given "novel_view_fid".
    """
    if not len(records):
        raise ValueError("score_generated: records must hold at least one image, got none")
    values: dict[str, list[Tensor]] = {"reconstruction_psnr": [], "reconstruction_ssim": []}
    for first in range(0, len(records), batch_size):
        batch = records[first : first + batch_size]
        photos = load_photos([record.path for record in batch], image_size).to(device)
        meshes = render_meshes(mesh_source, batch, (0.0, *yaws)).to(device)  # [n, 1 + R, 1, H, W]
        truth = photo_to_unit(photos)
        bodies = bodies_for(generator, mesh_source, batch, device)
        reconstructions = photo_to_unit(reconstruct(encoder, generator, photos, meshes[:, 0], bodies=bodies))
        values["reconstruction_psnr"].append(psnr(reconstructions, truth))
        values["reconstruction_ssim"].append(ssim(reconstructions, truth))
        if fid is not None:
            fid.add(truth, real=True)
            views = novel_views(encoder, generator, photos, meshes[:, 1:], bodies=bodies, yaws=yaws)  # [n, R, 3, H, W]
            fid.add(photo_to_unit(views.flatten(0, 1)), real=False)
        if progress is not None:
            progress(first + len(batch), len(records))
    scores = {name: float(torch.cat(parts).double().mean()) for name, parts in values.items()}
    if fid is not None:
        scores["novel_view_fid"] = fid.value()
    return {**scores, "images": len(records)}
