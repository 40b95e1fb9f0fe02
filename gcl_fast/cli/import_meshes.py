"""gcl-fast import-meshes: outputs of body estimators as the meshes of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from gcl_fast.cli.mesh_writing import MeshWriting
from gcl_fast.cli.options import parse
from gcl_fast.constants import DatasetName
from gcl_fast.errors import InputError

if TYPE_CHECKING:
    from gcl_fast.records import ReIDData


@dataclass
class ImportMeshesOptions(MeshWriting):
    """Turn what a body estimator wrote into the mesh files that stages 2 and 3 read.

    HMR, 4D-Humans, TokenHMR, CLIFF, SAM 3D Body, and plain vertices (.npz, .obj, .ply), in .npz, .npy, .pkl, .pt or .json.
    Nothing in the files is executed. Look at the preview before training.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders of the estimator's output."""
    root: str
    """Folder that holds the data set's folder."""
    dataset: DatasetName = "market1501"
    mesh_root: str | None = None
    """Where the meshes go; default <root>/mesh."""
    format: Literal["auto", "hmr", "4d-humans", "cliff", "sam-3d-body", "vertices"] = "auto"
    smpl: Path | None = None
    """Your SMPL model (.npz or .pkl), for estimators that write pose and shape."""
    faces: Path | None = None
    """Triangles (.npy, .obj, .ply) where neither the estimates nor the model have them."""
    axes: Literal["y-down", "y-up"] = "y-down"
    """Of the vertices; y-up also has z towards the camera, as the .obj files of 4D-Humans."""
    focal: float | None = None
    """Focal length in pixels of the image, for plain vertices that stand in front of the camera."""
    fit: bool = False
    """Fit plain vertices without a camera into the image's height."""
    missing: Literal["error", "leave-out", "mean"] = "error"
    """Images without a body: an error that lists them, left out (train with --skip-unmeshed), or the mean of the others."""
    rendered: bool = False
    """Also render the authors' folders, at every 45 degrees."""
    height: int = 256
    width: int = 128
    """Size that images are resized to for training."""
    preview: Path | None = None
    """Draw meshes over their photos (PNG)."""
    preview_count: int = 16


def write_meshes(options: ImportMeshesOptions, data: ReIDData) -> ReIDData:
    """The mesh files; gives the data, without the images that --missing leave-out leaves out."""
    from gcl_fast.meshes.importing.importer import import_meshes
    from gcl_fast.progress import counting

    with counting("import meshes") as progress:
        report = import_meshes(
            data,
            options.sources,
            mesh_root=options.mesh_dir(data),
            format=options.format,
            smpl=options.smpl,
            faces=options.faces,
            axes=options.axes,
            focal=options.focal,
            fit=options.fit,
            image_size=options.image_size,
            missing=options.missing,
            progress=progress,
        )
    print(report)
    return data.without(report.missing) if options.missing == "leave-out" else data


def render_authors_folders(options: ImportMeshesOptions, data: ReIDData) -> None:
    """The same bodies as the pictures that the authors' code reads."""
    from gcl_fast.meshes.render_folders import render_dataset
    from gcl_fast.progress import counting

    folder = options.mesh_dir(data)
    with counting("render") as progress:
        print(render_dataset(data, folder, folder, image_size=options.image_size, overwrite=True, progress=progress))


def main(argv: list[str]) -> int:
    options = parse(ImportMeshesOptions, argv, prog="gcl-fast import-meshes")
    if not options.sources:
        raise InputError("name at least one file or folder of estimates")
    options.check_preview()

    from gcl_fast.data.datasets.load import load_dataset

    data = write_meshes(options, load_dataset(options.dataset, options.root))
    options.draw_preview(data)
    if options.rendered:
        render_authors_folders(options, data)
    return 0
