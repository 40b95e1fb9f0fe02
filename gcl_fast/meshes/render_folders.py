"""Meshes with vertices -> rendered pictures in the authors' folder layout: what `gcl-fast render` does."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gcl_fast.meshes.mesh_files import write_atomically
from gcl_fast.meshes.sources import VertexMeshes, mesh_key, open_mesh_source, split_folder, view_folder

AUTHORS_ANGLES = (0, 45, 90, 135, 180, 225, 270, 315)


@dataclass(frozen=True)
class RenderReport:
    """Pictures written and pictures that were there already, and the folder of the set."""

    folder: pathlib.Path
    written: int
    skipped: int


def render_dataset(
    data_name: str,
    root: str | os.PathLike[str],
    mesh_root: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    angles: Sequence[int] = AUTHORS_ANGLES,
    image_size: tuple[int, int] = (256, 128),
    *,
    data: Any = None,
    splits: Sequence[str] = ("train", "test"),
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RenderReport:
    """Render the mesh of every image of a dataset into `<out>/<set>/{train,test}/render/`, `render_45/` ...

    data_name   market1501, dukemtmc, msmt17 or csv; root: the folder load_dataset reads
    mesh_root   the folder of the meshes (None: `<root>/mesh`); out may be the same folder
    angles      whole degrees; 0 is the photo's own view
    image_size  (H, W) of the pictures
    data        an opened dataset (train, query, gallery: lists of records with a path), instead of reading `root`
    splits      train, test or both; test holds query and gallery
    overwrite   write pictures again that are there already
    progress    called with (images done, images in all) after each image

    Pictures are grey, named as the images, in the format of their extension (JPEG quality 95). Each file is written
    atomically, so a killed run goes on where it stopped. Deterministic. Raises FileNotFoundError naming the images
    without a mesh before anything is written, ValueError for a bad argument.
    """
    views = {view_folder(angle): float(angle) for angle in angles}  # folder -> degrees
    if not views:
        raise ValueError("render_dataset: angles must name at least one angle, got none")
    if data is None:
        from gcl_fast.data.datasets.load import load_dataset

        data = load_dataset(data_name, root)
    mesh_root = pathlib.Path(root) / "mesh" if mesh_root is None else pathlib.Path(mesh_root)

    jobs: list[tuple[VertexMeshes, pathlib.Path, Any]] = []
    for split in splits:
        target = split_folder(out, data_name, split)
        records = list(data.train) if split == "train" else [*data.query, *data.gallery]
        if records:
            source = _source(mesh_root, data_name, split, image_size, records)
            jobs += [(source, target, record) for record in records]

    written = 0
    for done, (source, target, record) in enumerate(jobs, start=1):
        key = mesh_key(record, data_name) + pathlib.PurePath(record.path).suffix
        wanted = {target / view / key: yaw for view, yaw in views.items() if overwrite or not (target / view / key).exists()}
        if wanted:
            for path, picture in zip(wanted, source.render(record, list(wanted.values())), strict=True):
                write_picture(path, picture)
            written += len(wanted)
        if progress is not None:
            progress(done, len(jobs))
    folder = split_folder(out, data_name, "train").parent
    return RenderReport(folder, written, len(jobs) * len(views) - written)


def _source(
    mesh_root: pathlib.Path, data_name: str, split: str, image_size: tuple[int, int], records: Sequence[Any]
) -> VertexMeshes:
    source = open_mesh_source(mesh_root, data_name, split, image_size, kind="vertices")
    missing = source.missing(records)
    if missing:
        names = ", ".join(source.path(record).name for record in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise FileNotFoundError(f"{len(missing)} of {len(records)} {split} images have no mesh in {source.folder}: {names}")
    return source


def write_picture(path: pathlib.Path, picture: Tensor) -> None:
    """One grey picture [H, W] in [0, 1], in the format that the file's extension names."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("writing rendered pictures needs Pillow: pip install pillow") from error
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"cannot write {path}: no picture format has the extension {path.suffix!r}")
    grey = Image.fromarray((picture * 255).round().byte().numpy())
    write_atomically(path, lambda file: grey.save(file, format=kind, quality=95))
