"""The networks of a stage made ready to run: on which device, in which memory layout, compiled or not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.errors import ConfigError
from gcl_fast.models.generator import Generator

BACKEND = "inductor"  # of torch.compile


def chosen(choice: str, auto: bool) -> bool:
    return auto if choice == "auto" else choice == "on"


def check_graphs(config: TrainConfig, device: torch.device) -> None:
    """Errors: ConfigError where CUDA graphs are asked for that the device, or the other settings, cannot have."""
    if config.compile == "graphs" and device.type != "cuda":
        raise ConfigError(f"compile 'graphs' needs a CUDA device, got {device}; 'on' compiles for any")
    if not config.step_graph:
        return
    if device.type != "cuda":
        raise ConfigError(f"step_graph needs a CUDA device, got {device}")
    if config.compile == "graphs":
        raise ConfigError("step_graph holds the networks, too: it goes with compile 'off' or 'on', got 'graphs'")
    processes = max(distributed.launched(), distributed.world())
    if processes > 1:
        raise ConfigError(f"step_graph is for a single process, got {processes}")


def prepare(modules: Mapping[str, nn.Module], config: TrainConfig, device: torch.device) -> torch.memory_format:
    """Move and lay out the modules as configured; the layout that image batches should have, too.

    Compiled are the parts that are called: encoder and discriminator, and of the generator its structure encoder and decoder.
    """
    channels_last = chosen(config.channels_last, device.type == "cuda")
    layout = torch.channels_last if channels_last else torch.preserve_format
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = chosen(config.cudnn_benchmark, True)
    for module in modules.values():
        module.to(device=device)
        if channels_last:
            module.to(memory_format=torch.channels_last)
    check_graphs(config, device)
    if config.compile in ("on", "graphs"):
        mode = "reduce-overhead" if config.compile == "graphs" else None
        for module in modules.values():
            for part in (module.structure, module.decoder) if isinstance(module, Generator) else (module,):
                part.compile(backend=BACKEND, mode=mode)
    return layout
