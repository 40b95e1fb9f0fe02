"""gcl-fast import-meshes: outputs of body estimators as the meshes of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gcl_fast.cli.options import parse, positional
from gcl_fast.constants import DatasetName
from gcl_fast.errors import InputError


@dataclass
class ImportMeshesOptions:
    """Turn what a body estimator wrote into the mesh files that stages 2 and 3 read.

    HMR, 4D-Humans, TokenHMR, CLIFF, SAM 3D Body, and plain vertices (.npz, .obj, .ply), in .npz, .npy, .pkl, .pt or .json.
    Nothing in the files is executed. Look at the preview before training.
    """

    sources: Annotated[tuple[Path, ...], positional()]
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


def main(argv: list[str]) -> int:
    options = parse(ImportMeshesOptions, argv, prog="gcl-fast import-meshes")
    if not options.sources:
        raise InputError("name at least one file or folder of estimates")

    import numpy as np

    from gcl_fast.data.datasets.load import load_dataset
    from gcl_fast.meshes import open_mesh_source
    from gcl_fast.meshes.importing.importer import import_meshes
    from gcl_fast.meshes.preview import preview_meshes
    from gcl_fast.meshes.render_folders import render_dataset
    from gcl_fast.progress import counting

    size = (options.height, options.width)
    data = load_dataset(options.dataset, options.root)
    mesh_root = Path(options.mesh_root) if options.mesh_root else data.root / "mesh"
    with counting("import meshes") as progress:
        report = import_meshes(
            data,
            options.sources,
            mesh_root=mesh_root,
            format=options.format,
            smpl=options.smpl,
            faces=options.faces,
            axes=options.axes,
            focal=options.focal,
            fit=options.fit,
            image_size=size,
            missing=options.missing,
            progress=progress,
        )
    print(report)
    if options.missing == "leave-out":
        data = data.without(report.missing)
    if options.preview is not None:
        split = "train" if data.train else "test"
        records = data.mesh_split(split)
        count = min(options.preview_count, len(records))
        chosen: list[int] = np.unique(np.linspace(0, len(records) - 1, count).astype(int)).tolist() if records else []
        source = open_mesh_source(mesh_root, data.name, split, size, kind="vertices")
        print(f"preview: {preview_meshes(source, [records[i] for i in chosen], options.preview, size)}")
    if options.rendered:
        with counting("render") as progress:
            print(render_dataset(data, mesh_root, mesh_root, image_size=size, overwrite=True, progress=progress))
    return 0
