"""Weights, gradients and checkpoints without NaN or infinity: found early, and never written over what is good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gcl_fast.errors import CheckpointError
from gcl_fast.models.names import abridged
from gcl_fast.stages.checkpoint import load_checkpoint

KEPT = ("last.pt", "best.pt")


def tensors_in(state: object, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Each tensor in plain containers, with its place in them as a name (modules.encoder.bn.weight)."""
    if isinstance(state, Tensor):
        yield where, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors_in(value, f"{where}.{key}" if where else str(key))
    elif isinstance(state, (list, tuple)):
        for place, value in enumerate(state):
            yield from tensors_in(value, f"{where}[{place}]")


@torch.no_grad()
def not_finite(named: Iterator[tuple[str, Tensor]]) -> list[str]:
    """The names of tensors with NaN or infinity; waits for the device once where there are none."""
    floating = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    if bool(torch.isfinite(torch.nn.utils.get_total_norm([tensor for _, tensor in floating]))):
        return []
    return [name for name, tensor in floating if not bool(torch.isfinite(tensor).all())]


def broken_learning(modules: Mapping[str, torch.nn.Module]) -> str:
    """What is not finite of networks and their last gradients, in words; empty where all is."""
    gradients = (
        (f"{kind}.{name}", weight.grad)
        for kind, module in modules.items()
        for name, weight in module.named_parameters()
        if weight.grad is not None
    )
    weights = ((f"{kind}.{name}", tensor) for kind, module in modules.items() for name, tensor in module.state_dict().items())
    found = (("gradients", not_finite(gradients)), ("weights", not_finite(weights)))
    return "; ".join(f"{kind} not finite: {abridged(names)}" for kind, names in found if names)


def broken_state(state: Mapping[str, Any]) -> str:
    """The names of a checkpoint's tensors that are not finite, abridged; empty where all are."""
    broken = not_finite(tensors_in({key: state.get(key) for key in ("modules", "optimizers", "extra")}))
    return abridged(broken) if broken else ""


def why_no_good_checkpoint(path: Path) -> str:
    """Why training could not go on from a checkpoint; empty where it could."""
    try:
        state = load_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    broken = broken_state(state)
    return f"{path} holds numbers that are not finite: {broken}" if broken else ""


def good_checkpoint(folder: Path, names: Sequence[str] = KEPT) -> Path | None:
    """The first checkpoint of a stage's folder that loads and is finite throughout."""
    paths = (folder / name for name in names)
    return next((path for path in paths if path.is_file() and not why_no_good_checkpoint(path)), None)


def way_on(folder: Path) -> str:
    """What to do after a stage broke down."""
    path = good_checkpoint(folder)
    change = "a lower learning rate or --precision fp32"
    if path is None:
        return f"no checkpoint of it is good yet: start anew with {change}"
    number = folder.name.removeprefix("stage")
    stage = f"--stage {number} " if number.isdecimal() else ""
    return (
        f"{path} is good, but --resume would break down again at the same place: start another run from it, "
        f"with --name NEW {stage}--init {path} and {change}"
    )


def restorable(folder: Path, device: torch.device) -> dict[str, Any]:
    """The last checkpoint of a stage. Errors: CheckpointError that says whether the best one beside it is good."""
    path = folder / "last.pt"
    try:
        state = load_checkpoint(path, device)
        broken = broken_state(state)
        if not broken:
            return state
        problem = f"{path} holds numbers that are not finite: {broken}"
    except CheckpointError as error:
        problem = str(error)
    other = good_checkpoint(folder, ("best.pt",))
    if other is None:
        raise CheckpointError(f"{problem}; remove the folder {folder}, and --resume begins this stage anew")
    epoch = load_checkpoint(other)["epoch"]
    raise CheckpointError(
        f"{problem}; {other} beside it is good (after epoch {epoch}): copy it over {path.name}, and --resume goes on from there"
    )
