"""One mesh a file: `<image stem>.npz` with `vertices`, `camera` and, where the folder has no `faces.npy`, `faces`.

vertices  [V, 3] float16 or float32, body axes: x right, y down, z away from the camera, metres
camera    [3] weak perspective (s, tx, ty) or [6] perspective (tx, ty, tz, f, cx, cy), see `gcl_fast.ops.camera.project`
faces     [F, 3] int32
"""

from __future__ import annotations

import os
import pathlib
import threading
import zipfile
from collections.abc import Callable
from typing import IO, NamedTuple

import numpy as np


class Mesh(NamedTuple):
    vertices: np.ndarray  # [V, 3] float32
    camera: np.ndarray  # [3] or [6] float32
    faces: np.ndarray | None  # [F, 3] int32, None where the file has none


def write_mesh(path: str | pathlib.Path, vertices: np.ndarray, camera: np.ndarray, faces: np.ndarray | None = None) -> None:
    """Write one mesh file, atomically, making its folder. float16 vertices stay so, others become float32.

    The same arrays give the same bytes. Raises ValueError naming the argument.
    """
    vertices = np.asarray(vertices)
    vertices = vertices if vertices.dtype == np.float16 else vertices.astype(np.float32)
    arrays = {"vertices": vertices, "camera": np.asarray(camera, np.float32)}
    if faces is not None:
        arrays["faces"] = np.asarray(faces).astype(np.int32)
    _check(arrays, "write_mesh:")

    def save(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:  # numpy's savez would write the time of day into the file
            for key, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as entry:
                    np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)

    write_atomically(path, save)


def write_faces(folder: str | pathlib.Path, faces: np.ndarray) -> None:
    """Write `<folder>/faces.npy`, which serves every mesh file at or below the folder that has no faces of its own."""
    faces = np.asarray(faces).astype(np.int32)
    _check_faces(faces, "write_faces: faces")
    write_atomically(pathlib.Path(folder) / "faces.npy", lambda file: np.save(file, faces, allow_pickle=False))


def write_atomically(path: str | pathlib.Path, save: Callable[[IO[bytes]], None]) -> None:
    """Write through a file beside `path`, so that a killed run leaves the whole file or none."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with unfinished.open("wb") as file:
            save(file)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_mesh(path: str | pathlib.Path) -> Mesh:
    """Read one mesh file; nothing in it is unpickled.

    Raises FileNotFoundError, or ValueError naming the file, the key, what was expected and what was found.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise ValueError("one array instead of named ones")
            arrays = {key: archive[key] for key in ("vertices", "camera", "faces") if key in archive.files}
            found = sorted(archive.files)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"mesh file {path}: expected an .npz with the keys vertices and camera, got: {error}") from error
    for key in ("vertices", "camera"):
        if key not in arrays:
            raise ValueError(f"mesh file {path}: expected the keys vertices and camera, got {', '.join(found) or 'no key'}")
    _check(arrays, f"mesh file {path}:")
    faces = arrays.get("faces")
    return Mesh(
        arrays["vertices"].astype(np.float32),
        arrays["camera"].astype(np.float32),
        None if faces is None else faces.astype(np.int32),
    )


def read_faces(path: str | pathlib.Path) -> np.ndarray:
    """Read a `faces.npy`: [F, 3] int32. Raises ValueError naming the file."""
    try:
        faces = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: expected an array of faces, got: {error}") from error
    _check_faces(faces, f"{path}: faces")
    return faces.astype(np.int32)


def _check(arrays: dict[str, np.ndarray], where: str) -> None:
    vertices, camera = arrays["vertices"], arrays["camera"]
    if vertices.dtype.kind != "f" or vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"{where} vertices must be float16 or float32 [V, 3], got {vertices.dtype} {list(vertices.shape)}")
    if not np.isfinite(vertices).all():
        raise ValueError(f"{where} vertices must be finite, got NaN or infinity")
    if camera.dtype.kind != "f" or camera.shape not in ((3,), (6,)):
        raise ValueError(
            f"{where} camera must be float [3] (s, tx, ty) or [6] (tx, ty, tz, f, cx, cy), "
            f"got {camera.dtype} {list(camera.shape)}"
        )
    if not np.isfinite(camera).all():
        raise ValueError(f"{where} camera must be finite, got {camera.tolist()}")
    if "faces" in arrays:
        _check_faces(arrays["faces"], f"{where} faces", len(vertices))


def _check_faces(faces: np.ndarray, where: str, vertices: int | None = None) -> None:
    if not isinstance(faces, np.ndarray) or faces.dtype.kind not in "iu" or faces.ndim != 2 or faces.shape[1] != 3:
        found = f"{faces.dtype} {list(faces.shape)}" if isinstance(faces, np.ndarray) else type(faces).__name__
        raise ValueError(f"{where} must be int32 [F, 3], got {found}")
    if faces.size and (faces.min() < 0 or (vertices is not None and faces.max() >= vertices)):
        limit = "" if vertices is None else f" and below V={vertices}"
        raise ValueError(f"{where} must be at least 0{limit}, got {faces.min()} to {faces.max()}")
