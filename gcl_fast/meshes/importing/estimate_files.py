"""Estimators' files as plain containers and NumPy arrays. Nothing in any of them is executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gcl_fast.archives import FREELY, check_zip, read_npy, read_npz
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import read_text
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.plain_pickle import load_plain, plain_containers, read_plain_pickle

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
            return json.loads(read_text(path))
        if suffix in (".pt", ".pth"):
            return _torch_file(path)
        return read_npy(path, load_plain) if suffix == ".npy" else read_npz(path, load_plain)
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"estimates {path} are truncated, or hold more than arrays and plain containers: {error}") from error


def _torch_file(path: Path) -> Any:
    import torch

    def array(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.layout != torch.strided or value.numel() * value.element_size() > max(FREELY, value.untyped_storage().nbytes()):
            raise ValueError(f"a tensor {list(value.shape)} that is larger than its content")
        return value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype).numpy()

    check_zip(path)
    return plain_containers(torch.load(path, map_location="cpu", weights_only=True), array)
