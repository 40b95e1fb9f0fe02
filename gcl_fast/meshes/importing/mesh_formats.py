"""Vertices and faces from OBJ and PLY files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

PLY_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "float32": "f4",
    "float64": "f8",
}


def read_surface(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """vertices [V, 3] float32 and triangles [F, 3] int32 of a .obj or .ply file; polygons are cut into fans.

    PLY may be ascii or binary of either byte order. ValueError naming the file where it is damaged.
    """
    path = Path(path)
    try:
        vertices, polygons = _obj(path) if path.suffix.lower() == ".obj" else _ply(path)
        faces = np.array([(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)], np.int64).reshape(-1, 3)
        vertices = np.array(vertices, np.float32).reshape(-1, 3)
    except FileNotFoundError:
        raise
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"mesh file {path} is damaged or no {path.suffix[1:].upper()}: {error}") from error
    if not len(vertices) or not np.isfinite(vertices).all():
        raise ValueError(f"mesh file {path} must hold finite vertices, got {'none' if not len(vertices) else 'NaN or infinity'}")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f"mesh file {path}: faces must name vertices below {len(vertices)}, got {faces.min()} to {faces.max()}")
    return vertices, faces.astype(np.int32)


def _obj(path: Path) -> tuple[list[list[float]], list[list[int]]]:
    vertices, polygons = [], []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(w) for w in words[1:4]])
        elif words[:1] == ["f"]:
            indices = [int(w.split("/")[0]) for w in words[1:]]
            polygons.append([i - 1 if i > 0 else len(vertices) + i for i in indices])
    return vertices, polygons


def _ply(path: Path) -> tuple[np.ndarray, list[list[int]]]:
    head, mark, body = path.read_bytes().partition(b"end_header")
    body = body[body.find(b"\n") + 1 :]
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    if not mark or lines[0] != ["ply"]:
        raise ValueError("no PLY header")
    form = next(line[1] for line in lines if line[:1] == ["format"])
    elements: list[tuple[str, int, list[list[str]]]] = []
    for line in lines:
        if line[:1] == ["element"]:
            elements.append((line[1], int(line[2]), []))
        elif line[:1] == ["property"]:
            elements[-1][2].append(line[1:])
    words = body.split() if form == "ascii" else []
    order = ">" if form == "binary_big_endian" else "<"
    vertices, polygons, at = np.zeros((0, 3)), [], 0
    for name, count, properties in elements:
        if all(p[0] != "list" for p in properties):
            if form == "ascii":
                table = np.array(words[at : at + count * len(properties)], np.float64).reshape(count, len(properties))
                columns, at = dict(zip((p[1] for p in properties), table.T, strict=True)), at + table.size
            else:
                dtype = np.dtype([(p[1], order + PLY_TYPES[p[0]]) for p in properties])
                table = np.frombuffer(body, dtype, count, at)
                columns, at = {p[1]: table[p[1]] for p in properties}, at + table.nbytes
            if name == "vertex":
                vertices = np.stack([columns[axis] for axis in "xyz"], 1)
            continue
        for _ in range(count):
            for p in properties:
                size = 1
                kinds = [p[1], p[2]] if p[0] == "list" else [p[0]]
                values: list[float] = []
                for kind in kinds:
                    if form == "ascii":
                        values, at = [float(w) for w in words[at : at + size]], at + size
                    else:
                        part = np.frombuffer(body, order + PLY_TYPES[kind], size, at)
                        values, at = part.tolist(), at + part.nbytes
                    if len(values) != size:
                        raise ValueError("it ends early")
                    if kind is kinds[0] and len(kinds) == 2:
                        size = int(values[0])
                if name == "face" and p[-1] in ("vertex_indices", "vertex_index"):
                    polygons.append([int(v) for v in values])
    return vertices, polygons
