"""Grids of photos, meshes and generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from gcl_fast.images import mesh_to_uint8, photo_to_uint8
from gcl_fast.visuals.canvas import compose


def _bytes(image: Tensor, name: str) -> np.ndarray:
    """[..., 3, H, W] is a photo, [..., 1, H, W] a mesh -> uint8 [..., H, W, 3]."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(image).__name__}")
    if image.dim() < 4 or image.shape[-3] not in (1, 3):
        raise ValueError(f"{name}: expected shape [..., 3 or 1, H, W], got {list(image.shape)}")
    return mesh_to_uint8(image) if image.shape[-3] == 1 else photo_to_uint8(image)


def _fold(name: str) -> str:
    """Break a long file name after underscores into lines of about 12 letters."""
    lines = [""]
    for i, part in enumerate(name.split("_")):
        piece = part if i == 0 else "_" + part
        if lines[-1] and len(lines[-1]) + len(piece) > 12:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def image_rows(rows: Mapping[str, Tensor], *, max_images: int = 8) -> np.ndarray:
    """One labelled row of images per entry, the same sample below itself in every row. Deterministic; no gradient.

    Arguments:
        rows: name -> [B, 3, H, W] ImageNet-normalised photos, or [B, 1, H, W] meshes in [-1, 1]; one size for all.
        max_images: columns shown at most (the first ones).

    Returns: [H', W', 3] uint8.
    """
    if not rows:
        raise ValueError("rows: expected at least one row of images, got none")
    if max_images < 1:
        raise ValueError(f"max_images: expected at least 1, got {max_images}")
    for name, images in rows.items():
        if isinstance(images, Tensor) and images.dim() != 4:
            raise ValueError(f"rows[{name!r}]: expected shape [B, 3 or 1, H, W], got {list(images.shape)}")
    cells = [list(_bytes(images[:max_images], f"rows[{name!r}]")) for name, images in rows.items()]
    return compose(cells, row_titles=list(rows))


def novel_view_grid(
    source: Tensor,
    generated: Tensor,
    angles: Sequence[float],
    truth: Tensor | None = None,
    meshes: Tensor | None = None,
    *,
    warped: Tensor | None = None,
    row_titles: Sequence[str] | None = None,
    title: str | None = None,
    generated_title: str = "generated",
) -> np.ndarray:
    """Each photo with its generated views, one column an angle; above them, if given, the guiding meshes and the photo's own
    pixels carried to the angle, below them the truth.

    Deterministic; no gradient.

    Arguments:
        source: [B, 3, H, W], ImageNet-normalised.
        generated: [B, R, 3, H, W], ImageNet-normalised, R = len(angles).
        angles: degrees.
        truth: [B, R, 3, H, W], ImageNet-normalised.
        meshes: [B, R, 1, H, W] in [-1, 1].
        warped: as truth.
        row_titles: one name for each photo; generated_title: what the rows of `generated` are called.
        title: as `compose`.

    Returns: [H', W', 3] uint8.
    """
    if not isinstance(source, Tensor) or source.dim() != 4 or source.shape[1] != 3:
        raise ValueError(f"source: expected shape [B, 3, H, W], got {list(getattr(source, 'shape', []))}")
    batch, height, width = source.shape[0], source.shape[2], source.shape[3]
    for name, images, channels in (
        ("generated", generated, 3),
        ("truth", truth, 3),
        ("meshes", meshes, 1),
        ("warped", warped, 3),
    ):
        wanted = [batch, len(angles), channels, height, width]
        if images is not None and list(images.shape) != wanted:
            raise ValueError(f"{name}: expected shape {wanted}, got {list(images.shape)}")
    if row_titles is not None and len(row_titles) != batch:
        raise ValueError(f"row_titles: expected {batch} names, got {len(row_titles)}")

    kinds = {"mesh": meshes, "warped": warped, generated_title: generated, "truth": truth}
    shown = {name: _bytes(images, name) for name, images in kinds.items() if images is not None}  # uint8 [B, R, H, W, 3]
    photos = _bytes(source, "source")  # [B, H, W, 3]
    cells: list[list[np.ndarray | None]] = []
    titles = []
    for b in range(batch):
        for name, pictures in shown.items():
            beside_photo = name == generated_title
            cells.append([photos[b] if beside_photo else None, *pictures[b]])
            person = f"{_fold(row_titles[b])}\n" if row_titles is not None and beside_photo else ""
            titles.append(person + name)
    columns = ["photo", *(f"{angle:g}°" for angle in angles)]
    group = len(shown) if len(shown) > 1 else None
    return compose(cells, row_titles=titles, column_titles=columns, title=title, gap_after_column=0, rows_in_group=group)
