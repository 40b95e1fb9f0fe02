"""Weight files from elsewhere: a file's keys tell what it holds, which is then mapped onto this package's networks.

Known: the authors' stage 2 and 3 files ({'gen'}, {'dis'}, {'id'}), JVTC, MLC, ACT/MMCL, encoders of cluster-contrast and SpCL
(`base.` or numbered stages, `feat_bn`), "bag of tricks" baselines (`bottleneck`), fast-reid (`model`, `backbone.`, `heads.`),
torchreid and torchvision ResNets, and this package's own weights and checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gcl_fast.constants import LEARNING_ENCODER
from gcl_fast.errors import InputError
from gcl_fast.models.convert import convert_official
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.models.names import (
    BACKBONE_MARKS,
    FOREIGN,
    GEM,
    MODULES,
    NORM,
    OURS,
    Head,
    abridged,
    entries,
    head_of,
    resnet_entries,
)
from gcl_fast.models.resnets import DEPTHS, IBN
from gcl_fast.models.weights import load_weights
from gcl_fast.progress import counted

_IBN_A = (".bn1.IN.", ".bn1.BN.")  # instance norm beside the first batch norm of a block


@dataclass
class Part:
    """One network found in a file.

    module   "encoder" | "generator" | "discriminator"
    kind     the official kind it was read as ("gen", "id_mlc" ...), or "own" for weights of this package
    what     in words, for the user
    state    our names -> tensors; lacks the names in `missing`
    variant  the encoder's head: "jvtc" (linear layer) or "mlc"/"act"; None for a backbone without a head
    pooling  before that head: "avg" or "gem"
    left     names in the file that have no place here; missing: ours that the file does not give; notes: differences
    """

    module: str
    kind: str
    what: str
    state: dict[str, Tensor]
    variant: str | None = None
    pooling: str = "avg"
    left: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self) -> str:
        """What was mapped, left out and is missing, in lines."""
        lines = [f"{self.what}: {counted(len(self.state), 'tensor')} mapped onto the {self.module}"]
        for title, names in (("left", self.left), ("missing, start fresh", self.missing)):
            if names:
                lines.append(f"  {title}: {abridged(names)}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def read_published(path: str | os.PathLike[str], kind: str = "auto") -> list[Part]:
    """The networks in a weight file; nothing in the file is executed. Tensors are on the CPU.

    Arguments:
        kind: "auto", or the official kind that the file must be ("gen", "dis", "id_jvtc", "id_mlc", "id_act").

    Errors: InputError naming the file where it holds no network known here, another architecture, a wrongly shaped or missing
        entry, or a weight that is not finite; MissingFileError where there is none.
    """
    content = load_weights(path)
    try:
        parts = recognise(content, kind)
    except InputError as error:
        raise InputError(f"weights file {path}: {error}") from error
    for part in parts:
        broken = [n for n, v in part.state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
        if broken:
            raise InputError(f"weights file {path}: weights not finite in the {part.module}: {abridged(broken)}")
    return parts


def recognise(content: Mapping[str, object], kind: str = "auto") -> list[Part]:
    """As `read_published`, of what a file holds."""
    if kind != "auto":
        state = content.get(kind.split("_")[0], content)
        return [_official(_entries(state), kind)]
    modules = content.get("modules")
    if isinstance(modules, Mapping):
        whose = f"gcl_fast checkpoint of {content.get('stage', 'a stage')}"
        return [_of_ours(name, state, whose) for name, state in modules.items() if name != LEARNING_ENCODER]
    wrapped = [state for state in (content.get(key) for key in MODULES) if isinstance(state, Mapping)]
    return [_network(entries(state)) for state in wrapped or [content]]


def _of_ours(name: object, state: object, whose: str) -> Part:
    if not isinstance(name, str) or name not in MODULES.values():
        raise InputError(f"modules must be of {', '.join(MODULES.values())}, got {name!r}")
    if not isinstance(state, Mapping):
        raise InputError(f"modules: expected names and tensors at {name}, got {type(state).__name__}")
    variant = _our_variant(state) if name == "encoder" else None
    return Part(name, "own", f"{name} of a {whose}", _tensors(state), variant, _our_pooling(state))


def _entries(state: object) -> dict[str, object]:
    if not isinstance(state, Mapping):
        raise InputError(f"expected names and tensors, got {type(state).__name__}")
    return entries(state)


def _network(names: dict[str, object]) -> Part:
    for mark, module in OURS.items():
        if mark in names:
            return Part(module, "own", f"{module} weights of gcl_fast", _tensors(names))
    if any(name.startswith("enc_content.") for name in names):
        return _official(names, "gen")
    if any(name.startswith("cnns.") for name in names):
        return _official(names, "dis")
    ours = "backbone.conv1.weight" in names or marked_backbone(names)
    if ours and not any(name.startswith("heads.") for name in names):
        what = "encoder weights of gcl_fast" if "bn.weight" in names else "backbone of an encoder of gcl_fast, without its head"
        return _say_what_is_missing(Part("encoder", "own", what, _tensors(names), _our_variant(names), _our_pooling(names)))
    return _encoder(names)


def _tensors(names: Mapping[str, object]) -> dict[str, Tensor]:
    tensors = {name: value for name, value in names.items() if isinstance(value, Tensor)}
    other = next((name for name in names if name not in tensors), None)
    if other is not None:
        raise InputError(f"expected tensors alone, got {type(names[other]).__name__} at {other}")
    return tensors


def _our_variant(state: Mapping[str, object]) -> str | None:
    if not any(name.startswith("bn.") for name in state):
        return None
    return "jvtc" if any(name.startswith("feat.") for name in state) else "mlc"


def _our_pooling(state: Mapping[str, object]) -> str:
    return "gem" if "pool.p" in state else "avg"


def _official(names: dict[str, object], kind: str) -> Part:
    """A file of the authors' own naming, complete."""
    state = convert_official(names, kind)
    what = {"gen": "the authors' generator", "dis": "the authors' discriminator"}.get(kind, f"{kind.removeprefix('id_')} encoder")
    variant = kind.removeprefix("id_") if kind.startswith("id_") else None
    return Part("encoder" if variant else MODULES[kind], kind, what, state, variant, left=_left(names, state))


