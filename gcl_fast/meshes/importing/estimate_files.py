"""Estimators' files as plain containers and NumPy arrays. Nothing in any of them is executed."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.plain_pickle import load_plain, read_plain_pickle

SUFFIXES = (".npz", ".npy", ".pkl", ".pickle", ".pt", ".pth", ".json", ".obj", ".ply")


def read_estimate_file(path: str | os.PathLike[str]) -> Any:
    """Content of a .npz, .npy, .pkl, .pt, .json, .obj or .ply file.

    Errors: MissingFileError, or InputError naming the file where it is damaged or holds more than arrays and plain containers.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise MissingFileError(f"estimates {path} do not exist")
    if suffix in (".obj", ".ply"):
        vertices, faces = read_surface(path)
        return {"vertices": vertices, "faces": faces}
    if suffix in (".pkl", ".pickle"):
        return read_plain_pickle(path)
    if suffix not in SUFFIXES:
        raise InputError(f"estimates {path}: expected one of {', '.join(SUFFIXES)}, got {suffix or 'no extension'}")
    try:
        if suffix == ".json":
            return json.loads(path.read_text())
        if suffix in (".pt", ".pth"):
            return _torch_file(path)
        if suffix == ".npy":
            with path.open("rb") as file:
                return _array(file)
        with zipfile.ZipFile(path) as archive:
            content = {}
            for name in archive.namelist():
                with archive.open(name) as file:
                    content[name.removesuffix(".npy")] = _array(file)
        return content
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"estimates {path} are truncated, or hold more than arrays and plain containers: {error}") from error


def _array(file: IO[bytes]) -> Any:
    """One .npy; an object array, which is a pickle, as plain containers."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        return load_plain(file)
    count = int(np.prod(shape))
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise ValueError("it ends early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _torch_file(path: Path) -> Any:
    import torch

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype).numpy()
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(torch.load(path, map_location="cpu", weights_only=True))
