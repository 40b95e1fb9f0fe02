"""Whether a run may go on with given settings, and which of them differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcl_fast.config import TrainConfig, to_dict

NOT_TRAINING = (  # settings that a resumed run may change: they do not touch what is learnt
    "root",
    "mesh_root",
    "runs",
    "name",
    "device",
    "threads",
    "workers",
    "loader",
    "cache",
    "cudnn_benchmark",
    "compile",
    "step_graph",
    "tensorboard",
    "wandb",
    "log_every",
    "checkpoint_every",
    "picture_every",
    "eval_batch_size",
    "same_camera",
    "skip_broken",
    "skip_unmeshed",
)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs of two dictionaries of the same keys, each as "stage1.lr 0.00035 -> 0.5"."""
    found: list[str] = []
    for key, after in new.items():
        before = old[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {before} -> {after}")
    return found


def changed_settings(old: TrainConfig, new: TrainConfig) -> list[str]:
    """The settings of training that differ between a run and what it shall go on with. Paths may be written differently."""
    before, after = (
        {key: value for key, value in to_dict(with_absolute_paths(config)).items() if key not in NOT_TRAINING}
        for config in (old, new)
    )
    return _differences(before, after)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same settings with every path absolute, so that the run can be gone on with, or scored, from any folder."""

    def absolute(path: str) -> str:
        return os.path.abspath(Path(path).expanduser())

    init = config.init and ",".join(absolute(name.strip()) for name in config.init.split(",") if name.strip())
    named = config.model.weights in ("none", "imagenet")
    model = config.model if named else replace(config.model, weights=absolute(config.model.weights))
    return replace(
        config,
        root=absolute(config.root),
        mesh_root=config.mesh_root and absolute(config.mesh_root),
        runs=absolute(config.runs),
        init=init,
        model=model,
    )
