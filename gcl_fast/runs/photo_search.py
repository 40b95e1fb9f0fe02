"""The photos nearest to others by their features, and a sheet of them."""

from __future__ import annotations

import numpy as np
import torch

from gcl_fast.evaluation import top_matches
from gcl_fast.files import file_numbers
from gcl_fast.images import load_uint8
from gcl_fast.runs.photo_features import PhotoFeatures
from gcl_fast.visuals.canvas import BLUE, Colour, compose

Found = list[list[tuple[int, float]]]
"""For each query the places of photos, nearest first, with their cosine similarity."""
LETTERS = 16  # of a name below a photo


def nearest(queries: PhotoFeatures, gallery: PhotoFeatures, top: int) -> Found:
    """The `top` nearest photos of each query, its own file left out."""
    files = torch.tensor(file_numbers([*queries.paths, *gallery.paths]), dtype=torch.int64)
    ids = files[: len(queries.paths)], files[len(queries.paths) :]
    # Photos of one number and one camera are ignored: a photo and itself.
    kept = gallery.features.to(queries.features.device)  # a file's are on the CPU
    matches = top_matches(queries.features, kept, *ids, *(torch.zeros_like(n) for n in ids), top=top)
    rows = zip(matches.index.tolist(), matches.similarity.tolist(), strict=True)
    return [[(place, value) for place, value in zip(*row, strict=True) if place >= 0] for row in rows]


def search_sheet(
    queries: PhotoFeatures, gallery: PhotoFeatures, found: Found, image_size: tuple[int, int], rows: int
) -> np.ndarray:
    """One row a query (blue frame), at most `rows` of them, with the photos found. Returns [H, W, 3] uint8."""
    chosen = sorted({i * (len(found) - 1) // max(min(rows, len(found)) - 1, 1) for i in range(min(rows, len(found)))})
    cells: list[list[np.ndarray | None]] = []
    captions: list[list[str]] = []
    for q in chosen:
        photos = [load_uint8(queries.paths[q], image_size)]
        cells.append([*photos, *(load_uint8(gallery.paths[place], image_size) for place, _ in found[q])])
        captions.append(
            [
                _short(queries.paths[q].name),
                *(f"{_short(gallery.paths[place].name)}\n{similarity:.3f}" for place, similarity in found[q]),
            ]
        )
    borders: list[list[Colour | None]] = [[BLUE, *[None] * (len(row) - 1)] for row in cells]
    columns = max(len(row) for row in cells)
    return compose(
        cells,
        column_titles=["query", *(str(k) for k in range(1, columns))],
        captions=captions,
        borders=borders,
        gap_after_column=0,
    )


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 7]}...{name[-4:]}"
