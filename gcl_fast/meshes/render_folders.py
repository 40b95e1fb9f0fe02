"""Meshes with vertices -> rendered pictures in the authors' folder layout: what `gcl-fast render` does."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from gcl_fast.constants import ALL_YAWS
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import write_whole
from gcl_fast.images import pillow, unit_to_levels
from gcl_fast.meshes.sources import VertexMeshes, open_mesh_source, split_folder, view_folder
from gcl_fast.progress import counted
from gcl_fast.records import Record, ReIDData


@dataclass(frozen=True)
class RenderReport:
    """Pictures written and pictures that were there already, and the folder of the set."""

    folder: pathlib.Path
    written: int
    skipped: int

    def __str__(self) -> str:
        there = f", {self.skipped} were there already (--overwrite writes them again)" if self.skipped else ""
        return f"{counted(self.written, 'picture')} written to {self.folder}{there}"


def render_dataset(
    data: ReIDData,
    mesh_root: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    angles: Sequence[int] = ALL_YAWS,
    image_size: tuple[int, int] = (256, 128),
    *,
    splits: Sequence[str] = ("train", "test"),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RenderReport:
    """Render the mesh of every image of a dataset into `<out>/<set>/{train,test}/render/`, `render_45/` ...

    Pictures are grey, named as the images, in the format of their extension (JPEG quality 95). Each is written whole, so a
    killed run goes on where it stopped. Deterministic.

    Arguments:
        data: the opened dataset.
        mesh_root: folder of the meshes; None: `mesh` in the dataset's root. `out` may be the same folder.
        out: where the pictures go.
        angles: whole degrees; 0 is the photo's own view.
        image_size: (height, width) of the pictures in pixels.
        splits: train, test or both; test holds query and gallery.
        overwrite: write pictures again that are there already.
        progress: called with (images done, images in all) after each image.

    Errors: MissingFileError naming the images without a mesh, before anything is written; InputError for a bad argument.
    """
    views = {view_folder(angle): float(angle) for angle in angles}  # folder -> degrees
    if not views:
        raise InputError("render_dataset: angles must name at least one angle, got none")
    meshes = data.root / "mesh" if mesh_root is None else pathlib.Path(mesh_root)
    jobs = [job for split in splits for job in _jobs(data, meshes, split, image_size)]
    written = 0
    for done, (source, split, record) in enumerate(jobs, start=1):
        folder = split_folder(out, data.name, split)
        name = source.key(record) + pathlib.PurePath(record.path).suffix
        wanted = {folder / view / name: yaw for view, yaw in views.items() if overwrite or not (folder / view / name).exists()}
        if wanted:
            for path, picture in zip(wanted, source.render(record, list(wanted.values())), strict=True):
                write_picture(path, picture)
            written += len(wanted)
        if progress is not None:
            progress(done, len(jobs))
    return RenderReport(split_folder(out, data.name, "train").parent, written, len(jobs) * len(views) - written)


def _jobs(
    data: ReIDData, mesh_root: pathlib.Path, split: str, image_size: tuple[int, int]
) -> Iterator[tuple[VertexMeshes, str, Record]]:
    """Each image of a split with the source of its mesh."""
    split_folder(mesh_root, data.name, split)  # names a bad split also where there is no image
    records = data.mesh_split(split)
    if not records:
        return
    source = open_mesh_source(mesh_root, data.name, split, image_size, kind="vertices")
    assert isinstance(source, VertexMeshes)
    missing = source.missing(records)
    if missing:
        names = ", ".join(source.path(record).name for record in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise MissingFileError(f"{len(missing)} of {len(records)} {split} images have no mesh in {source.folder}: {names}")
    for record in records:
        yield source, split, record


def write_picture(path: pathlib.Path, picture: Tensor) -> None:
    """One grey picture [H, W] in [0, 1], in the format that the file's extension names."""
    Image = pillow()
    format_name = Image.registered_extensions().get(path.suffix.lower())
    if format_name is None:
        raise InputError(f"cannot write {path}: no picture format has the extension {path.suffix!r}")
    grey = Image.fromarray(unit_to_levels(picture).numpy())
    write_whole(path, lambda file: grey.save(file, format=format_name, quality=95), flush=False)
