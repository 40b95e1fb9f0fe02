"""Estimators' outputs -> one mesh file an image of a data set: what `gcl-fast import-meshes` does."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gcl_fast.images import pillow
from gcl_fast.meshes.importing.estimate_files import SUFFIXES
from gcl_fast.meshes.importing.estimates import Estimate, read_estimates
from gcl_fast.meshes.importing.estimator_cameras import reshape_image
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh, read_faces, write_faces, write_mesh
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.meshes.sources import mesh_key, split_folder

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

    def __str__(self) -> str:
        lines = [f"{len(self.written)} meshes in {self.folder}"]
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
    data_name: str,
    root: str | os.PathLike[str],
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
    data: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> MeshReport:
    """Write `<mesh_root>/<set>/<split>/vertices/<image>.npz` for every image that `sources` hold a body for.

    sources     files, or folders searched through; formats as `gcl_fast.meshes.importing.estimates` lists them
    smpl        the user's SMPL model (.npz or .pkl), needed where a file holds pose and shape instead of vertices
    faces       a .npy, .obj or .ply with the triangles, where neither the files nor the model have them
    axes        of vertices: "y-down" (x right, y down, z away, as estimators write them) or "y-up" (y up, z towards the camera)
    focal       pixels of the image, for plain vertices that already stand in front of a perspective camera
    fit         give plain vertices without a camera one that lets the body fill the image's height
    image_size  (H, W) that images are resized to for training; bodies are reshaped alike
    missing     images without a body: "error" (the others are written, then FileNotFoundError lists them), "leave-out"
                (listed in the report), "mean" (given the mean body of the imported ones)

    Images are found by name; where several have it, by as many folders of the path as it takes. Raises ValueError naming file and
    reason. Deterministic; each file is written whole or not at all.
    """
    if missing not in MISSING:
        raise ValueError(f"import_meshes: missing must be one of {', '.join(MISSING)}, got {missing!r}")
    if axes not in ("y-down", "y-up"):
        raise ValueError(f"import_meshes: axes must be y-down or y-up, got {axes!r}")
    if data is None:
        from gcl_fast.data.datasets.load import load_dataset

        data = load_dataset(data_name, root)
    mesh_root = pathlib.Path(root) / "mesh" if mesh_root is None else pathlib.Path(mesh_root)
    splits = {"train": list(data.train), "test": [*data.query, *data.gallery]}
    report = MeshReport(split_folder(mesh_root, data_name, "train").parent)
    records = {(split, mesh_key(r, data_name)): r for split, rs in splits.items() for r in rs}
    chosen = _choose(_all(sources, format), _Finder(records), report)
    maker = _Maker(SMPL.load(smpl) if smpl is not None else None, _read_faces(faces), axes, focal, fit, image_size)

    shared: dict[str, np.ndarray] = {}
    last: list[Mesh] = []  # of all, for the mean body: vertices and cameras are small beside the images
    for done, (key, estimate) in enumerate(chosen.items(), start=1):
        record = records[key]
        try:
            mesh = maker.make(estimate, _size_of(record.path))
        except ValueError as error:
            raise ValueError(f"the body of {pathlib.Path(record.path).name}: {error}") from error
        _write(mesh_root, data_name, key, mesh, shared)
        report.written.append(pathlib.Path(record.path))
        if missing == "mean":
            last.append(mesh)
        if progress is not None:
            progress(done, len(chosen))

    without = [key for key in records if key not in chosen]
    if missing == "mean" and without:
        body = mean_body(last, image_size)
        for key in without:
            _write(mesh_root, data_name, key, body, shared)
            report.mean.append(pathlib.Path(records[key].path))
        return report
    report.missing = [pathlib.Path(records[key].path) for key in without]
    if missing == "error" and without:
        raise FileNotFoundError(f"{report}\nthe other images have theirs; missing 'leave-out' or 'mean' accepts this")
    return report


def _all(sources: Iterable[str | os.PathLike[str]], format: str) -> Iterable[Estimate]:
    for source in map(pathlib.Path, sources):
        if not source.exists():
            raise FileNotFoundError(f"estimates {source} do not exist")
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES) if source.is_dir() else [source]
        if not files:
            raise ValueError(f"estimates {source}: no file in it ends in {', '.join(SUFFIXES)}")
        for file in files:
            for one in read_estimates(file, format):
                # a file named as its image may need its folder to tell the image
                yield one if one.name != file.stem else replace(one, name=str(file))


class _Finder:
    """From an estimator's name of an image to the data set's."""

    def __init__(self, records: dict[tuple[str, str], Any]) -> None:
        self.by_stem: dict[str, list[tuple[tuple[str, str], tuple[str, ...]]]] = {}
        for key, record in records.items():
            path = pathlib.PurePath(record.path)
            self.by_stem.setdefault(path.stem, []).append((key, path.parts[:-1][::-1]))

    def key(self, name: str) -> tuple[str, str] | None:
        path = pathlib.PurePath(name.replace("\\", "/"))
        found = self.by_stem.get(path.stem) or self.by_stem.get(path.name) or []
        if len(found) <= 1:
            return found[0][0] if found else None
        folders = path.parts[:-1][::-1]

        def agreement(parts: tuple[str, ...]) -> int:
            return next(
                (i for i, (a, b) in enumerate(zip(parts, folders, strict=False)) if a != b), min(len(parts), len(folders))
            )

        scores = [agreement(parts) for _, parts in found]
        if scores.count(max(scores)) > 1:
            raise ValueError(f"the estimate {name} may be of {len(found)} images of that name; give more of the path")
        return found[scores.index(max(scores))][0]


def _choose(estimates: Iterable[Estimate], finder: _Finder, report: MeshReport) -> dict[tuple[str, str], Estimate]:
    chosen: dict[tuple[str, str], Estimate] = {}
    for one in estimates:
        key = finder.key(one.name)
        if key is None:
            report.unknown.append(one.name)
        elif key not in chosen:
            chosen[key] = one
        else:
            if key[1] not in report.several:
                report.several.append(key[1])
            if one.area > chosen[key].area:
                chosen[key] = one
    if not chosen:
        names = ", ".join(report.unknown[:3])
        raise ValueError(f"none of the estimates names an image of the data set: {names or 'there are none'}")
    return chosen


def _size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    try:
        with pillow().open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"image {path} cannot be read: {error}") from error


def _read_faces(path: str | os.PathLike[str] | None) -> np.ndarray | None:
    if path is None:
        return None
    return read_faces(path) if pathlib.Path(path).suffix == ".npy" else read_surface(path)[1]


@dataclass
class _Maker:
    """Estimates -> meshes in the axes and cameras of the mesh files."""

    smpl: SMPL | None
    faces: np.ndarray | None
    axes: str
    focal: float | None
    fit: bool
    image_size: tuple[int, int]

    def make(self, one: Estimate, size: tuple[int, int]) -> Mesh:
        vertices, faces = one.vertices, one.faces
        if vertices is None:
            if self.smpl is None:
                raise ValueError(f"{one.format} gives pose and shape here: name the SMPL model that makes vertices of them")
            vertices = self.smpl.vertices(one.pose[None], one.shape[None])[0]
        if faces is None:
            faces = self.faces
        if faces is None and self.smpl is not None and len(self.smpl.template) == len(vertices):
            faces = self.smpl.faces
        if faces is None:
            raise ValueError("no triangles: name a faces file, or the SMPL model")
        if self.axes == "y-up":
            vertices = vertices * np.array([1.0, -1.0, -1.0])
        camera = one.camera_of(size)
        if camera is None and self.focal is not None:
            middle = (vertices.min(0) + vertices.max(0)) / 2
            vertices, camera = vertices - middle, np.array([*middle, self.focal / size[0], 0, 0], np.float32)
        if camera is None and self.fit:
            low, high = vertices.min(0), vertices.max(0)
            camera = np.array([1.9 / max(high[1] - low[1], 1e-6), *(-(low + high) / 2)[:2]], np.float32)
        if camera is None:
            raise ValueError("no camera in the file: give its focal length, or ask for one that fits the body into the image")
        if len(camera) == 6 and (vertices[:, 2] + camera[2]).min() <= 0:
            raise ValueError("it reaches behind the camera")
        vertices, camera = reshape_image(vertices, camera, one.size or size, self.image_size)
        return Mesh(np.asarray(vertices, np.float32), np.asarray(camera, np.float32), faces)


def _write(root: pathlib.Path, name: str, key: tuple[str, str], mesh: Mesh, shared: dict[str, np.ndarray]) -> None:
    """One mesh file; the triangles once a folder, or in the file where they differ from the folder's."""
    folder = split_folder(root, name, key[0]) / "vertices"
    if key[0] not in shared:
        there = folder / "faces.npy"
        if not there.is_file():
            write_faces(folder, mesh.faces)
        shared[key[0]] = read_faces(there)
    own = None if np.array_equal(shared[key[0]], mesh.faces) else mesh.faces
    path = folder / f"{key[1]}.npz"
    limit = 1 + int(mesh.faces.max(initial=-1))
    if limit > len(mesh.vertices):
        raise ValueError(f"{path}: the triangles name {limit} vertices, the body has {len(mesh.vertices)}")
    write_mesh(path, mesh.vertices, mesh.camera, own)
