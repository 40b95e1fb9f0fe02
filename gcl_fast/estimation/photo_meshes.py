"""Photos of a data set -> one mesh file each: what `gcl-fast estimate-meshes` does."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gcl_fast.errors import FileError, InputError, MissingFileError
from gcl_fast.estimation.body_estimates import NOBODY, bodies_from_landmarks
from gcl_fast.estimation.doubts_file import read_doubts, write_doubts
from gcl_fast.estimation.landmarks import EstimatedBodies, Estimator, Landmarks, joined
from gcl_fast.files import check_writable
from gcl_fast.images import Pixels, load_photo
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh, check_image_size, read_faces, read_mesh, write_faces, write_image_size, write_mesh
from gcl_fast.meshes.sources import SPLITS, VertexMeshes, mesh_names, split_folder
from gcl_fast.progress import counted
from gcl_fast.records import Record, ReIDData, spread

MISSING = ("mean", "leave-out", "error")
UNREADABLE = "unreadable"
OPEN = 32  # photos that are held decoded at a time: they may be large
AVERAGED = 256  # bodies of which the mean is taken, spread over the split


@dataclass
class EstimateReport:
    """What became of the images.

    written   with a body estimated now; kept: with a mesh file from before
    mean      given the mean body; missing: left without one
    doubtful  reason -> images, of this call and earlier ones; those in mean and missing are among them
    """

    folder: pathlib.Path
    written: list[pathlib.Path] = field(default_factory=list)
    kept: int = 0
    mean: list[pathlib.Path] = field(default_factory=list)
    missing: list[pathlib.Path] = field(default_factory=list)
    doubtful: dict[str, list[pathlib.Path]] = field(default_factory=dict)

    def __str__(self) -> str:
        before = f", {self.kept} were there (--overwrite estimates them again)" if self.kept else ""
        lines = [f"{counted(len(self.written), 'mesh')} estimated in {self.folder}{before}"]
        if self.doubtful:
            lines.append("doubtful images by reason:")
            width = max(map(len, self.doubtful))
            for reason, paths in sorted(self.doubtful.items(), key=lambda item: -len(item[1])):
                lines.append(f"  {reason:<{width}} {len(paths):>7,}  {_some(paths)}")
        for title, paths in (("given the mean body", self.mean), ("without a mesh", self.missing)):
            if paths:
                lines.append(f"{counted(len(paths), 'image')} {title}: {_some(paths)}")
        return "\n".join(lines)


def estimate_meshes(
    data: ReIDData,
    estimator: Estimator,
    *,
    mesh_root: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] = (256, 128),
    missing: str = "mean",
    batch_size: int = 256,
    overwrite: bool = False,
    splits: Sequence[str] = SPLITS,
    progress: Callable[[int, int], None] | None = None,
) -> EstimateReport:
    """Write `<mesh_root>/<set>/<split>/vertices/<image>.npz` for the images of the splits, with the person's
    mask where there is one.

    Images that have their file already are passed over, so a stopped call goes on when it is repeated. Files are written whole.
    Beside the folder `vertices`, `doubts.csv` lists what speaks against single bodies.

    Arguments:
        data: the opened dataset.
        estimator: what finds landmarks or bodies.
        mesh_root: where the meshes go; None: `mesh` in the dataset's root.
        image_size: (height, width) that images are resized to for training; bodies are stretched alike.
        missing: images that cannot be read, or show nobody: "mean" (the mean body of the split), "leave-out" (listed in the
            report), "error" (the others are written, then MissingFileError lists them).
        batch_size: bodies that are fitted at once, which takes little more time than one, and whose files are then written.
            Photos are looked at by up to 32 at a time.
        overwrite: estimate anew where a file exists; of an image that now shows nobody, or cannot be read, it is removed.
        splits: "train", which training needs, "test" (query and gallery), which pictures of held-out people need.
        progress: called with (images looked at, images to do).

    Errors: InputError for a bad argument, a folder whose bodies have other triangles or are for images of another shape, or where
        no body was found at all.
    """
    if missing not in MISSING:
        raise InputError(f"estimate_meshes: missing must be one of {', '.join(MISSING)}, got {missing!r}")
    if batch_size < 1:
        raise InputError(f"estimate_meshes: batch_size must be at least 1, got {batch_size}")
    if not splits or not set(splits) <= set(SPLITS):
        raise InputError(f"estimate_meshes: splits must be of {', '.join(SPLITS)}, got {list(splits)!r}")
    root = data.root / "mesh" if mesh_root is None else pathlib.Path(mesh_root)
    report = EstimateReport(split_folder(root, data.name, "train").parent)
    parts = [_Split(root, data, split, image_size) for split in splits]
    todo = [(split, record) for split in parts for record in (split.records if overwrite else split.without_mesh())]
    report.kept = sum(len(split.records) for split in parts) - len(todo)
    done = 0

    def looked_at(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, len(todo))

    for split in parts:
        records = [record for owner, record in todo if owner is split]
        if records:
            check_writable(split.doubts_path)
            check_image_size(split.folder, image_size)
        for first in range(0, len(records), batch_size):
            report.written += split.estimate(estimator, records[first : first + batch_size], looked_at)
    for split in parts:
        split.fill(report, missing)
    if missing == "error" and report.missing:
        raise MissingFileError(f"{report}\nthe other images have theirs; --missing mean or leave-out accepts this")
    return report


class _Photo(NamedTuple):
    record: Record
    shape: tuple[int, int]  # height, width


class _Split:
    """The images and mesh files of one split."""

    def __init__(self, root: pathlib.Path, data: ReIDData, split: str, image_size: tuple[int, int]) -> None:
        self.name, self.dataset, self.image_size = split, data.name, image_size
        names = mesh_names(data, split)
        self.records = list(names.values())
        self.keys = {record.path: name for name, record in names.items()}
        self.folder = split_folder(root, data.name, split) / "vertices"
        self.doubts_path = self.folder.parent / "doubts.csv"
        self.doubts = read_doubts(self.doubts_path)  # key -> reason
        self._faces: np.ndarray | None = None

    def without_mesh(self) -> list[Record]:
        return self._source().missing(self.records) if self.folder.is_dir() else list(self.records)

    def estimate(self, estimator: Estimator, records: Sequence[Record], looked_at: Callable[[int], None]) -> list[pathlib.Path]:
        """Writes the bodies of some images; gives those that have one."""
        landmarks: list[Landmarks] = []
        seen: list[_Photo] = []  # to which bodies are still to be fitted
        written = []
        for first in range(0, len(records), OPEN):
            some = records[first : first + OPEN]
            photos, readable = self._read(some)
            found = estimator.estimate(photos) if photos else None
            if isinstance(found, Landmarks):
                landmarks.append(found)
                seen += readable
            elif found is not None:
                written += self._write_all(found, readable)
            looked_at(len(some))
        if landmarks:
            written += self._write_all(bodies_from_landmarks(joined(landmarks), [photo.shape for photo in seen]), seen)
        write_doubts(self.doubts_path, self.doubts)
        for record in records:
            if self.doubts.get(self._key(record)) in (NOBODY, UNREADABLE):
                self._remove(record)
        return written

    def _remove(self, record: Record) -> None:
        """The body from before, where there is none now: `missing` decides what comes in its place."""
        path = self._path(record)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"cannot remove {path}, a body from before: {error.strerror or error}") from error

    def _read(self, records: Sequence[Record]) -> tuple[list[Pixels], list[_Photo]]:
        photos: list[Pixels] = []
        readable: list[_Photo] = []
        for record in records:
            self.doubts.pop(self._key(record), None)
            try:
                photos.append(load_photo(record.path))
                readable.append(_Photo(record, photos[-1].shape[:2]))
            except (FileError, MissingFileError):  # the latter: a link to nowhere
                self.doubts[self._key(record)] = UNREADABLE
        return photos, readable

    def _write_all(self, bodies: EstimatedBodies, photos: Sequence[_Photo]) -> list[pathlib.Path]:
        self._check_faces(bodies.faces)
        present = []
        for row, photo in enumerate(photos):
            absent = bool(bodies.absent[row])
            reason = NOBODY if absent else bodies.doubts[row]
            if reason:
                self.doubts[self._key(photo.record)] = reason
            if not absent:
                present.append((row, photo))
        write_doubts(self.doubts_path, self.doubts)  # first: who has a mesh is not looked at again
        for row, (record, shape) in present:
            self._write(record, bodies, row, shape)
        return [photo.record.path for _, photo in present]

    def _write(self, record: Record, bodies: EstimatedBodies, row: int, shape: tuple[int, int]) -> None:
        stretch = (self.image_size[1] / shape[1]) / (self.image_size[0] / shape[0])
        vertices, camera = stretched(bodies.vertices[row], bodies.cameras[row], stretch)
        mask = None if bodies.masks is None else bodies.masks[row].cpu().numpy()
        write_mesh(self._path(record), vertices.half().cpu().numpy(), camera.cpu().numpy(), mask=mask)

    def fill(self, report: EstimateReport, missing: str) -> None:
        """Adds to the report; gives images without a body the mean one, where asked."""
        without = self.without_mesh()
        report.missing += [record.path for record in without] if missing != "mean" else []
        if missing == "mean" and without:
            body = self._mean()
            for record in without:
                write_mesh(self._path(record), body.vertices.astype(np.float16), body.camera)
                report.mean.append(record.path)
        paths = {self._key(record): record.path for record in self.records}
        for key, reason in self.doubts.items():
            if key in paths:
                report.doubtful.setdefault(reason, []).append(paths[key])

    def _mean(self) -> Mesh:
        doubts = {record.path: self.doubts.get(self._key(record)) for record in self.records}
        seen = [r for r in self.records if self._path(r).is_file() and doubts[r.path] not in (NOBODY, UNREADABLE)]
        sure = [record for record in seen if doubts[record.path] is None] or seen
        if not sure and all(self.doubts.get(self._key(record)) == UNREADABLE for record in self.records):
            raise InputError(
                f"none of the {len(self.records)} {self.name} images can be read, {self.records[0].path} among them: see "
                f"{self.doubts_path}"
            )
        if not sure:
            raise InputError(
                f"no body was found in any of the {len(self.records)} {self.name} images: are they photos of one "
                "person each, as people detectors cut them out?"
            )
        return mean_body([read_mesh(self._path(record)) for record in spread(sure, AVERAGED)], self.image_size)

    def _check_faces(self, faces: Tensor) -> None:
        """The folder's triangles are the estimator's, or written now."""
        if self._faces is None:
            own = faces.cpu().numpy().astype(np.int32)
            shared = self.folder / "faces.npy"
            if not shared.is_file():
                write_image_size(self.folder, self.image_size)  # before the triangles, which stand for both
                write_faces(self.folder, own)
            elif not np.array_equal(read_faces(shared), own):
                raise InputError(
                    f"{self.folder} holds bodies of other triangles (of another estimator): name another --mesh-root, or "
                    "remove them"
                )
            self._faces = own

    def _key(self, record: Record) -> str:
        return self.keys[record.path]

    def _path(self, record: Record) -> pathlib.Path:
        return self.folder / f"{self._key(record)}.npz"

    def _source(self) -> VertexMeshes:
        return VertexMeshes(self.folder, self.dataset, self.image_size)


def stretched(vertices: Tensor, camera: Tensor, stretch: float) -> tuple[Tensor, Tensor]:
    """A body [V, 3] and its camera [3] or [6] for a photo whose width was stretched against its height.

    The body is made as much wider and deeper, so that it keeps its place in the picture from every side.
    """
    wider = vertices * vertices.new_tensor((stretch, 1.0, stretch))
    if len(camera) == 3:
        return wider, camera * camera.new_tensor((1.0, stretch, 1.0))
    return wider, camera * camera.new_tensor((stretch, 1.0, stretch, stretch, stretch, 1.0))


def _some(paths: Sequence[pathlib.Path]) -> str:
    """The first few by name, with their folder where there is more than one."""
    folders = len({path.parent for path in paths}) > 1
    names = [f"{path.parent.name}/{path.name}" if folders else path.name for path in paths[:4]]
    return ", ".join(names) + (" ..." if len(paths) > 4 else "")
