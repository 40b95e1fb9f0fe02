"""Reading of weight files: safetensors, or torch files restricted to tensors and plain containers."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a weight file, on the CPU: names -> tensors (a torch file may nest them below keys as "state_dict").

    `.safetensors` files are read with safetensors, all others with `torch.load(weights_only=True)`: whatever a file
    holds, nothing in it is executed. FileNotFoundError where there is no such file; ValueError naming the file where it
    is damaged, no checkpoint, or holds more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} does not exist" if not path.exists() else f"weights {path} is not a file")
    if path.stat().st_size == 0:
        raise ValueError(f"weights file {path} is empty")
    return _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f"reading {path} needs safetensors: pip install safetensors") from error
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise ValueError(f"weights file {path} is truncated or not a safetensors file: {error}") from error


def _torch_file(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(_reason(path, error)) from error
    if not isinstance(content, dict) or not all(isinstance(k, str) for k in content):
        raise ValueError(f"weights file {path} must hold a dict of names to tensors, got {type(content).__name__}")
    return content


def _reason(path: Path, error: Exception) -> str:
    text = str(error)
    # torch reports both a forbidden object and a broken stream as UnpicklingError; only the former names what it refused
    if isinstance(error, pickle.UnpicklingError) and ("GLOBAL" in text or "class" in text):
        refused = next((line.strip() for line in text.splitlines() if "GLOBAL" in line or "class" in line), "")
        return (
            f"weights file {path} was refused: it holds objects other than tensors and plain containers, which could run "
            f"code when read ({refused[:200]}). Ask for a file with the state_dict alone, or a safetensors file."
        )
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    kind = "a truncated or damaged torch checkpoint" if zipped else "not a torch checkpoint (or a truncated one)"
    return f"weights file {path} is {kind}: {text.splitlines()[0][:200] if text else type(error).__name__}"
