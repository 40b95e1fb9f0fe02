"""Mesh sources: from an image record and yaw angles to grey pictures of the body that guide the generator.

Layout below a mesh root, `<set>` being market, dukeMTMC, msmt17, csv or folder, split train or test (query and gallery):
    <set>/<split>/vertices/<key>.npz     vertices and camera, see `mesh_files`; rendered at any angle
    <set>/<split>/render/<key>.<ext>     rendered picture in the photo's own view
    <set>/<split>/render_45/<key>.<ext>  ... render_315: the body turned
with <key> the image's stem, in MSMT17 below its person folder, in a user's own data (csv, folder) also below the folders that the
image lies in.
"""

from __future__ import annotations

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gcl_fast.constants import OWN_DATA
from gcl_fast.errors import FileError, InputError, MissingFileError
from gcl_fast.images import load_grey, unit_from_levels
from gcl_fast.meshes.mesh_files import check_image_size, read_faces, read_mask, read_mesh
from gcl_fast.ops import render_mesh
from gcl_fast.ops.camera import project, turn
from gcl_fast.records import Record, ReIDData

FOLDERS: dict[str, str] = {"market1501": "market", "dukemtmc": "dukeMTMC", "msmt17": "msmt17", "csv": "csv", "folder": "folder"}
SPLITS = ("train", "test")
KINDS = ("auto", "vertices", "rendered")
EXTENSIONS = (".jpg", ".png", ".jpeg")


class MeshSource(Protocol):
    """What a loader needs of meshes; only the `path` of a record is looked at."""

    def render(self, record: Record, yaws: Sequence[float]) -> Tensor:
        """[R, H, W] float32 in [0, 1], background 0: the record's body at each yaw, degrees from the photo's own view."""
        ...

    def mask(self, record: Record) -> Tensor | None:
        """[H, W] float32 in [0, 1], how surely a pixel of the photo shows the person; None where nobody made a mask."""
        ...

    def missing(self, records: Sequence[Record]) -> list[Record]:
        """The records that have no mesh, found without opening any file."""
        ...


def mesh_key(record: Record, dataset_name: str) -> str:
    """Where a record's mesh lies below the folder of its split: `<stem>`, in MSMT17 `<person folder>/<stem>`."""
    path = pathlib.PurePath(record.path)
    return f"{path.parent.name}/{path.stem}" if dataset_name == "msmt17" else path.stem


def mesh_keys(record: Record, dataset_name: str) -> list[str]:
    """Where a record's mesh may lie, the first that is there counts: of a user's own data below as many of the image's folders as
    there are beside the meshes (`p0/000`), else `mesh_key`."""
    if dataset_name not in OWN_DATA:
        return [mesh_key(record, dataset_name)]
    *folders, _ = pathlib.PurePath(record.path).parts
    stem = pathlib.PurePath(record.path).stem
    return ["/".join((*(f for f in folders[n:] if f != ".."), stem)) for n in range(bool(folders), len(folders))] + [stem]


def mesh_names(data: ReIDData, split: str) -> dict[str, Record]:
    """Where meshes of a data set are written: below the image's folders where the stems alone would meet.

    Errors: InputError where two images differ in their extension alone.
    """
    records = {pathlib.PurePath(r.path): r for r in data.mesh_split(split)}
    stems = Counter(mesh_key(r, data.name) for r in records.values())
    names: dict[str, Record] = {}
    for path, record in records.items():
        name = mesh_key(record, data.name)
        if data.name in OWN_DATA and stems[name] > 1:
            inside = path.relative_to(data.root) if path.is_relative_to(data.root) else path.relative_to(path.anchor)
            name = "/".join(part for part in inside.with_suffix("").parts if part != "..")  # where `mesh_keys` looks
        if name in names and data.name in OWN_DATA:
            raise _shared(names[name].path, path, name)
        names[name] = record
    return names


def _shared(one: pathlib.PurePath, other: pathlib.PurePath, name: str) -> InputError:
    apart = one.parent != other.parent
    way = "put the meshes into folders as the images are" if apart else "move one into another folder"
    return InputError(f"the images {one} and {other} share the mesh name {name!r}: rename one, or {way}")


def split_folder(mesh_root: str | os.PathLike[str], dataset_name: str, split: str) -> pathlib.Path:
    """`<mesh_root>/<set>/<split>`. Errors: InputError naming the argument."""
    if dataset_name not in FOLDERS:
        raise InputError(f"dataset_name must be one of {', '.join(FOLDERS)}, got {dataset_name!r}")
    if split not in SPLITS:
        raise InputError(f"split must be train or test (test serves query and gallery), got {split!r}")
    return pathlib.Path(mesh_root) / FOLDERS[dataset_name] / split


