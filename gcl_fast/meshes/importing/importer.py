"""Estimators' outputs -> one mesh file an image of a data set: what `gcl-fast import-meshes` does."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.images import pillow
from gcl_fast.meshes.coverage import coverage_lines, covered_share
from gcl_fast.meshes.importing.estimate_files import SUFFIXES
from gcl_fast.meshes.importing.estimates import Estimate, read_estimates
from gcl_fast.meshes.importing.mesh_converter import MeshConverter
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh, read_faces, write_faces, write_mesh
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.meshes.sources import SPLITS, mesh_key, split_folder
from gcl_fast.records import ReIDData

Key = tuple[str, str]  # split and `mesh_key` of an image
MISSING = ("error", "leave-out", "mean")


@dataclass
class MeshReport:
    """What became of the images: paths with a mesh of their own, with the mean body, without one; estimates of no image."""

    folder: pathlib.Path
    written: list[pathlib.Path] = field(default_factory=list)
    mean: list[pathlib.Path] = field(default_factory=list)
    missing: list[pathlib.Path] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    coverage: dict[pathlib.Path, float] = field(default_factory=dict)
    """Of each image with a mesh of its own, the share of the picture that the body covers."""

    def __str__(self) -> str:
        lines = [f"{len(self.written)} meshes in {self.folder}", *coverage_lines(self.coverage)]
        for title, names in (
            ("images given the mean body", self.mean),
            ("images without a mesh", self.missing),
            ("estimates of images that the data set does not have", self.unknown),
            ("images with several people, the largest taken", self.several),
        ):
            if names:
                shown = ", ".join(pathlib.PurePath(n).name for n in names[:8]) + (" ..." if len(names) > 8 else "")
                lines.append(f"{len(names)} {title}: {shown}")
        return "\n".join(lines)


def import_meshes(
    data: ReIDData,
    sources: Sequence[str | os.PathLike[str]],
    *,
    mesh_root: str | os.PathLike[str] | None = None,
    format: str = "auto",
    smpl: str | os.PathLike[str] | None = None,
    faces: str | os.PathLike[str] | None = None,
    axes: str = "y-down",
    focal: float | None = None,
    fit: bool = False,
    image_size: tuple[int, int] = (256, 128),
    missing: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> MeshReport:
    """Write `<mesh_root>/<set>/<split>/vertices/<image>.npz` for every image that `sources` hold a body for.

    Images are found by name; where several have it, by as many folders of the path as it takes. Deterministic; each file is
    written whole or not at all.

    Arguments:
        data: the opened dataset.
        sources: files, or folders searched through; formats as `gcl_fast.meshes.importing.estimates` lists them.
        mesh_root: where the meshes go; None: `mesh` in the dataset's root.
        format: auto, or the one of those formats that the files must have.
        smpl: the user's SMPL model (.npz or .pkl), needed where a file holds pose and shape instead of vertices.
        faces: a .npy, .obj or .ply with the triangles, where neither the files nor the model have them.
        axes: of vertices: "y-down" (x right, y down, z away, as estimators write them) or "y-up" (y up, z towards the camera).
        focal: pixels of the image, for plain vertices that already stand in front of a perspective camera.
        fit: give plain vertices without a camera one that lets the body fill the image's height.
        image_size: (height, width) that images are resized to for training; bodies are reshaped alike.
        missing: images without a body: "error" (the others are written, then MissingFileError lists them), "leave-out"
            (listed in the report), "mean" (given the mean body of the imported ones).
        progress: called with (bodies done, bodies in all) after each body.

    Errors: InputError naming file and reason; MissingFileError.
    """
    if missing not in MISSING:
        raise InputError(f"import_meshes: missing must be one of {', '.join(MISSING)}, got {missing!r}")
    if axes not in ("y-down", "y-up"):
        raise InputError(f"import_meshes: axes must be y-down or y-up, got {axes!r}")
    root = data.root / "mesh" if mesh_root is None else pathlib.Path(mesh_root)
    report = MeshReport(split_folder(root, data.name, "train").parent)
    records = {(split, mesh_key(r, data.name)): r for split in SPLITS for r in data.mesh_split(split)}
    paths = {key: pathlib.Path(record.path) for key, record in records.items()}
    chosen = _choose(_all(sources, format), _Finder(paths), report)
    converter = MeshConverter(SMPL.load(smpl) if smpl is not None else None, _read_faces(faces), axes, focal, fit, image_size)
    folders = _MeshFolders(root, data.name)
    meshes: list[Mesh] = []  # of all, for the mean body: vertices and cameras are small beside the images
    for done, (key, estimate) in enumerate(chosen.items(), start=1):
        mesh = _mesh_of(paths[key], estimate, converter)
        folders.write(key, mesh)
        report.written.append(paths[key])
        report.coverage[paths[key]] = covered_share(mesh, image_size)
        if missing == "mean":
            meshes.append(mesh)
        if progress is not None:
            progress(done, len(chosen))
    without = [key for key in paths if key not in chosen]
    if missing == "mean" and without:
        body = mean_body(meshes, image_size)
        for key in without:
            folders.write(key, body)
            report.mean.append(paths[key])
        return report
    report.missing = [paths[key] for key in without]
    if missing == "error" and without:
        raise MissingFileError(f"{report}\nthe other images have theirs; missing 'leave-out' or 'mean' accepts this")
    return report


def _mesh_of(path: pathlib.Path, estimate: Estimate, converter: MeshConverter) -> Mesh:
    """The mesh of one image; errors name it."""
    try:
        return converter.convert(estimate, _size_of(path))
    except InputError as error:
        raise InputError(f"the body of {path.name}: {error}") from error


def _all(sources: Iterable[str | os.PathLike[str]], format: str) -> Iterable[Estimate]:
    for source in map(pathlib.Path, sources):
        if not source.exists():
            raise MissingFileError(f"estimates {source} do not exist")
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
        if not files:
            raise InputError(f"estimates {source}: no file in it ends in {', '.join(SUFFIXES)}")
        for file in files:
            for estimate in read_estimates(file, format):
                # a file named as its image may need its folder to tell the image
                yield estimate if estimate.name != file.stem else replace(estimate, name=str(file))


class _Finder:
    """From an estimator's name of an image to the data set's."""

    def __init__(self, paths: Mapping[Key, pathlib.PurePath]) -> None:
        self.by_stem: dict[str, list[tuple[Key, tuple[str, ...]]]] = {}  # with the folders above it, the nearest first
        for key, path in paths.items():
            self.by_stem.setdefault(path.stem, []).append((key, path.parts[:-1][::-1]))

    def key(self, name: str) -> Key | None:
        """The image that an estimator calls `name`; None where the data set has none."""
        path = pathlib.PurePath(name.replace("\\", "/"))
        candidates = self.by_stem.get(path.stem) or self.by_stem.get(path.name) or []
        if len(candidates) <= 1:
            return candidates[0][0] if candidates else None
        folders = path.parts[:-1][::-1]
        shared = [_common_length(above, folders) for _, above in candidates]
        if shared.count(max(shared)) > 1:
            raise InputError(f"the estimate {name} may be of {len(candidates)} images of that name; give more of the path")
        return candidates[shared.index(max(shared))][0]


def _common_length(a: Sequence[str], b: Sequence[str]) -> int:
    """How many entries two sequences share from their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _choose(estimates: Iterable[Estimate], finder: _Finder, report: MeshReport) -> dict[Key, Estimate]:
    """The estimate of each image; of several people the largest."""
    chosen: dict[Key, Estimate] = {}
    for estimate in estimates:
        key = finder.key(estimate.name)
        if key is None:
            report.unknown.append(estimate.name)
        elif key not in chosen:
            chosen[key] = estimate
        else:
            if key[1] not in report.several:
                report.several.append(key[1])
            if estimate.area > chosen[key].area:
                chosen[key] = estimate
    if not chosen:
        names = ", ".join(report.unknown[:3])
        raise InputError(f"none of the estimates names an image of the data set: {names or 'there are none'}")
    return chosen


