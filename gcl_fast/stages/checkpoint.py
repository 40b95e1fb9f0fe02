"""Checkpoints: plain containers and tensors, written whole, read without unpickling freely."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gcl_fast.errors import CheckpointError
from gcl_fast.files import write_whole

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
        state = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} holds more than tensors and plain containers and was not read: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}") from None
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no gcl_fast checkpoint (no 'format' in it); import other files with import-checkpoint")
    if state["format"] != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {state['format']}, this version reads {FORMAT}")
    return state
