"""The networks of a configuration, of a checkpoint, of weight files of any known kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.errors import CheckpointError, ConfigError, MissingFileError
from gcl_fast.guides import GuidedGenerator
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.published import Part, read_published
from gcl_fast.models.three_networks import Networks
from gcl_fast.stages.checkpoint import load_checkpoint


def build_networks(config: TrainConfig) -> Networks:
    """Fresh networks, deterministic by the seed. The encoder's start does not depend on the generator's size."""
    model = config.model
    torch.manual_seed(config.seed)
    weights = None if model.weights == "none" else model.weights
    encoder = IdentityEncoder(model.variant, model.backbone, width=model.width, weights=weights)
    torch.manual_seed(config.seed + 1)
    kind = GuidedGenerator if model.guide == "texture" else Generator
    generator = kind(encoder.code_dim, width=model.generator_width, mlp_width=model.generator_mlp)
    discriminator = Discriminator(model.discriminator_width)
    return Networks(encoder, generator, discriminator)


def load_module(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Strict load whose error names the file."""
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        raise ConfigError(f"{source}: weights not finite: {', '.join(broken[:5])}")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{source} does not fit {type(module).__name__} of this configuration: {error}") from None


def load_networks(networks: Networks, files: str) -> set[str]:
    """Start from weight files of any known kind, joined by commas; prints what they hold. Returns the modules they gave."""
    given: set[str] = set()
    for path in filter(None, (name.strip() for name in files.split(","))):
        for part in read_published(path):
            if part.module in given:
                raise ConfigError(f"--init {files}: more than one file holds the {part.module}")
            print(f"{path}: {part.report()}")
            _fit(getattr(networks, part.module), part, path)
            given.add(part.module)
    return given


def _fit(module: nn.Module, part: Part, source: str) -> None:
    if part.module == "encoder" and part.variant is not None and (part.variant == "jvtc") != (module.variant == "jvtc"):
        raise ConfigError(
            f"{source} holds a {part.variant} encoder, the configuration has variant {module.variant}: "
            f"set --model.variant {part.variant}"
        )
    head_less = part.module == "encoder" and part.variant is None
    fresh = {k: v for k, v in module.state_dict().items() if head_less and not k.startswith("backbone.")}
    load_module(module, fresh | part.state, source)


def find_checkpoint(path: Path, stages: Sequence[str] = ("stage3", "stage1")) -> Path:
    """The path itself, or in a run folder the checkpoint of the first of the stages that is there."""
    if not path.is_dir():
        return path
    expected = [path / stage / "last.pt" for stage in stages]
    for checkpoint in expected:
        if checkpoint.is_file():
            return checkpoint
    names = " or ".join(f"{stage}/last.pt" for stage in stages)
    raise MissingFileError(f"no checkpoint in {path}: expected {names}; give a run folder, as runs/NAME, or a file")


def networks_of(path: Path) -> tuple[TrainConfig, Networks, dict[str, Any]]:
    """The networks of a checkpoint, its configuration, and the checkpoint itself."""
    state = load_checkpoint(path)
    config = from_dict(TrainConfig, {**state["config"], "model": {**state["config"]["model"], "weights": "none"}})
    networks = build_networks(config)
    for name, weights in state["modules"].items():
        load_module(getattr(networks, name), weights, str(path))
    return config, networks, state


def encoder_of(path: Path) -> tuple[IdentityEncoder, tuple[int, int]]:
    """The identity encoder of a checkpoint or of a weight file of any known kind, and the image size it was trained at.

    A weight file does not tell the size: (256, 128), the published one.
    """
    parts = [part for part in read_published(path) if part.module == "encoder"]
    if not parts or parts[0].variant is None:
        raise ConfigError(f"{path} holds no identity encoder" + (" with a head" if parts else ""))
    state, size = parts[0].state, (256, 128)
    stem = state["backbone.conv1.weight"].shape[0]
    deep = "backbone.layer1.0.conv3.weight" in state
    features = state["bn.weight"].shape[0]
    variant = parts[0].variant
    try:
        config = from_dict(TrainConfig, load_checkpoint(path)["config"])
        size, variant = config.image_size, config.model.variant
    except (CheckpointError, KeyError):
        pass  # a weight file
    encoder = IdentityEncoder(variant, "resnet50" if deep else "resnet18", width=stem, feature_width=features)
    load_module(encoder, state, str(path))
    return encoder.eval(), size
