"""Import of the authors' checkpoints: their parameter names -> ours, shapes checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.models.discriminator import SCALES, Discriminator
from gcl_fast.models.generator import BLOCKS, Generator
from gcl_fast.models.identity import IdentityEncoder

KINDS = ("gen", "dis", "id_jvtc", "id_mlc", "id_act")
# keys below which published files keep the state_dict
WRAPPERS = {"gen": ("gen",), "dis": ("dis",), "id": ("id",)}
# ResNets kept in an nn.Sequential carry numbers for names
STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def convert_official(state_dict: Mapping[str, Any], kind: str, *, module: nn.Module | None = None) -> dict[str, Tensor]:
    """Weights of the authors' module -> state_dict of ours, with equal outputs.

    kind    "gen" -> `Generator`, "dis" -> `Discriminator`, "id_jvtc" | "id_mlc" | "id_act" -> `IdentityEncoder(variant)`
    module  ours to take shapes from, where it does not have the published sizes

    Accepts a whole checkpoint (below "state_dict" or the module's name), `module.` prefixes of DataParallel, and
    Sequential-numbered ResNets. Statistics that AdaIN never reads, counters and classifiers are left out; a missing
    counter is 0. Missing, unknown or wrongly shaped entries: ValueError that names them. Tensors are not copied.
    """
    if kind not in KINDS:
        raise ValueError(f"convert_official: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"convert_official: state_dict must be a mapping of names to tensors, got {type(state_dict).__name__}")
    official = _clean(_unwrap(state_dict, kind), kind)
    expected = (_published(kind) if module is None else module).state_dict()
    prefixes = _prefixes(kind)

    converted: dict[str, Tensor] = {}
    missing, wrong = [], []
    for ours, like in expected.items():
        prefix = max((p for p in prefixes if ours.startswith(p)), key=len)
        theirs = prefixes[prefix] + ours[len(prefix) :]
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
    unknown = [k for k in official if k.startswith(_roots(kind)) and not _ignored(k)]
    problems = {"missing": missing, "wrong shape": wrong, "unknown": unknown}
    if any(problems.values()):
        text = "; ".join(f"{what} {_list(names)}" for what, names in problems.items() if names)
        raise ValueError(f"convert_official: not a {kind!r} state_dict: {text}")
    return converted


def _list(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _published(kind: str) -> nn.Module:
    with torch.device("meta"):  # names and shapes alone: no memory, no random numbers
        if kind == "gen":
            return Generator()
        return Discriminator() if kind == "dis" else IdentityEncoder(kind.removeprefix("id_"))


def _unwrap(state: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for key in (*WRAPPERS[kind.split("_")[0]], "state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return _unwrap(state[key], kind)
    return state


def _clean(state: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The entries without DataParallel's prefix; a ResNet's without `base.`, by torchvision's names."""
    names = {str(k): v for k, v in state.items()}
    while any(k.startswith("module.") for k in names):
        names = {k.removeprefix("module."): v for k, v in names.items()}
    if not kind.startswith("id_"):
        return names
    names = {k.removeprefix("base."): v for k, v in names.items()}
    if "0.weight" in names and "3.0.conv1.weight" in names:
        why = "this ResNet has no ReLU before its max pooling (its stages are numbered 3 to 6)"
        raise ValueError(f"convert_official: not a {kind!r} state_dict: {why}")
    head = {k: k.partition(".") for k in names}
    return {STAGES.get(head[k][0], head[k][0]) + "".join(head[k][1:]): v for k, v in names.items()}


def _roots(kind: str) -> tuple[str, ...]:
    """What the names of the network itself begin with; anything else in a file is not ours to judge."""
    return {"gen": ("enc_content.", "dec.", "mlp_"), "dis": ("cnns.",)}.get(kind, ("conv1.", "bn1.", "layer"))


def _ignored(name: str) -> bool:
    return name.endswith(("num_batches_tracked", "norm.running_mean", "norm.running_var"))


def _prefixes(kind: str) -> dict[str, str]:
    """Beginning of our names -> beginning of theirs; the longest that fits counts."""
    if kind == "gen":
        return _generator_prefixes()
    if kind == "dis":
        return _discriminator_prefixes()
    return {"backbone.": "", "feat.": "feat.", "bn.": "bn." if kind == "id_mlc" else "feat_bn."}


def _generator_prefixes() -> dict[str, str]:
    table = {f"structure.stem.{i}.": f"enc_content.model.{i}." for i in range(4)}
    for i in range(BLOCKS):
        for j, name in enumerate(("first", "second")):
            table[f"structure.residual.{i}.{name}."] = f"enc_content.model.4.model.{i}.model.{j}."
            table[f"decoder.residual.{i}.{name}."] = f"dec.model.1.model.{i}.model.{j}.conv."
        for j in range(3):
            table[f"scale.{i}.{2 * j}."] = f"mlp_w{i + 1}.model.{j}.fc."
            table[f"shift.{i}.{2 * j}."] = f"mlp_b{i + 1}.model.{j}.fc."
    pyramid = "enc_content.model.5."
    table |= {f"structure.pyramid.{name}.": f"{pyramid}{theirs}." for name, theirs in (("point", "conv1"), ("fuse", "fuse"))}
    table |= {f"structure.pyramid.dilated.{i}.": f"{pyramid}conv{6 * (i + 1)}." for i in range(3)}
    table |= {"decoder.up.0.": "dec.model.3.", "decoder.up.1.": "dec.model.5."}
    table |= {"decoder.smooth.0.": "dec.model.6.", "decoder.smooth.1.": "dec.model.7.", "decoder.image.": "dec.model.8.conv."}
    return table


def _discriminator_prefixes() -> dict[str, str]:
    table = {"scales.": "cnns."}
    for scale in range(SCALES):
        for block in range(5, 9):
            for j, name in enumerate(("first", "second")):
                table[f"scales.{scale}.{block}.{name}."] = f"cnns.{scale}.{block}.model.{j}."
    return table
