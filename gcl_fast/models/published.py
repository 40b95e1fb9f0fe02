"""Weight files from elsewhere: what a file holds is told by its keys, then mapped onto this package's networks.

Known: the authors' stage 2 and 3 files ({'gen'}, {'dis'}, {'id'}), JVTC, MLC, ACT/MMCL, encoders of cluster-contrast and SpCL
(`base.` or numbered stages, `feat_bn`), "bag of tricks" baselines (`bottleneck`), fast-reid (`model`, `backbone.`, `heads.`),
torchreid and torchvision ResNets, and this package's own weights and checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gcl_fast.models.convert import STAGES, convert_official
from gcl_fast.models.identity import DEPTHS, IdentityEncoder
from gcl_fast.models.weights import load_weights

MODULES = {"gen": "generator", "dis": "discriminator", "id": "encoder"}
NESTED = ("state_dict", "model", "model_state_dict", "net")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
OWN = {"structure.stem.0.conv.weight": "generator", "scales.0.0.conv.weight": "discriminator"}
# parts of other ResNets that ours does not have
FOREIGN = {".IN.weight": "instance norm (IBN)", "NL_": "non-local blocks", ".se.": "squeeze-and-excitation"}


@dataclass
class Part:
    """One network found in a file.

    module   "encoder" | "generator" | "discriminator"
    kind     the official kind it was read as ("gen", "id_mlc" ...), or "own" for weights of this package
    what     in words, for the user
    state    our names -> tensors; lacks the names in `missing`
    variant  the encoder's head: "jvtc" (linear layer) or "mlc"/"act"; None for a backbone without a head
    left     names in the file that have no place here; missing: ours that the file does not give; notes: differences
    """

    module: str
    kind: str
    what: str
    state: dict[str, Tensor]
    variant: str | None = None
    left: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self) -> str:
        lines = [f"{self.what}: {len(self.state)} tensors mapped onto the {self.module}"]
        lines += [
            f"  {title}: {_grouped(names)}"
            for title, names in (("left", self.left), ("missing, start fresh", self.missing))
            if names
        ]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def read_published(path: str | os.PathLike[str], kind: str = "auto") -> list[Part]:
    """The networks in a weight file; nothing in the file is executed.

    kind  "auto", or the official kind that the file must be ("gen", "dis", "id_jvtc", "id_mlc", "id_act")

    ValueError naming the file where it holds no network known here, another architecture, a wrongly shaped or missing
    entry, or a weight that is not finite; FileNotFoundError where there is none. Tensors are on the CPU.
    """
    content = load_weights(path)
    try:
        parts = recognise(content, kind)
    except (ValueError, TypeError) as error:
        raise ValueError(f"weights file {path}: {error}") from error
    for part in parts:
        broken = [n for n, v in part.state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
        if broken:
            raise ValueError(f"weights file {path}: weights not finite in the {part.module}: {_grouped(broken)}")
    return parts


def recognise(content: Mapping[str, Any], kind: str = "auto") -> list[Part]:
    """As `read_published`, of what a file holds."""
    modules = content.get("modules")
    if isinstance(modules, Mapping) and kind == "auto":
        whose = f"gcl_fast checkpoint of {content.get('stage', 'a stage')}"
        return [Part(name, "own", f"{name} of a {whose}", dict(state), _own_variant(state)) for name, state in modules.items()]
    wrapped = [key for key in MODULES if isinstance(content.get(key), Mapping)]
    if kind == "auto" and wrapped:
        return [_part(_names(content[key])) for key in wrapped]
    if kind != "auto":
        key = kind.split("_")[0]
        return [_official(_names(content.get(key, content)), kind)]
    return [_part(_names(content))]


def _names(state: Any) -> dict[str, Any]:
    """The entries below the keys that wrap a state_dict, without DataParallel's prefix."""
    for key in NESTED:
        if isinstance(state.get(key), Mapping):
            return _names(state[key])
    names = {str(k): v for k, v in state.items()}
    while any(k.startswith("module.") for k in names):
        names = {k.removeprefix("module."): v for k, v in names.items()}
    return names


def _part(names: dict[str, Any]) -> Part:
    for name, module in OWN.items():
        if name in names:
            return Part(module, "own", f"{module} weights of gcl_fast", _tensors(names))
    if any(k.startswith("enc_content.") for k in names):
        return _official(names, "gen")
    if any(k.startswith("cnns.") for k in names):
        return _official(names, "dis")
    if "backbone.conv1.weight" in names and not any(k.startswith("heads.") for k in names):
        what = "encoder weights of gcl_fast" if "bn.weight" in names else "ResNet of an encoder of gcl_fast, without its head"
        return _encoder_gaps(Part("encoder", "own", what, _tensors(names), _own_variant(names)))
    return _encoder(names)


def _tensors(names: Mapping[str, Any]) -> dict[str, Tensor]:
    other = [k for k, v in names.items() if not isinstance(v, Tensor)]
    if other:
        raise ValueError(f"expected tensors alone, got {type(names[other[0]]).__name__} at {other[0]}")
    return dict(names)


def _own_variant(state: Mapping[str, Any]) -> str | None:
    return None if "bn.weight" not in state else "jvtc" if "feat.weight" in state else "mlc"


def _official(names: dict[str, Any], kind: str) -> Part:
    """A file of the authors' own naming, complete."""
    state = convert_official(names, kind)
    what = {"gen": "the authors' generator", "dis": "the authors' discriminator"}.get(kind, f"{kind.removeprefix('id_')} encoder")
    variant = kind.removeprefix("id_") if kind.startswith("id_") else None
    return Part("encoder" if variant else MODULES[kind], kind, what, state, variant, _left(names, state))