def view_folder(yaw: float) -> str:
    """The authors' name of a view: `render` at 0, `render_<degrees>` for whole degrees 1 to 359 (modulo 360)."""
    turned = float(yaw) % 360.0
    if not turned.is_integer():
        raise InputError(f"yaw must be a whole number of degrees where pictures lie in folders, got {yaw}")
    return f"render_{int(turned)}" if turned else "render"


class VertexMeshes:
    """Meshes as vertices and camera, rendered when asked for, at any angle. Can be sent to worker processes.

    folder: the `vertices` folder of a split; its `faces.npy`, if any, serves the files that have no faces inside.
    Errors: InputError where its bodies were stretched for images of another shape.
    """

    def __init__(self, folder: str | os.PathLike[str], dataset_name: str, image_size: tuple[int, int]) -> None:
        self.folder = pathlib.Path(folder)
        self.dataset_name = dataset_name
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self._keys: dict[pathlib.Path, str] = {}
        check_image_size(self.folder, self.image_size)
        shared = self.folder / "faces.npy"
        self._faces: np.ndarray | None = read_faces(shared) if shared.is_file() else None
        self._vertices_needed = 1 + int(self._faces.max()) if self._faces is not None and self._faces.size else 0

    def path(self, record: Record) -> pathlib.Path:
        return self.folder / f"{self.key(record)}.npz"

    def key(self, record: Record) -> str:
        """Which of `mesh_keys` is there; the last where none is."""
        keys = mesh_keys(record, self.dataset_name)
        if len(keys) == 1:
            return keys[0]
        if record.path not in self._keys:
            self._keys[record.path] = next((k for k in keys if (self.folder / f"{k}.npz").is_file()), keys[-1])
        return self._keys[record.path]

    def render(self, record: Record, yaws: Sequence[float]) -> Tensor:
        """[R, H, W] float32 in [0, 1]; deterministic. Errors: MissingFileError or InputError naming the mesh file."""
        vertices, faces, camera = self._body(record)
        return render_mesh(vertices, faces, camera, list(yaws), self.image_size)[0, :, 0]  # [R, H, W]

    def project(self, record: Record, yaws: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Vertices in pixels with depth [R, V, 3] float32 and faces [F, 3], as `ops.rasterize` and `ops.mesh_warp` take them."""
        vertices, faces, camera = self._body(record)
        return project(turn(vertices, list(yaws)), camera[:, None], self.image_size)[0], faces

    def body(self, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices [V, 3] float32 in metres, faces [F, 3] int32, camera [3] or [6] float32."""
        vertices, faces, camera = self._body(record)
        return vertices[0], faces, camera[0]

    def mask(self, record: Record) -> Tensor | None:
        """[H, W] float32 in [0, 1], resized (bilinear) to the image size; None where the mesh file holds no mask.

        Errors: MissingFileError or InputError naming the mesh file.
        """
        levels = read_mask(self.path(record))
        if levels is None:
            return None
        unit = unit_from_levels(levels)[None, None]
        return F.interpolate(unit, self.image_size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)

    def _body(self, record: Record) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices [1, V, 3], faces [F, 3], camera [1, 3 or 6]."""
        path = self.path(record)
        mesh = read_mesh(path)
        faces = mesh.faces
        if faces is None:
            if self._faces is None:
                raise InputError(f"mesh file {path} has no key faces, and there is no {self.folder / 'faces.npy'} to serve it")
            if len(mesh.vertices) < self._vertices_needed:
                raise InputError(
                    f"mesh file {path}: vertices must be [V, 3] with V of at least {self._vertices_needed} for the faces in "
                    f"{self.folder / 'faces.npy'}, got {list(mesh.vertices.shape)}"
                )
            faces = self._faces
        return torch.from_numpy(mesh.vertices)[None], torch.from_numpy(faces), torch.from_numpy(mesh.camera)[None]

    def missing(self, records: Sequence[Record]) -> list[Record]:
        names = _Names()
        missing = [r for r in records if self.path(r).name not in names.of(self.path(r).parent)]
        _check_shared([(r, self.key(r)) for r in records], self.dataset_name)
        return missing


class RenderedFolders:
    """The authors' rendered pictures: `render` and `render_<degrees>` below the folder of a split.

    Their steps are of 45 degrees; an angle without its folder is an error. Pictures of another size are resized
    (bicubic); the extension may be the image's own, .jpg, .png or .jpeg.
    """

    def __init__(self, folder: str | os.PathLike[str], dataset_name: str, image_size: tuple[int, int]) -> None:
        self.folder = pathlib.Path(folder)
        self.dataset_name = dataset_name
        self.image_size = (int(image_size[0]), int(image_size[1]))

    def path(self, record: Record, yaw: float) -> pathlib.Path:
        """The picture of a record at an angle. Errors: InputError for an angle without a folder, MissingFileError."""
        folder = self._view(yaw)
        candidates = self._candidates(record)
        for name in candidates:
            if (folder / name).is_file():
                return folder / name
        raise MissingFileError(f"rendered picture {folder / candidates[0]} does not exist (nor with {', '.join(EXTENSIONS)})")

    def render(self, record: Record, yaws: Sequence[float]) -> Tensor:
        """[R, H, W] float32 in [0, 1]. Errors: InputError or MissingFileError naming the file or folder."""
        views = torch.zeros(len(yaws), *self.image_size)
        for r, yaw in enumerate(yaws):
            path = self.path(record, yaw)
            try:
                views[r] = unit_from_levels(load_grey(path, self.image_size))
            except FileError as error:
                raise InputError(f"rendered picture {path}: expected a readable image, got: {error.__cause__}") from error
        return views

    def mask(self, record: Record) -> None:
        """None: rendered pictures have no masks beside them."""

    def missing(self, records: Sequence[Record]) -> list[Record]:
        """The records that lack a picture in any of the view folders there are."""
        names = _Names()
        views = [self.folder / view for view in self._views()]

        def there(view: pathlib.Path, record: Record) -> bool:
            paths = [view / name for name in self._candidates(record)]
            return any(path.name in names.of(path.parent) for path in paths)

        found = [(r, name) for r in records for name in self._candidates(r) if self._is_there(names, name)]
        _check_shared(list({id(r): (r, name) for r, name in reversed(found)}.values()), self.dataset_name)
        return [r for r in records if not all(there(view, r) for view in views)]

    def _is_there(self, names: _Names, name: str) -> bool:
        path = self.folder / "render" / name
        return path.name in names.of(path.parent)

    def _candidates(self, record: Record) -> list[str]:
        extensions = dict.fromkeys((pathlib.PurePath(record.path).suffix, *EXTENSIONS))
        return [key + e for key in mesh_keys(record, self.dataset_name) for e in extensions]

    def _views(self) -> list[str]:
        names = [p.name for p in self.folder.iterdir() if p.is_dir()]
        turned = sorted(int(n[7:]) for n in names if n.startswith("render_") and n[7:].isdecimal())
        return ["render"] + [f"render_{n}" for n in turned]

    def _view(self, yaw: float) -> pathlib.Path:
        turned = float(yaw) % 360.0
        folder = self.folder / view_folder(turned) if turned.is_integer() else None
        if folder is None or not folder.is_dir():
            raise InputError(
                f"yaw {yaw}: rendered pictures exist only in the views {', '.join(self._views())} of {self.folder}; "
                "the authors' are multiples of 45 degrees, meshes with vertices are rendered at any angle"
            )
        return folder


def open_mesh_source(
    mesh_root: str | os.PathLike[str], dataset_name: str, split: str, image_size: tuple[int, int], kind: str = "auto"
) -> VertexMeshes | RenderedFolders:
    """The meshes of one split of a dataset.

    Arguments:
        mesh_root: the folder that holds `<set>/<split>/...`, see above.
        dataset_name: market1501, dukemtmc, msmt17, csv or folder.
        split: train, or test for query and gallery.
        image_size: (height, width) of the pictures in pixels.
        kind: "vertices", "rendered", or "auto": vertices where that folder exists, else rendered pictures.

    Errors: MissingFileError saying which folders were expected where; InputError naming a bad argument.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    base = split_folder(mesh_root, dataset_name, split)
    if kind != "rendered" and (base / "vertices").is_dir():
        return VertexMeshes(base / "vertices", dataset_name, image_size)
    if kind != "vertices" and (base / "render").is_dir():
        return RenderedFolders(base, dataset_name, image_size)
    wanted = []
    if kind != "rendered":
        wanted.append(f"{base / 'vertices'} with one .npz per image (vertices, camera)")
    if kind != "vertices":
        wanted.append(f"{base / 'render'} and {base / 'render_45'} .. render_315 with one rendered picture per image")
    raise MissingFileError(f"no meshes of {dataset_name} {split}: expected {', or '.join(wanted)}; {_nearest(base)}")


def _nearest(folder: pathlib.Path) -> str:
    """What there is instead, for an error: the content of the deepest folder on the way that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(os.listdir(folder))
    return f"{folder} holds {', '.join(names[:12]) + (' ...' if len(names) > 12 else '') if names else 'nothing'}"


class _Names:
    """File names of folders, each listed once: one system call a folder instead of one a file."""

    def __init__(self) -> None:
        self._seen: dict[pathlib.Path, frozenset[str]] = {}

    def of(self, folder: pathlib.Path) -> frozenset[str]:
        if folder not in self._seen:
            self._seen[folder] = frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()
        return self._seen[folder]


def _check_shared(keys: Sequence[tuple[Record, str]], dataset_name: str) -> None:
    """Errors: InputError where two different images of a user's own data, whose names say nothing, would share one mesh."""
    first: dict[str, pathlib.PurePath] = {}
    for record, key in keys if dataset_name in OWN_DATA else ():
        path = pathlib.PurePath(record.path)
        other = first.setdefault(key, path)
        if other != path:
            raise _shared(other, path, key)
