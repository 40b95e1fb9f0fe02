"""Checkpoints: plain containers and tensors, written whole, read without unpickling freely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from gcl_fast.config import TrainConfig, from_values
from gcl_fast.errors import CheckpointError, ConfigError, FileError, InputError
from gcl_fast.files import free_space, mib, write_whole
from gcl_fast.models.weights import read_torch_file

FORMAT = 1


class _Watched:
    """A file whose own error is remembered: torch.save reports another in its place."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.error = file, None

    error: OSError | None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` so that a kill at any moment, or a full disk, leaves the old file or the new one, never half of one.

    Errors: FileError naming the file, and where the disk is full what it needs and what is free; the old file stays.
    """
    needed, free = tensor_bytes(state), free_space(path)
    if needed > free:
        raise FileError(
            f"cannot write {path}: it needs {mib(needed)}, {mib(free)} are free there; what was there before is kept: make room, "
            "and --resume goes on from it"
        )

    def save(file: IO[bytes]) -> None:
        watched = _Watched(file)
        try:
            torch.save({"format": FORMAT, **state}, watched)  # type: ignore[arg-type]  # all of a file that it uses
        except RuntimeError:
            if watched.error is not None:
                raise watched.error from None
            raise

    write_whole(path, save)


def tensor_bytes(state: object) -> int:
    """Of all tensors in plain containers."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(tensor_bytes, state.values()))
    return sum(map(tensor_bytes, state)) if isinstance(state, (list, tuple)) else 0


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
    try:
        state = load_checkpoint(path)
    except CheckpointError as error:
        if path.name == "last.pt" and path.is_file() and path.with_name("best.pt").is_file():
            raise CheckpointError(f"{error}; {path.with_name('best.pt')} lies beside it") from error
        raise
    check_trained(path, state)
    return state


def check_trained(path: Path, state: Mapping[str, Any]) -> None:
    """Errors: CheckpointError naming the file and what a checkpoint of a stage has, and this one has not or of another kind."""
    for key, kind, words in (("stage", str, "a name"), ("config", Mapping, "settings"), ("modules", Mapping, "networks")):
        if key not in state:
            raise CheckpointError(f"{path} is no checkpoint of a stage: it has no {key!r}")
        if not isinstance(state[key], kind):
            raise CheckpointError(f"{path}: {key!r} must hold {words}, got {type(state[key]).__name__}")
    for name, weights in state["modules"].items():
        if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
            raise CheckpointError(f"{path}: 'modules' must hold the weights of networks, got something else at {name!r}")


def trained_settings(path: Path, state: Mapping[str, Any]) -> TrainConfig:
    """The settings in a checkpoint of a stage. Errors: CheckpointError naming the file and the setting that cannot be read."""
    try:
        return from_values(state["config"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
