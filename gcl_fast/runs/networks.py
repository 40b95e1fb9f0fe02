"""The networks of a configuration, of a checkpoint, of weight files of any known kind."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.config import TrainConfig
from gcl_fast.constants import LEARNING_ENCODER
from gcl_fast.errors import CheckpointError, ConfigError, GclError, MissingFileError
from gcl_fast.guides import GuidedGenerator
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.before_norm import BeforeNorm
from gcl_fast.models.names import abridged
from gcl_fast.models.published import Part, marked_backbone, read_published, resnet_of
from gcl_fast.models.three_networks import Networks
from gcl_fast.runs.encoder_export import FILES, exported_size
from gcl_fast.stages.checkpoint import check_trained, load_checkpoint, load_trained, trained_settings
from gcl_fast.stages.warmup.mlc import as_tested


def build_networks(config: TrainConfig, *, start: bool = True) -> Networks:
    """Fresh networks, deterministic by the seed. The encoder's start does not depend on the generator's size.

    start: the encoder starts from model.weights; False: it will be loaded, and those weights are not needed.
    """
    model = config.model
    torch.manual_seed(config.seed)
    encoder = IdentityEncoder(
        model.variant,
        model.backbone,
        width=model.width,
        weights=model.weights if start and model.weights != "none" else None,
        pooling=model.pooling,
        norm_bias=model.norm_bias,
    )
    torch.manual_seed(config.seed + 1)
    kind = GuidedGenerator if model.guide == "texture" else Generator
    generator = kind(encoder.code_dim, width=model.generator_width, mlp_width=model.generator_mlp)
    discriminator = Discriminator(model.discriminator_width)
    return Networks(encoder, generator, discriminator)


def load_module(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Strict load whose error names the file."""
    other = [f"{name} ({type(value).__name__})" for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise ConfigError(f"{source}: weights must be tensors, got {abridged(other)}")
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise ConfigError(f"{source}: weights not finite: {abridged(broken)}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        misfit = _misfit(module, state) or " ".join(str(error).split())
        raise ConfigError(f"{source} does not fit {type(module).__name__} of this configuration: {misfit}") from None


def _misfit(module: nn.Module, state: dict[str, Tensor]) -> str:
    """The first names that are missing, unknown or of another shape."""
    expected = module.state_dict()
    shapes = [
        f"{name} {list(state[name].shape)} for {list(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    problems = {"missing": missing, "unknown": [name for name in state if name not in expected], "wrong shape": shapes}
    return "; ".join(f"{problem} {abridged(names, 4)}" for problem, names in problems.items() if names)


def load_networks(networks: Networks, files: str, stage: int, *, tell: bool = True) -> set[str]:
    """Start `stage` from weight files of any known kind, or run folders, joined by commas.

    tell: print what they hold.
    Returns: the modules they gave.
    Errors: InputError where a file does not fit, or stage 1 or 2 is given no identity encoder; MissingFileError.
    """
    given: set[str] = set()
    order = ("stage3", "stage2", "stage1") if stage == 3 else ("stage3", "stage1", "stage2")
    for name in filter(None, (name.strip() for name in files.split(","))):
        path = str(find_encoder(Path(name).expanduser(), order))
        for part in read_published(path):
            if stage == 1 and part.module != "encoder":  # it has no other network
                continue
            if part.module in given:
                raise ConfigError(f"--init {files}: more than one file holds the {part.module}")
            if tell:
                print(f"{path}: {part.report()}")
            _fit(getattr(networks, part.module), part, path)
            given.add(part.module)
    if "encoder" not in given and stage < 3:
        raise ConfigError(f"--init {files}: none of the files holds an identity encoder")
    return given


def _fit(module: nn.Module, part: Part, source: str) -> None:
    if part.module == "encoder" and part.variant is not None:
        flags = []
        if (part.variant == "jvtc") != (module.variant == "jvtc"):
            flags.append(f"--model.variant {part.variant}")
        if part.pooling != module.pooling:
            flags.append(f"--model.pooling {part.pooling}")
        if flags:
            raise ConfigError(
                f"{source} holds a {part.variant} encoder with {part.pooling} pooling, the configuration has variant "
                f"{module.variant} and {module.pooling} pooling: set {' '.join(flags)}"
            )
    head_less = part.module == "encoder" and part.variant is None
    fresh = {k: v for k, v in module.state_dict().items() if head_less and not k.startswith("backbone.")}
    load_module(module, fresh | part.state, source)


def find_checkpoint(path: Path, stages: Sequence[str] = ("stage3", "stage1", "stage2")) -> Path:
    """The path itself, in a stage's folder its last checkpoint, in a run folder that of the first of the stages that is there."""
    if not path.is_dir():
        return path
    if (path / "last.pt").is_file():
        return path / "last.pt"
    for stage in stages:
        checkpoint = path / stage / "last.pt"
        if checkpoint.is_file():
            return checkpoint
        if (best := checkpoint.with_name("best.pt")).is_file():  # an earlier stage's would be another network, unsaid
            raise MissingFileError(f"{checkpoint} is missing; {best} lies beside it: give that file")
    names = " or ".join(f"{stage}/last.pt" for stage in stages)
    raise MissingFileError(
        f"no checkpoint in {path}: expected {names}; give a run folder, as runs/NAME, a stage's folder in it, or a file"
    )


def find_encoder(path: Path, stages: Sequence[str] = ("stage3", "stage1", "stage2")) -> Path:
    """As `find_checkpoint`; in a folder that `gcl-fast export` wrote, and no run did, its weights."""
    try:
        return find_checkpoint(path, stages)
    except MissingFileError:
        exported = path / FILES["safetensors"]
        if not exported.is_file():
            raise
        return exported


def tell_taken(given: Path, found: Path) -> None:
    """Where a folder was given to a command, a line on stderr that says which of its files it took."""
    if found != given:
        print(f"{given}: {found.relative_to(given)} is taken", file=sys.stderr)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is meant as a checkpoint of this package, also a damaged one: no weights of another kind."""
    if path.suffix == ".safetensors":
        return False
    try:
        load_checkpoint(path)
        return True
    except CheckpointError:
        pass
    try:
        return not read_published(path)
    except GclError:
        return True


def networks_of(path: Path) -> tuple[TrainConfig, Networks, dict[str, Any]]:
    """The networks of a checkpoint, its configuration, and the checkpoint itself."""
    state = load_trained(path)
    config = trained_settings(path, state)
    config = replace(config, model=replace(config.model, weights="none"))
    networks = build_networks(config, start=False)
    for name, weights in state["modules"].items():
        if name == LEARNING_ENCODER:
            continue
        if not hasattr(networks, name):
            raise CheckpointError(f"{path}: 'modules' must be of {', '.join(vars(networks))}, got {name!r}")
        load_module(getattr(networks, name), weights, str(path))
    return config, networks, state


def as_scored(encoder: IdentityEncoder, config: TrainConfig, stage: str) -> IdentityEncoder | BeforeNorm:
    """The encoder with the feature that a run scores in a stage: MLC's may be the one before the head's batch norm, also in its
    control run."""
    by_mlc = stage in ("stage1", "control") and config.stage1.method == "mlc"
    return as_tested(encoder, config.stage1.mlc) if by_mlc else encoder


def encoder_of(path: Path) -> tuple[IdentityEncoder, tuple[int, int]]:
    """The identity encoder of a checkpoint or of a weight file of any known kind, and the image size it was trained at.

    Where a weight file does not tell the size: (256, 128), the published one.
    """
    config = _settings(path)
    parts = [part for part in read_published(path) if part.module == "encoder"]
    if not parts or parts[0].variant is None:
        alone = " with a head, but a backbone alone: train one that starts from it, by --model.weights"
        raise ConfigError(f"{path} holds no identity encoder" + (alone if parts else ""))
    state = parts[0].state
    size = exported_size(path) or (256, 128)
    variant, backbone = parts[0].variant, marked_backbone(state)
    if config is not None:
        size, variant, backbone = config.image_size, config.model.variant, config.model.backbone
    stem = state.get("backbone.conv1.weight")
    for name in ("backbone.conv1.weight", "bn.weight"):  # their shapes tell the widths
        needed = name == "bn.weight" or not backbone or backbone.startswith("resnet")
        if needed and (name not in state or not state[name].dim()):
            raise ConfigError(f"{path}: the encoder's {name} is missing")
    encoder = IdentityEncoder(
        variant,
        backbone or resnet_of(state),
        width=64 if stem is None else stem.shape[0],
        feature_width=state["bn.weight"].shape[0],
        pooling=parts[0].pooling,
    )
    load_module(encoder, state, str(path))
    return encoder.eval(), size


def trained_size(path: Path) -> tuple[int, int] | None:
    """(H, W) of the images that a checkpoint or an exported file was made for; None where it does not tell."""
    with contextlib.suppress(CheckpointError):
        if config := _settings(path):
            return config.image_size
    return exported_size(path)


def _settings(path: Path) -> TrainConfig | None:
    """Those in a checkpoint; None for a weight file. Errors: CheckpointError where a checkpoint's cannot be read."""
    try:
        state = load_checkpoint(path)
    except CheckpointError:
        return None
    check_trained(path, state)
    return trained_settings(path, state)
