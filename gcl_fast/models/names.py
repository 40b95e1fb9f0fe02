"""Parameter names of published networks, and which of ours each one is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gcl_fast.errors import InputError
from gcl_fast.models.discriminator import SCALES
from gcl_fast.models.generator import BLOCKS

KINDS = ("gen", "dis", "id_jvtc", "id_mlc", "id_act")
# The keys below which the authors' files keep each network.
MODULES = {"gen": "generator", "dis": "discriminator", "id": "encoder"}
# The keys below which files keep a state_dict.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema", "ema")
# Beginnings of names that say how a network was wrapped (DataParallel, torch.compile, a trainer's attribute), not what it is.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "encoder.")
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Entries that only networks of this package have.
OURS = {"structure.stem.0.conv.weight": "generator", "scales.0.0.conv.weight": "discriminator"}
# Entries of this package's encoders that only one backbone has, where it is no ResNet.
BACKBONE_MARKS = {
    "backbone.conv_stem.weight": "efficientnet_lite0",
    "backbone.conv1.conv.weight": "osnet_x1_0",
    "backbone.net.patch_embed.proj.weight": "vit_small_patch16",
}
# Marks of ResNets with parts that the encoder here does not have.
FOREIGN = {".IN.weight": "instance norm (IBN)", "NL_": "non-local blocks", ".se.": "squeeze-and-excitation"}
# Ends of the name of a learned pooling exponent.
GEM = ("gap.p", "pool_layer.p", "pool.p", "gem.p")
# ResNets kept in an nn.Sequential carry numbers for names.
_RESNET_STAGES = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def entries(state: Mapping[str, object], wrappers: Iterable[str] = WRAPPERS) -> dict[str, object]:
    """The entries below the keys that wrap a state_dict, without PREFIXES; of two that would become one both keep their names."""
    for key in wrappers:
        nested = state.get(key)
        if isinstance(nested, Mapping):
            return entries(nested, wrappers)
    names = {str(name): value for name, value in state.items()}
    while True:
        bare = {name: _without_prefix(name) for name in names}
        counts = Counter(bare.values())
        shorter = {bare[name] if counts[bare[name]] == 1 else name: value for name, value in names.items()}
        if list(shorter) == list(names):
            return names
        names = shorter


def _without_prefix(name: str) -> str:
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def resnet_entries(names: Mapping[str, object], prefixes: Iterable[str]) -> dict[str, object]:
    """A ResNet's entries by torchvision's names: without `prefixes`, numbered stages by name.

    Errors: InputError where the numbers show that a layer is missing.
    """
    for prefix in prefixes:
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    if "0.weight" in names and "3.0.conv1.weight" in names:
        raise InputError("this ResNet has no ReLU before its max pooling (its stages are numbered 3 to 6): it does not map")
    renamed = {}
    for name, value in names.items():
        stage, dot, rest = name.partition(".")
        renamed[_RESNET_STAGES.get(stage, stage) + dot + rest] = value
    return renamed


def network_prefixes(kind: str) -> tuple[str, ...]:
    """Beginnings of the names of the network itself; anything else in a file is not ours to judge."""
    return {"gen": ("enc_content.", "dec.", "mlp_"), "dis": ("cnns.",)}.get(kind, ("conv1.", "bn1.", "layer"))


def unread(name: str) -> bool:
    """Counters, and statistics that AdaIN never reads."""
    return name.endswith(("num_batches_tracked", "norm.running_mean", "norm.running_var"))


def official_name(ours: str, prefixes: Mapping[str, str]) -> str:
    """Their name of one of our parameters; the longest beginning that fits counts."""
    prefix = max((prefix for prefix in prefixes if ours.startswith(prefix)), key=len)
    return prefixes[prefix] + ours[len(prefix) :]


def official_prefixes(kind: str) -> dict[str, str]:
    """Beginning of our names -> beginning of the authors'."""
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


@dataclass(frozen=True)
class Head:
    """What follows a ResNet in one project's encoders.

    marks    entries by which it is told: all of them
    project  in words, for the user
    variant  ours that it is: "jvtc" | "mlc" | "act"; None for no head
    norm     name of its batch norm; linear: of the layer before, in variant jvtc
    note     how features differ from ours
    """

    marks: tuple[str, ...]
    project: str
    variant: str | None
    norm: str = ""
    linear: str = ""
    note: str = ""

    def official_names(self) -> dict[str, str]:
        """Their names -> the authors' names in variant jvtc, or else mlc."""
        norm = "feat_bn" if self.variant == "jvtc" else "bn"
        names = {f"{self.norm}.{end}": f"{norm}.{end}" for end in NORM} if self.norm else {}
        if self.linear:
            names |= {f"{self.linear}.{end}": f"feat.{end}" for end in ("weight", "bias")}
        return names


_RELU = "torchreid's features pass a ReLU after this head, those here do not"
_STRIDE = "torchreid's resnet50 halves the last stage's map where the encoder here keeps it; torchvision's too"
HEADS = (  # the first that fits counts
    Head(("heads.bottleneck.1.weight",), "fast-reid encoder", "jvtc", "heads.bottleneck.1", "heads.bottleneck.0"),
    Head(("heads.bottleneck.0.running_var",), "fast-reid encoder", "mlc", "heads.bottleneck.0"),
    Head(("heads.bnneck.running_var",), "fast-reid encoder", "mlc", "heads.bnneck"),
    Head(("bottleneck.running_var",), "bag-of-tricks encoder", "mlc", "bottleneck"),
    Head(("fc.1.running_var",), "torchreid encoder", "jvtc", "fc.1", "fc.0", _RELU),
    Head(("feat.weight", "feat_bn.weight"), "JVTC-style encoder", "jvtc", "feat_bn", "feat"),
    Head(("bn.weight",), "MLC encoder", "mlc", "bn"),
    Head(("feat_bn.weight",), "ACT, MMCL or cluster-contrast encoder", "act", "feat_bn"),
    Head((), "torchvision or torchreid ResNet", None, note=_STRIDE),
)


def head_of(resnet: Mapping[str, object]) -> Head:
    return next(head for head in HEADS if all(mark in resnet for mark in head.marks))


def abridged(names: list[str], most: int = 6) -> str:
    """A few names, then how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
