"""The photos nearest to others by their features, and a sheet of them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import torch

from gcl_fast.errors import FileError, MissingFileError
from gcl_fast.evaluation import top_matches
from gcl_fast.files import file_numbers
from gcl_fast.images import load_uint8
from gcl_fast.records import spread
from gcl_fast.runs.photo_features import PhotoFeatures
from gcl_fast.visuals.canvas import BLUE, Colour, compose

Found = list[list[tuple[int, float]]]
"""For each query the places of photos, nearest first, with their cosine similarity."""
LETTERS = 18  # of a name below a photo
GREY = 225  # in the place of a photo that cannot be read


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
    queries: PhotoFeatures,
    gallery: PhotoFeatures,
    found: Found,
    image_size: tuple[int, int],
    rows: int,
    names: tuple[list[str], list[str]],
) -> tuple[np.ndarray, list[str]]:
    """One row a query (blue frame), at most `rows` of them, with the photos found: [H, W, 3] uint8.

    names: of queries and gallery, as they are told.
    Returns: the sheet, and why photos could not be read any more, one reason each; they are grey.
    """
    unreadable: dict[Path, str] = {}

    def picture(path: Path) -> np.ndarray:
        try:
            return load_uint8(path, image_size)
        except (FileError, MissingFileError) as error:
            unreadable[path] = str(error)
            return np.full((*image_size, 3), GREY, np.uint8)

    asked, there = names
    cells: list[list[np.ndarray | None]] = []
    captions: list[list[str]] = []
    for q in spread(range(len(found)), rows):
        cells.append([picture(queries.paths[q]), *(picture(gallery.paths[place]) for place, _ in found[q])])
        captions.append([short(asked[q]), *(f"{short(there[place])}\n{similarity:.3f}" for place, similarity in found[q])])
    borders: list[list[Colour | None]] = [[BLUE, *[None] * (len(row) - 1)] for row in cells]
    columns = max(len(row) for row in cells)
    sheet = compose(
        cells,
        column_titles=["query", *(str(k) for k in range(1, columns))],
        captions=captions,
        borders=borders,
        gap_after_column=0,
    )
    return sheet, list(unreadable.values())


def short(name: str) -> str:
    """A name in LETTERS letters: its two ends, for names of one folder often differ in their last letters alone."""
    name = unicodedata.normalize("NFC", name)  # no cut between a letter and its mark
    half = LETTERS // 2
    return name if len(name) <= LETTERS else f"{name[:half]}…{name[half + 1 - LETTERS :]}"