def _left(names: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[str]:
    used = {id(v) for v in state.values()}
    return [k for k, v in names.items() if id(v) not in used and not k.endswith("num_batches_tracked")]


def _encoder(names: dict[str, Any]) -> Part:
    """A ResNet encoder of any project: its head decides the variant, its names become JVTC's or MLC's."""
    plain = {_backbone_name(k): v for k, v in names.items()}
    if "0.weight" in plain and "3.0.conv1.weight" in plain:
        raise ValueError("this ResNet has no ReLU before its max pooling (its stages are numbered 3 to 6): it does not map")
    if not {"conv1.weight", "layer4.0.conv1.weight"} <= plain.keys():
        raise ValueError(
            "no generator, discriminator or ResNet encoder known here: its entries are "
            + (_grouped(list(names)) if names else "none")
        )
    foreign = next((words for mark, words in FOREIGN.items() if any(mark in k for k in plain)), None)
    if foreign:
        raise ValueError(f"this ResNet has {foreign}, which the encoder here does not")
    backbone = _depth(plain)
    head, what, variant, notes = _head(plain)
    taken = {new: plain[old] for old, new in head.items() if old in plain}
    if variant == "jvtc" and "feat.bias" not in taken:  # a 1x1 convolution without bias
        taken["feat.weight"] = taken["feat.weight"].flatten(1)
        taken["feat.bias"] = torch.zeros(len(taken["feat.weight"]))
    body = {k: v for k, v in plain.items() if k.startswith(("conv1.", "bn1.", "layer"))}
    like = "jvtc" if variant == "jvtc" else "mlc"
    width = len(taken["feat.weight"]) if variant == "jvtc" and taken["feat.weight"].dim() == 2 else 512
    stem = plain["conv1.weight"]
    with torch.device("meta"):  # of the file's width, which small encoders may have less of
        shapes = IdentityEncoder(
            like, backbone, width=len(stem) if isinstance(stem, Tensor) and stem.dim() == 4 else 64, feature_width=max(1, width)
        )
    filled = taken if variant else {f"bn.{k}": torch.empty(shapes.bn.state_dict()[k].shape) for k in NORM}
    state = convert_official(body | filled, f"id_{like}", module=shapes)
    if variant is None:
        state = {k: v for k, v in state.items() if k.startswith("backbone.")}
    if any(k.endswith(("gap.p", "pool_layer.p", "pool.p", "gem.p")) for k in plain):
        notes.append("the file's network pools with GeM, the one here averages: features differ until trained on")
    part = Part("encoder", f"id_{variant or like}", f"{what} ({backbone})", state, variant, _left(names, state), notes=notes)
    return _encoder_gaps(part)


def _encoder_gaps(part: Part) -> Part:
    if part.variant is None:
        part.missing = [f"bn.{k}" for k in NORM[:4]] + ["feat (where the variant has it)"]
        part.notes.append("no head in the file: batch norm and, in variant jvtc, the linear layer start fresh")
    return part


def _backbone_name(name: str) -> str:
    """torchvision's name of a ResNet entry that lies below `base.`, `backbone.` or numbered stages."""
    for prefix in ("base.", "backbone."):
        name = name.removeprefix(prefix)
    first, dot, rest = name.partition(".")
    return STAGES.get(first, first) + dot + rest


def _depth(plain: Mapping[str, Any]) -> str:
    blocks = tuple(len({k.split(".")[1] for k in plain if k.startswith(f"layer{i}.")}) for i in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in plain
    for name, depths in DEPTHS.items():
        if blocks == depths and bottleneck == (name == "resnet50"):
            return name
    raise ValueError(f"a ResNet of {blocks} {'bottleneck' if bottleneck else 'basic'} blocks; those here are {DEPTHS}")


def _head(plain: Mapping[str, Any]) -> tuple[dict[str, str], str, str | None, list[str]]:
    """(their names -> JVTC's or MLC's, in words, variant, differences)."""

    def norm(prefix: str, ours: str = "bn") -> dict[str, str]:
        return {f"{prefix}.{k}": f"{ours}.{k}" for k in NORM}

    linear = {"feat.weight": "feat.weight", "feat.bias": "feat.bias"}
    if "heads.bottleneck.1.weight" in plain:
        names = {"heads.bottleneck.0.weight": "feat.weight"} | norm("heads.bottleneck.1", "feat_bn")
        return names, "fast-reid encoder", "jvtc", []
    for prefix, what in (
        ("heads.bottleneck.0", "fast-reid encoder"),
        ("heads.bnneck", "fast-reid encoder"),
        ("bottleneck", "bag-of-tricks encoder"),
    ):
        if f"{prefix}.running_var" in plain:
            return norm(prefix), what, "mlc", []
    if "fc.1.running_var" in plain:
        note = "torchreid's features pass a ReLU after this head, those here do not"
        names = {"fc.0.weight": "feat.weight", "fc.0.bias": "feat.bias"} | norm("fc.1", "feat_bn")
        return names, "torchreid encoder", "jvtc", [note]
    if "feat.weight" in plain and "feat_bn.weight" in plain:
        return linear | norm("feat_bn", "feat_bn"), "JVTC-style encoder", "jvtc", []
    if "bn.weight" in plain:
        return norm("bn"), "MLC encoder", "mlc", []
    if "feat_bn.weight" in plain:
        return norm("feat_bn"), "ACT, MMCL or cluster-contrast encoder", "act", []
    note = "torchreid's resnet50 halves the last stage's map where the encoder here keeps it; torchvision's too"
    return {}, "torchvision or torchreid ResNet", None, [note]


def _grouped(names: list[str], most: int = 6) -> str:
    """A few names, then how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
