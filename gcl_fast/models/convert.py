"""Import of the authors' checkpoints: their parameter names -> ours, shapes checked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gcl_fast.errors import InputError
from gcl_fast.models.discriminator import Discriminator
from gcl_fast.models.generator import Generator
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.names import (
    KINDS,
    WRAPPERS,
    abridged,
    entries,
    network_prefixes,
    official_name,
    official_prefixes,
    resnet_entries,
    unread,
)


def convert_official(state_dict: Mapping[str, object], kind: str, *, module: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of the authors' module -> state_dict of ours, with equal outputs. Tensors are not copied.

    Arguments:
        state_dict: their names -> tensors. A whole checkpoint is accepted (below "state_dict" or the module's name), and so are
            `module.` prefixes of DataParallel and Sequential-numbered ResNets. Statistics that AdaIN never reads, counters and
            classifiers are left out; a missing counter is 0.
        kind: "gen" -> `Generator`, "dis" -> `Discriminator`, "id_jvtc" | "id_mlc" | "id_act" -> `IdentityEncoder(variant)`.
        module: ours to take shapes from, where it does not have the published sizes.

    Errors: InputError that names missing, unknown or wrongly shaped entries; ValueError or TypeError for a bad argument.
    """
    if kind not in KINDS:
        raise ValueError(f"convert_official: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"convert_official: state_dict must be a mapping of names to tensors, got {type(state_dict).__name__}")
    official = entries(state_dict, (kind.split("_")[0], *WRAPPERS))
    if kind.startswith("id_"):
        try:
            official = resnet_entries(official, ("base.",))
        except InputError as error:
            raise InputError(f"convert_official: not a {kind!r} state_dict: {error}") from None
    prefixes = official_prefixes(kind)

    converted: dict[str, Tensor] = {}
    missing, wrong = [], []
    for ours, like in (_published(kind) if module is None else module).state_dict().items():
        theirs = official_name(ours, prefixes)
        value = official.pop(theirs, None)
        if value is None and ours.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=torch.int64)
        if value is None:
            missing.append(theirs)
        elif not isinstance(value, Tensor) or value.shape != like.shape:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            wrong.append(f"{theirs} (expected {list(like.shape)}, got {got})")
        else:
            converted[ours] = value
    unknown = [name for name in official if name.startswith(network_prefixes(kind)) and not unread(name)]
    problems = {"missing": missing, "wrong shape": wrong, "unknown": unknown}
    if any(problems.values()):
        text = "; ".join(f"{problem} {abridged(names, 8)}" for problem, names in problems.items() if names)
        raise InputError(f"convert_official: not a {kind!r} state_dict: {text}")
    return converted


def _published(kind: str) -> nn.Module:
    with torch.device("meta"):  # names and shapes alone: no memory, no random numbers
        if kind == "gen":
            return Generator()
        return Discriminator() if kind == "dis" else IdentityEncoder(kind.removeprefix("id_"))
