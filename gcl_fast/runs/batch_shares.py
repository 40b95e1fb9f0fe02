"""The joint batch of each stage, shared by the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence

from gcl_fast import distributed
from gcl_fast.config import TrainConfig
from gcl_fast.errors import ConfigError
from gcl_fast.runs.device import choose_device


def check_shares(config: TrainConfig, stages: Sequence[int]) -> None:
    """ConfigError where a stage's batch cannot be shared equally by the processes of this run, or its batch norm not at all."""
    count, warmup, device = distributed.world(), config.stage1, choose_device(config.device)
    if config.sync_bn and {1, 3} & set(stages):  # which train the encoder; before a run folder is touched
        distributed.check_sync_batch_norm(device)
    settings, name = {"mlc": (warmup.mlc, "stage1.mlc"), "jvtc": (warmup.jvtc, "stage1.jvtc")}.get(
        warmup.method, (warmup, "stage1")
    )
    batches = {
        1: (name, settings.batch_size, getattr(settings, "views", 1)),
        2: ("stage2", config.stage2.batch_size, 1),
        3: ("stage3", config.stage3.batch_size, 1),
    }
    for name, size, unit in (batches[stage] for stage in stages):
        if size % (count * unit):
            units = f" of {unit} views" if unit > 1 else ""
            raise ConfigError(
                f"{name}.batch_size, the joint batch, must be a multiple of {count * unit}, so that each of {count} "
                f"processes gets the same number of images{units}, got {size}"
            )
        if count > 1 and size // count < 2 and not config.sync_bn:
            raise ConfigError(
                f"{name}.batch_size must give each of {count} processes 2 images or more for its batch norm, got {size}"
                + ("; or use --sync-bn" if device.type == "cuda" else "")
            )
