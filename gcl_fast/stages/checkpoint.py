"""Checkpoints: plain containers and tensors, written whole, read without unpickling freely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcl_fast.errors import CheckpointError, InputError
from gcl_fast.files import write_whole
from gcl_fast.models.weights import read_torch_file

FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` so that a kill at any moment leaves the old file or the new one, never half of one."""
    write_whole(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this package.

    Arguments:
        path: the file.
        map_location: the device that its tensors come to.

    Errors: CheckpointError where there is none, where it is damaged or of another kind or format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        state = read_torch_file(path, "checkpoint", map_location)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no gcl_fast checkpoint (no 'format' in it); import other files with import-checkpoint")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}")
    return state


def load_trained(path: Path) -> dict[str, Any]:
    """`load_checkpoint` of a stage, on the CPU: with its "stage", its "config" and, in "modules", the weights of each network.

    Errors: those of `load_checkpoint`, and CheckpointError naming the file and what is not there or not of its kind.
    """
    state = load_checkpoint(path)
    for key, kind, words in (("stage", str, "a name"), ("config", Mapping, "settings"), ("modules", Mapping, "networks")):
        if key not in state:
            raise CheckpointError(f"{path} is no checkpoint of a stage: it has no {key!r}")
        if not isinstance(state[key], kind):
            raise CheckpointError(f"{path}: {key!r} must hold {words}, got {type(state[key]).__name__}")
    for name, weights in state["modules"].items():
        if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise CheckpointError(f"{path}: 'modules' must hold the weights of networks, got something else at {name!r}")
    return state