def _size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        with pillow().open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise InputError(f"image {path} cannot be read: {error}") from error


def _read_faces(path: str | os.PathLike[str] | None) -> np.ndarray | None:
    if path is None:
        return None
    return read_faces(path) if pathlib.Path(path).suffix == ".npy" else read_surface(path)[1]


class _MeshFolders:
    """Writes mesh files; the triangles once a folder, or in the file where they differ from the folder's."""

    def __init__(self, root: pathlib.Path, dataset_name: str) -> None:
        self.root, self.dataset_name = root, dataset_name
        self._faces: dict[str, np.ndarray] = {}  # split -> what its faces.npy holds

    def write(self, key: Key, mesh: Mesh) -> None:
        split, name = key
        assert mesh.faces is not None
        folder = split_folder(self.root, self.dataset_name, split) / "vertices"
        path = folder / f"{name}.npz"
        if split not in self._faces:
            shared = folder / "faces.npy"
            if not shared.is_file():
                write_faces(folder, mesh.faces)
            self._faces[split] = read_faces(shared)
        needed = 1 + int(mesh.faces.max(initial=-1))
        if needed > len(mesh.vertices):
            raise InputError(f"{path}: the triangles name {needed} vertices, the body has {len(mesh.vertices)}")
        differ = not np.array_equal(self._faces[split], mesh.faces)
        write_mesh(path, mesh.vertices, mesh.camera, mesh.faces if differ else None)
