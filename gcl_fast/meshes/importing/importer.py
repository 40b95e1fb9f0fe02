"""Estimators' outputs -> one mesh file an image of a data set: what `gcl-fast import-meshes` does."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.images import upright_size
from gcl_fast.meshes.coverage import coverage_lines, covered_share
from gcl_fast.meshes.importing.estimate_files import SUFFIXES
from gcl_fast.meshes.importing.estimates import NAMES, Estimate, read_estimates
from gcl_fast.meshes.importing.image_names import ImageNames, Key
from gcl_fast.meshes.importing.mesh_converter import MeshConverter
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.importing.several_people import middle_covered
from gcl_fast.meshes.importing.upside_down import stands_on_its_head
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh, check_image_size, read_faces, write_faces, write_image_size, write_mesh
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.meshes.sources import SPLITS, mesh_names, split_folder
from gcl_fast.progress import counted
from gcl_fast.records import ReIDData

MISSING = ("error", "leave-out", "mean")


@dataclass
class MeshReport:
    """What became of the images.

    written, mean, missing  paths of images with a mesh of their own, with the mean body, without one
    unknown                 names that estimates give to images which the data set does not have
    several                 images with several people
    bad                     why files and bodies could not be used; None: that is an error
    upside_down             how many of the bodies written stand on their heads, read with `axes`
    """

    folder: pathlib.Path
    written: list[pathlib.Path] = field(default_factory=list)
    mean: list[pathlib.Path] = field(default_factory=list)
    missing: list[pathlib.Path] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    bad: list[str] | None = None
    upside_down: int = 0
    axes: str = "y-down"
    coverage: dict[pathlib.Path, float] = field(default_factory=dict)
    """Of each image with a mesh of its own, the share of the picture that the body covers."""

    def __str__(self) -> str:
        lines = [f"{counted(len(self.written), 'mesh')} in {self.folder}", *coverage_lines(self.coverage)]
        for noun, title, names in (
            ("image", "given the mean body", self.mean),
            ("image", "without a mesh", self.missing),
            ("estimate", "without an image in the data set", self.unknown),
            ("image", "with several people, the one in the picture's middle taken", self.several),
        ):
            if names:
                shown = ", ".join(pathlib.PurePath(n).name for n in names[:8]) + (" ..." if len(names) > 8 else "")
                lines.append(f"{counted(len(names), noun)} {title}: {shown}")
        if self.upside_down * 2 > len(self.written):
            other = "y-down" if self.axes == "y-up" else "y-up"
            lines.append(
                f"{self.upside_down} of {len(self.written)} bodies stand on their heads: are the files {other}? Then give --axes "
                f"{other}; --preview shows them over their photos"
            )
        if self.bad:
            lines.append(f"{len(self.bad):,} of the files and bodies cannot be used:")
            lines += [f"  {why}" for why in self.bad[:8]] + (["  ..."] if len(self.bad) > 8 else [])
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

    Images are found by as many folders of their path as an estimate's name shares with them, then by a stem that is the only one
    of its kind. Of several people in an image the one that covers its middle best is taken. Deterministic; each file is written
    whole or not at all.

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
            (listed in the report), "mean" (given the mean body of the imported ones). But for "error", files and bodies that
            cannot be used are told in the report and passed over.
        progress: called with (bodies done, bodies in all) after each body.

    Errors: InputError naming file and reason, or a folder whose bodies are for images of another shape; MissingFileError.
    """
    if missing not in MISSING:
        raise InputError(f"import_meshes: missing must be one of {', '.join(MISSING)}, got {missing!r}")
    if axes not in ("y-down", "y-up"):
        raise InputError(f"import_meshes: axes must be y-down or y-up, got {axes!r}")
    if focal is not None and not 0 < focal < math.inf:
        raise InputError(f"import_meshes: focal must be above 0 and finite, got {focal!r}")
    root = data.root / "mesh" if mesh_root is None else pathlib.Path(mesh_root)
    report = MeshReport(split_folder(root, data.name, "train").parent)
    report.axes = axes
    report.bad = None if missing == "error" else []
    paths = {(split, key): pathlib.Path(r.path) for split in SPLITS for key, r in mesh_names(data, split).items()}
    chosen = _choose(_all(sources, format, report), ImageNames(paths), report)
    converter = MeshConverter(SMPL.load(smpl) if smpl is not None else None, _read_faces(faces), axes, focal, fit, image_size)
    folders = _MeshFolders(root, data.name, image_size)
    for split in {split for split, _ in (paths if missing == "mean" else chosen)}:
        folders.check(split)
    meshes: list[Mesh] = []  # of all, for the mean body: vertices and cameras are small beside the images
    written = set()
    for done, (key, people) in enumerate(chosen.items(), start=1):
        mesh = _best_mesh(paths[key], people, converter, report)
        if mesh is not None:
            folders.write(key, mesh)
            report.written.append(paths[key])
            report.coverage[paths[key]] = covered_share(mesh, image_size)
            report.upside_down += stands_on_its_head(mesh.vertices)
            written.add(key)
            if missing == "mean":
                meshes.append(mesh)
        if progress is not None:
            progress(done, len(chosen))
    if not written:
        raise InputError(f"none of the bodies can be used: {'; '.join((report.bad or [])[:3])}")
    without = [key for key in paths if key not in written]
    if missing == "mean" and without:
        body = mean_body(meshes, image_size)
        for key in without:
            folders.write(key, body)
            report.mean.append(paths[key])
        return report
    report.missing = [paths[key] for key in without]
    if missing == "error" and without:
        raise MissingFileError(f"{report}\nthe other images have theirs; --missing leave-out or --missing mean accepts this")
    return report


