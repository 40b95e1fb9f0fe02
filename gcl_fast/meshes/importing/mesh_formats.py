"""Vertices and faces from OBJ and PLY files.

PLY goes through trimesh. OBJ does not: trimesh doubles vertices where texture coordinates or normals differ, takes the index 0,
counts relative indices from the file's end and passes over words that are no numbers; what is needed of OBJ is a few lines.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl_fast.errors import InputError, MissingFileError, MissingPackageError
from gcl_fast.files import decoded
from gcl_fast.packages import missing

Surface = tuple[np.ndarray, np.ndarray]  # vertices [V, 3], triangles [F, 3]


def read_surface(path: str | os.PathLike[str]) -> Surface:
    """Vertices and triangles of a .obj or .ply file in the file's order; polygons are cut into fans.

    Only the file itself is read: no material, no texture.

    Arguments:
        path: a .obj, or a .ply in ascii or binary of either byte order (there with polygons of one size).

    Returns: vertices [V, 3] float32, triangles [F, 3] int32.
    Errors: MissingFileError; InputError naming the file where it is damaged; MissingPackageError where a .ply needs trimesh.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"mesh file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"mesh file {path} cannot be read: {error.strerror or error}") from error
    try:
        vertices, faces = _obj(content) if path.suffix.lower() == ".obj" else _ply(content)
    except MissingPackageError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"mesh file {path} is damaged or no {path.suffix[1:].upper()}: {error}") from error
    with np.errstate(over="ignore"):
        vertices = vertices.astype(np.float32)
    if not len(vertices) or not np.isfinite(vertices).all():
        raise InputError(f"mesh file {path} must hold finite vertices, got {'none' if not len(vertices) else 'NaN or infinity'}")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise InputError(f"mesh file {path}: faces must name vertices below {len(vertices)}, got {faces.min()} to {faces.max()}")
    return vertices, faces.astype(np.int32)


def _fans(polygons: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
    """Triangles [F, 3] int64 of polygons, those of one polygon side by side."""
    if isinstance(polygons, np.ndarray) and polygons.ndim == 2:
        corners = polygons.astype(np.int64)
        fan = [np.stack((corners[:, 0], corners[:, i], corners[:, i + 1]), 1) for i in range(1, corners.shape[1] - 1)]
        return np.stack(fan, 1).reshape(-1, 3) if fan else np.zeros((0, 3), np.int64)
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _obj(content: bytes) -> Surface:
    vertices: list[list[float]] = []
    polygons: list[list[int]] = []
    for line in decoded(content, "it").splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["v"]:
            x, y, z = map(float, words[1:4])
            vertices.append([x, y, z])
        elif words[:1] == ["f"]:
            indices = [int(word.partition("/")[0]) for word in words[1:]]
            if 0 in indices:
                raise ValueError("indices count from 1, got 0")
            polygons.append([i - 1 if i > 0 else len(vertices) + i for i in indices])
    return np.array(vertices, np.float64).reshape(-1, 3), _fans(polygons)


def _ply(content: bytes) -> Surface:
    if content.split(b"\n", 1)[0].split() != [b"ply"]:
        raise ValueError("no PLY header")
    with warnings.catch_warnings():  # NumPy only warns of words that are no numbers
        warnings.filterwarnings("error", message="string or file could not be read")
        loaded = _load_ply()(io.BytesIO(content), skip_materials=True, fix_texture=False)
    elements: dict[str, dict[str, Any]] = loaded["metadata"]["_ply_raw"]
    body = content.partition(b"end_header")[2].split(b"\n", 1)[-1]
    if any("$LIST" in kind for element in elements.values() for kind in element["properties"].values()):
        _check_rows(elements, iter(body.decode("ascii").splitlines()))
    vertices = np.asarray(loaded.get("vertices", np.zeros((0, 3))))
    if len(vertices) != elements.get("vertex", {"length": 0})["length"]:
        raise ValueError("it ends early")
    return vertices, _fans(_polygons(elements.get("face")))


def _load_ply() -> Callable[..., dict[str, Any]]:
    try:
        from trimesh.exchange.ply import load_ply
    except ImportError as error:
        raise missing("trimesh", "reading PLY files", error) from error
    return load_ply


def _check_rows(elements: dict[str, dict[str, Any]], lines: Iterator[str]) -> None:
    """Whether each row of an ascii file has the numbers that the header and its own counts promise; trimesh does not look."""
    for name, element in elements.items():
        lists = ["$LIST" in kind for kind in element["properties"].values()]
        for _ in range(element["length"]):
            words, expected = next(lines, "").split(), 0
            for is_list in lists:
                expected += 1 + (int(words[expected]) if is_list and expected < len(words) else 0)
            if len(words) != expected:
                raise ValueError(f"a row of {name} must have {expected} numbers, got {len(words)}")


def _polygons(element: dict[str, Any] | None) -> np.ndarray | Sequence[Sequence[int]]:
    """The corners of each face: [F, corners], or a sequence of arrays where they differ in number."""
    if element is None or element["length"] == 0:
        return []
    name = next((n for n in ("vertex_indices", "vertex_index") if n in element["properties"]), None)
    if name is None:
        return []
    corners = element["data"][name]
    if corners.dtype.names:  # binary: (count, corners), the count of the first face taken for all
        counts, corners = corners["f0"], corners["f1"]
        if (counts != corners.shape[1]).any():
            raise ValueError("polygons of different sizes in a binary file: write them as triangles")
    if len(corners) != element["length"]:
        raise ValueError("it ends early")
    return list(corners) if corners.dtype == object else np.asarray(corners)
