"""Reading of weight files: safetensors, or torch files restricted to tensors and plain containers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gcl_fast.archives import check_zip
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.packages import missing


class _Dtype:
    """Stands for numpy.dtype in a file; builds nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _scalar(*_: object) -> None:
    """Stands for a NumPy scalar in a file, which reads as None."""


# checkpoints often keep their best score as a NumPy scalar: let it be read as None instead of refusing the file
_SCORES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_Dtype, "numpy.dtype"),
]


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a weight file, on the CPU.

    `.safetensors` files are read with safetensors, all others with `torch.load(weights_only=True)`: whatever a file holds,
    nothing in it is executed.

    Returns: names -> tensors (a torch file may nest them below keys as "state_dict"); NumPy scalars (scores) are None.
    Errors: MissingFileError where there is no such file; InputError naming the file where it is damaged, no checkpoint, or
        holds more than tensors and plain containers; MissingPackageError for a safetensors file without that package.
    """
    path = Path(path)
    if not path.is_file():
        problem = f"weights {path} is not a file" if path.exists() else f"weights file {path} does not exist"
        raise MissingFileError(problem)
    if path.suffix == ".safetensors" and path.stat().st_size:
        return _safetensors(path)
    with torch.serialization.safe_globals(_SCORES):
        content = read_torch_file(path, "weights file")
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise InputError(f"weights file {path} must hold a dict of names to tensors, got {type(content).__name__}")
    return content


def read_torch_file(path: Path, kind: str, map_location: str | torch.device = "cpu") -> object:
    """What a file of `torch.save` holds, restricted to tensors and plain containers.

    Arguments:
        kind: what the file is called in errors, such as "checkpoint".

    Errors: InputError naming the file where it cannot be read, is empty, damaged, or holds more than that.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise InputError(f"{kind} {path} cannot be read: {error.strerror or error}") from error
    if not begin:
        raise InputError(f"{kind} {path} is empty")
    try:
        check_zip(path)
        content: object = torch.load(path, map_location=map_location, weights_only=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(_reason(kind, path, begin, str(error))) from error
    return content


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing("safetensors", f"reading {path}", error) from error
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise InputError(f"weights file {path} is truncated or not a safetensors file: {error}") from error


def _reason(kind: str, path: Path, begin: bytes, text: str) -> str:
    zipped = begin == b"PK\x03\x04"
    refused = re.search(r"GLOBAL (\S+)", text)  # torch names what it would not load
    if refused:
        return (
            f"{kind} {path} was refused: it holds {refused[1]}{'' if zipped else ' (or ends within that name)'}, and "
            "objects other than tensors and plain containers can run code when read. Ask for a file with the state_dict "
            "alone, or for a safetensors file."
        )
    if "claims to unpack" in text:
        return f"{kind} {path} was refused: {text}"
    if "TorchScript" in text:
        return f"{kind} {path} must hold a state_dict, got a TorchScript archive"
    return f"{kind} {path} is {'a truncated or damaged' if zipped else 'truncated or no'} torch checkpoint"