def _mesh_of(path: pathlib.Path, estimate: Estimate, converter: MeshConverter) -> Mesh:
    """The mesh of one image; errors name it."""
    try:
        if estimate.problem:
            raise InputError(estimate.problem)
        return converter.convert(estimate, _size_of(path))
    except InputError as error:
        raise InputError(f"the body of {path.name}: {error}") from error


def _best_mesh(path: pathlib.Path, people: Sequence[Estimate], converter: MeshConverter, report: MeshReport) -> Mesh | None:
    """The mesh of the person who covers the picture's middle best; None where no one can be used, which `report` says."""
    best: tuple[tuple[float, float, float], Mesh] | None = None
    for person in people:
        try:
            mesh = _mesh_of(path, person, converter)
        except InputError as error:
            if report.bad is None:
                raise
            report.bad.append(str(error))
            continue
        if len(people) == 1:
            return mesh
        place = middle_covered(person, mesh, _size_of(path))
        if best is None or place > best[0]:
            best = place, mesh
    return None if best is None else best[1]


def _all(sources: Iterable[str | os.PathLike[str]], format: str, report: MeshReport) -> Iterable[Estimate]:
    for source in map(pathlib.Path, sources):
        if not source.exists():
            raise MissingFileError(f"estimates {source} do not exist")
        files = sorted(p for p in source.rglob("*") if _is_estimate(p, source)) if source.is_dir() else [source]
        if not files:
            raise InputError(f"estimates {source}: no file in it ends in {', '.join(SUFFIXES)}")
        for file in files:
            try:
                estimates = read_estimates(file, format, strict=report.bad is None)
            except InputError as error:
                if report.bad is None:
                    raise
                report.bad.append(str(error))
                continue
            for estimate in estimates:
                # a file named as its image may need its folder to tell the image
                yield estimate if estimate.name != file.stem else replace(estimate, name=str(file))


def _is_estimate(path: pathlib.Path, source: pathlib.Path) -> bool:
    """Whether a file of a folder may be an estimate: hidden ones (macOS' ._*, .ipynb_checkpoints) are not."""
    hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _choose(estimates: Iterable[Estimate], names: ImageNames, report: MeshReport) -> dict[Key, list[Estimate]]:
    """The estimates of each image, of the name that fits it best."""
    chosen: dict[Key, tuple[int, list[Estimate]]] = {}
    for estimate in estimates:
        key = names.key(estimate.name)
        if key is None:
            report.unknown.append(estimate.name)
            continue
        shared, people = chosen.get(key, (-1, []))
        if shared != names.folders_shared(key):
            report.unknown += [person.name for person in people]
            people = []
        chosen[key] = names.folders_shared(key), [*people, estimate]
    if not chosen:
        first = ", ".join(report.unknown[:3])
        why = f"; passed over: {'; '.join(report.bad[:3])}" if report.bad else ""
        raise InputError(
            f"none of the estimates names an image of the data set: {first or 'there are none'}{why}. An image is found by "
            f"{', '.join(NAMES)} in the file, by a key of the file, or by the file's own name"
        )
    report.several = [key[1] for key, (_, people) in chosen.items() if len(people) > 1]
    return {key: people for key, (_, people) in chosen.items()}


def _size_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width), upright."""
    try:
        return upright_size(path)
    except Exception as error:  # a broken file may raise nearly anything
        raise InputError(f"image {path} cannot be read: {error}") from error


def _read_faces(path: str | os.PathLike[str] | None) -> np.ndarray | None:
    if path is None:
        return None
    return read_faces(path) if pathlib.Path(path).suffix == ".npy" else read_surface(path)[1]


class _MeshFolders:
    """Writes mesh files; the size that bodies are shaped for and the triangles once a folder, these in the file where they differ
    from the folder's."""

    def __init__(self, root: pathlib.Path, dataset_name: str, image_size: tuple[int, int]) -> None:
        self.root, self.dataset_name, self.image_size = root, dataset_name, image_size
        self._faces: dict[str, np.ndarray] = {}  # split -> what its faces.npy holds

    def _folder(self, split: str) -> pathlib.Path:
        return split_folder(self.root, self.dataset_name, split) / "vertices"

    def check(self, split: str) -> None:
        """Errors: InputError where the folder's bodies are for images of another shape."""
        check_image_size(self._folder(split), self.image_size)

    def write(self, key: Key, mesh: Mesh) -> None:
        split, name = key
        assert mesh.faces is not None
        folder = self._folder(split)
        path = folder / f"{name}.npz"
        if split not in self._faces:
            write_image_size(folder, self.image_size)
            shared = folder / "faces.npy"
            if not shared.is_file():
                write_faces(folder, mesh.faces)
            self._faces[split] = read_faces(shared)
        differ = not np.array_equal(self._faces[split], mesh.faces)
        write_mesh(path, mesh.vertices, mesh.camera, mesh.faces if differ else None)
