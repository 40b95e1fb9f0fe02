"""Mesh files, one mesh each: `<image stem>.npz` with `vertices`, `camera` and, where the folder has no `faces.npy`, `faces`;
optional is `mask`.

vertices  [V, 3] float16 or float32, body axes: x right, y down, z away from the camera, metres
camera    [3] weak perspective (s, tx, ty) or [6] perspective (tx, ty, tz, f, cx, cy), see `gcl_fast.ops.camera.project`; s and f
          above 0
faces     [F, 3] int32
mask      [h, w] uint8, 0 to 255: how surely a pixel shows the person, over the whole photo at any resolution

Beside them, where they were estimated or imported: `image_size.json`, height and width of the images that bodies were stretched
for.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import zipfile
from typing import IO, NamedTuple

import numpy as np

from gcl_fast.archives import read_npy, read_npz
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import write_whole

IMAGE_SIZE = "image_size.json"


class Mesh(NamedTuple):
    """One body as its file holds it.

    vertices  [V, 3] float32
    camera    [3] or [6] float32
    faces     [F, 3] int32, None where the file has none
    """

    vertices: np.ndarray
    camera: np.ndarray
    faces: np.ndarray | None


def write_mesh(
    path: str | os.PathLike[str],
    vertices: np.ndarray,
    camera: np.ndarray,
    faces: np.ndarray | None = None,
    *,
    mask: np.ndarray | None = None,
) -> pathlib.Path:
    """Write one mesh file whole, making its folder. The same arrays give the same bytes.

    Arguments:
        path: the .npz.
        vertices: [V, 3] float16, kept so, or other numbers, written as float32; metres.
        camera: [3] or [6], see above.
        faces: [F, 3] integers, or None where the folder's faces.npy serves.
        mask: [h, w] uint8, see above, or None where nobody made one.

    Returns: the path.
    Errors: ValueError naming the argument; FileError where it cannot be written.
    """
    vertices = np.asarray(vertices)
    vertices = vertices if vertices.dtype == np.float16 else vertices.astype(np.float32)
    arrays = {"vertices": vertices, "camera": np.asarray(camera, np.float32)}
    if faces is not None:
        arrays["faces"] = whole(faces)
    if mask is not None:
        arrays["mask"] = np.asarray(mask)
    problem = _problem(arrays) or _problem_of_mask(arrays.get("mask"))
    if problem:
        raise ValueError(f"write_mesh: {problem}")
    if faces is not None:
        arrays["faces"] = arrays["faces"].astype(np.int32)

    def save(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:  # numpy's savez would write the time of day into the file
            for key, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w") as entry:
                    np.lib.format.write_array(entry, np.ascontiguousarray(array), allow_pickle=False)

    return write_whole(path, save, flush=False)


def write_faces(folder: str | os.PathLike[str], faces: np.ndarray) -> pathlib.Path:
    """Write `<folder>/faces.npy`, which serves every mesh file at or below the folder that has no faces of its own."""
    faces = whole(faces)
    problem = problem_of_faces(faces)
    if problem:
        raise ValueError(f"write_faces: faces {problem}")
    content = io.BytesIO()  # into a file NumPy writes by itself, and hides why it could not
    np.save(content, faces.astype(np.int32), allow_pickle=False)
    return write_whole(pathlib.Path(folder) / "faces.npy", content.getvalue())


def whole(faces: object) -> np.ndarray:
    """Triangles as an array, of integers where the numbers are whole; others stay as they are, to be refused."""
    numbers = np.asarray(faces)
    are_whole = numbers.dtype.kind == "f" and bool((np.abs(numbers) < 2**53).all() and (numbers == numbers.round()).all())
    return numbers.astype(np.int64) if are_whole else numbers


def write_image_size(folder: str | os.PathLike[str], image_size: tuple[int, int]) -> pathlib.Path:
    """Write `<folder>/image_size.json`: (height, width) of the images that the folder's bodies were stretched for."""
    size = {"height": image_size[0], "width": image_size[1]}
    return write_whole(pathlib.Path(folder) / IMAGE_SIZE, json.dumps(size) + "\n")


