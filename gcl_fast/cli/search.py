"""gcl-fast search: the photos of a folder that look most like a given one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gcl_fast.cli.embed import PhotoOptions
from gcl_fast.cli.options import named_png, parse
from gcl_fast.config.plain_values import positive


@dataclass
class SearchOptions:
    """Print the photos of a folder nearest to a photo (or to each photo of another folder), and write a sheet of them.

    A photo that is in the folder itself is not found for itself.
    """

    query: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="QUERY")]
    """A photo, or a folder of photos."""
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """The folder to search, with the folders inside it, or its features as gcl-fast embed wrote them (.npz)."""
    reading: tyro.conf.OmitArgPrefixes[PhotoOptions]
    top: int = 10
    """Photos found for each query."""
    sheet: Path = Path("search.png")
    """Picture to write: each query with what was found, nearest first."""
    rows: int = 8
    """Queries on the sheet at most, evenly spread over all."""

    def __post_init__(self) -> None:
        positive(self, "top", "rows")
        named_png("--sheet", self.sheet)


def main(argv: list[str]) -> int:
    options = parse(SearchOptions, argv, prog="gcl-fast search")

    from gcl_fast.data.datasets.readable import name_files
    from gcl_fast.errors import InputError
    from gcl_fast.files import check_writable
    from gcl_fast.progress import counting
    from gcl_fast.runs.device import choose_device
    from gcl_fast.runs.feature_files import check_encoder, names_below, read_features
    from gcl_fast.runs.photo_features import Reading, encoder_and_size, photo_features, photos_at
    from gcl_fast.runs.photo_search import nearest, search_sheet
    from gcl_fast.visuals import save_png

    check_writable(options.sheet)
    given, base = options.reading, options.folder
    asked = photos_at(options.query)
    kept = read_features(base) if base.suffix == ".npz" else None
    encoder, size = encoder_and_size(given.weights, given.height, given.width)
    if kept is not None:
        check_encoder(base, kept, given.weights, encoder, size)
    reading = Reading(size, choose_device(given.device), given.batch_size, given.workers, given.skip_broken)
    with counting("read queries") as progress:
        queries = photo_features(asked, encoder, reading, progress)
    if kept is not None:
        gallery, base = kept.photos, kept.folder
    else:
        paths = photos_at(base, written=options.sheet)
        with counting("read the folder") as progress:
            gallery = photo_features(paths, encoder, reading, progress)
    if gallery.features.shape[1] != queries.features.shape[1]:
        raise InputError(
            f"{options.folder} holds {gallery.features.shape[1]} features a photo, the encoder of {given.weights} gives "
            f"{queries.features.shape[1]}: embed the folder with the same weights"
        )
    found = nearest(queries, gallery, options.top)
    names = names_below(queries.paths, options.query), names_below(gallery.paths, base)
    for name, row in zip(names[0], found, strict=True):
        print(name)
        for rank, (place, similarity) in enumerate(row, start=1):
            print(f"  {rank:3d}  {similarity:.3f}  {names[1][place]}")
    sheet, unreadable = search_sheet(queries, gallery, found, size, options.rows, names)
    written = save_png(options.sheet, sheet)
    if unreadable:
        print(name_files(f"note: {len(unreadable)} of the photos on the sheet cannot be read, and are grey", unreadable, limit=3))
    print(f"sheet: {written}")
    return 0