def _left(names: Mapping[str, object], state: Mapping[str, Tensor]) -> list[str]:
    used = {id(tensor) for tensor in state.values()}
    return [name for name, value in names.items() if id(value) not in used and not name.endswith("num_batches_tracked")]


def _encoder(names: dict[str, object]) -> Part:
    """A ResNet encoder of any project: its head decides the variant, its names become JVTC's or MLC's."""
    resnet = resnet_entries(names, ("base.", "backbone."))
    _check_resnet(resnet, names)
    backbone, head = _depth(resnet), head_of(resnet)
    like = "jvtc" if head.variant == "jvtc" else "mlc"
    head_entries = _head_entries(resnet, head)
    network = _empty_encoder(like, backbone, resnet, head_entries)
    body = {name: value for name, value in resnet.items() if name.startswith(("conv1.", "bn1.", "layer"))}
    if head.variant is None:  # convert_official wants a whole network
        head_entries = {f"bn.{end}": torch.empty(network.bn.state_dict()[end].shape) for end in NORM}
    state = convert_official(body | head_entries, f"id_{like}", module=network)
    if head.variant is None:
        state = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    notes = [head.note] if head.note else []
    exponent = next((value for name, value in resnet.items() if name.endswith(GEM) and isinstance(value, Tensor)), None)
    if exponent is not None and head.variant is not None:
        state["pool.p"] = exponent.reshape(1)
        notes.append("the file's network pools with GeM: model.pooling must be gem")
    part = Part(
        module="encoder",
        kind=f"id_{head.variant or like}",
        what=f"{head.project} ({backbone})",
        state=state,
        variant=head.variant,
        pooling="gem" if "pool.p" in state else "avg",
        left=_left(names, {**state, "pool.p": exponent} if exponent is not None else state),
        notes=notes,
    )
    return _say_what_is_missing(part)


def _check_resnet(resnet: Mapping[str, object], names: Mapping[str, object]) -> None:
    """Errors: InputError where it is no ResNet, or has parts that the encoder here lacks; `names` as the file has them."""
    absent = [name for name in ("conv1.weight", "layer4.0.conv1.weight") if name not in resnet]
    if len(absent) == 1:
        raise InputError(f"this ResNet has no {absent[0]}")
    if absent:
        held = abridged(list(names)) if names else "none"
        raise InputError(f"no generator, discriminator or ResNet encoder known here: its entries are {held}")
    known = _IBN_A if _is_ibn_a(resnet) else ()
    for mark, words in FOREIGN.items():
        if any(mark in name and not any(part in name for part in known) for name in resnet):
            raise InputError(f"this ResNet has {words}, which the encoder here does not")


def _head_entries(resnet: Mapping[str, object], head: Head) -> dict[str, object]:
    """The head's entries by the authors' names; a linear layer may be written as a 1x1 convolution without bias."""
    taken = {new: resnet[old] for old, new in head.official_names().items() if old in resnet}
    weight = taken.get("feat.weight")
    if head.variant == "jvtc" and "feat.bias" not in taken and isinstance(weight, Tensor) and weight.dim() > 1:
        taken["feat.weight"] = weight.flatten(1)
        taken["feat.bias"] = torch.zeros(len(weight))
    return taken


def _empty_encoder(
    variant: str, backbone: str, resnet: Mapping[str, object], head_entries: Mapping[str, object]
) -> IdentityEncoder:
    """Ours, without memory, of the file's widths: small encoders have less than the published ones."""
    stem, linear = resnet["conv1.weight"], head_entries.get("feat.weight")
    with torch.device("meta"):
        return IdentityEncoder(
            variant,
            backbone,
            width=len(stem) if isinstance(stem, Tensor) and stem.dim() == 4 else 64,
            feature_width=max(1, len(linear)) if isinstance(linear, Tensor) and linear.dim() == 2 else 512,
        )


def _say_what_is_missing(part: Part) -> Part:
    if part.variant is None:
        part.missing = [f"bn.{end}" for end in NORM[:4]] + ["feat (where the variant has it)"]
        part.notes.append("no head in the file: batch norm and, in variant jvtc, the linear layer start fresh")
    return part


def _is_ibn_a(resnet: Mapping[str, object]) -> bool:
    return all(any(part in name for name in resnet) for part in _IBN_A)


def _depth(resnet: Mapping[str, object]) -> str:
    """The name of the ResNet with as many blocks of the same kind in each stage."""
    blocks = tuple(len({name.split(".")[1] for name in resnet if name.startswith(f"layer{stage}.")}) for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in resnet
    for name, depths in DEPTHS.items():
        if blocks == depths and bottleneck == (name != "resnet18"):
            return name + IBN if _is_ibn_a(resnet) else name
    raise InputError(f"a ResNet of {blocks} {'bottleneck' if bottleneck else 'basic'} blocks; those here are {DEPTHS}")


def marked_backbone(state: Mapping[str, object]) -> str:
    """The name of the backbone in an encoder's state_dict of this package; empty where it is a ResNet, or none."""
    return next((name for mark, name in BACKBONE_MARKS.items() if mark in state), "")


def resnet_of(state: Mapping[str, object]) -> str:
    """The name of the ResNet in an encoder's state_dict of this package.

    Errors: InputError where it has another number of blocks.
    """
    return _depth({name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")})