def check_image_size(folder: str | os.PathLike[str], image_size: tuple[int, int]) -> None:
    """Errors: InputError where the folder says that its bodies were stretched for images of another shape (height to width)."""
    path = pathlib.Path(folder) / IMAGE_SIZE
    if not path.is_file():
        return
    try:
        size = json.loads(path.read_text(encoding="utf-8"))
        height, width = int(size["height"]), int(size["width"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: expected {{"height": H, "width": W}}, got another content') from error
    if height * image_size[1] != width * image_size[0]:
        raise InputError(
            f"{folder} holds bodies for images of {height}x{width} pixels, stretched otherwise than the "
            f"{image_size[0]}x{image_size[1]} asked for: keep to that shape, name another --mesh-root, or remove the bodies and "
            "estimate them anew"
        )


def read_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Read one mesh file; nothing in it is unpickled.

    Errors: MissingFileError, or InputError naming the file, the key, what was expected and what was found.
    """
    arrays, keys = _arrays(path, ("vertices", "camera", "faces"))
    for key in ("vertices", "camera"):
        if key not in arrays:
            raise InputError(f"mesh file {path}: expected the keys vertices and camera, got {', '.join(keys) or 'no key'}")
    problem = _problem(arrays)
    if problem:
        raise InputError(f"mesh file {path}: {problem}")
    faces = arrays.get("faces")
    return Mesh(
        arrays["vertices"].astype(np.float32),
        arrays["camera"].astype(np.float32),
        None if faces is None else faces.astype(np.int32),
    )


def read_mask(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The person's mask in a mesh file, [h, w] uint8; None where it holds none. Nothing else is read.

    Errors: as `read_mesh`.
    """
    mask = _arrays(path, ("mask",))[0].get("mask")
    problem = _problem_of_mask(mask)
    if problem:
        raise InputError(f"mesh file {path}: {problem}")
    return mask


def _arrays(path: str | os.PathLike[str], wanted: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The wanted arrays that a mesh file has, and the names of all."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise MissingFileError(f"mesh file {path} does not exist")
    try:
        content = read_npz(path, keys=wanted)
        return {key: array for key, array in content.items() if array is not None}, sorted(content)
    except (OSError, ValueError) as error:
        raise InputError(
            f"mesh file {path}: expected an .npz with the keys vertices and camera, got: {why_no_arrays(error)}"
        ) from error


def read_faces(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a `faces.npy`: [F, 3] int32.

    Errors: InputError naming the file.
    """
    try:
        faces = read_npy(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected an array of faces, got: {why_no_arrays(error)}") from error
    problem = problem_of_faces(faces)
    if problem:
        raise InputError(f"{path}: faces {problem}")
    return np.asarray(faces, np.int32)


def why_no_arrays(error: Exception) -> str:
    """Why NumPy could not read a file, without its advice to unpickle what is no array."""
    words = str(error) or type(error).__name__
    no_arrays = any(word in words for word in ("pickle", "zip file", "magic"))
    return "a damaged file, or one that holds more than plain arrays" if no_arrays else words


def problem_of_mesh(mesh: Mesh) -> str:
    """What is wrong with a mesh; nothing where it is right."""
    return _problem({key: array for key, array in mesh._asdict().items() if array is not None})


def _problem(arrays: dict[str, np.ndarray]) -> str:
    """What is wrong with a mesh's arrays; nothing where they are right."""
    vertices, camera = arrays["vertices"], arrays["camera"]
    if vertices.dtype.kind != "f" or vertices.ndim != 2 or vertices.shape[1] != 3:
        return f"vertices must be float16 or float32 [V, 3], got {vertices.dtype} {list(vertices.shape)}"
    if not _finite(vertices):
        return "vertices must be finite in float32, got NaN, infinity or more"
    if camera.dtype.kind != "f" or camera.shape not in ((3,), (6,)):
        return f"camera must be float [3] (s, tx, ty) or [6] (tx, ty, tz, f, cx, cy), got {camera.dtype} {list(camera.shape)}"
    if not _finite(camera):
        return f"camera must be finite in float32, got {camera.tolist()}"
    if not camera[0 if len(camera) == 3 else 3] > 0:  # below 0 the picture is turned upside down and mirrored
        return f"camera must have {'a scale s' if len(camera) == 3 else 'a focal length f'} above 0, got {camera.tolist()}"
    problem = problem_of_faces(arrays["faces"], len(vertices)) if "faces" in arrays else ""
    return problem and f"faces {problem}"


def _finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(np.float32)).all())


def _problem_of_mask(mask: np.ndarray | None) -> str:
    if mask is None or (mask.dtype == np.uint8 and mask.ndim == 2 and mask.size):
        return ""
    return f"mask must be uint8 [h, w], got {mask.dtype} {list(mask.shape)}"


def problem_of_faces(faces: object, vertices: int | None = None) -> str:
    """What is wrong with triangles of a body of so many vertices; nothing where they are right."""
    if not isinstance(faces, np.ndarray) or faces.dtype.kind not in "iu" or faces.ndim != 2 or faces.shape[1] != 3:
        got = f"{faces.dtype} {list(faces.shape)}" if isinstance(faces, np.ndarray) else type(faces).__name__
        return f"must be int32 [F, 3], got {got}"
    if faces.size and (faces.min() < 0 or faces.max() >= (2**31 if vertices is None else vertices)):
        limit = " and below 2^31" if vertices is None else f" and below V={vertices}"
        return f"must be at least 0{limit}, got {faces.min()} to {faces.max()}"
    return ""
