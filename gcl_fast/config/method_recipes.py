"""What a stage-1 method brings besides its own section: head, sampler and augmentation, as published. A setting that is written
in a YAML file, or given as a flag, wins.

Sources, read in November 2026: alibaba/cluster-contrast-reid at 57b62e9, kennethwdk/MLCReID at d29c8fd, ljn114514/JVTC at
8422436. docs/fidelity.md has them line by line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcl_fast.config.plain_values import from_dict
from gcl_fast.config.schema import TrainConfig

RECIPES: dict[str, dict[str, Any]] = {
    "cluster-contrast": {
        # generalised-mean pooling, batch norm without a learned bias, as many features as channels
        "model": {"variant": "act", "pooling": "gem", "norm_bias": "frozen"},
        "stage1": {
            "method": "cluster-contrast",
            "sampler": "multiple-gallery",
            "augment": {"flip": 0.5, "pad": 10, "erase": 0.5, "erase_largest": 0.4, "erase_fill": "released"},
        },
    },
    "mlc": {
        "model": {"variant": "mlc", "pooling": "avg", "norm_bias": "learned"},
        "stage1": {
            "method": "mlc",
            "augment": {
                "flip": 0.5,
                "pad": 0,
                "erase": 0.5,
                "erase_largest": 0.2,
                "erase_fill": "released",
                "color_jitter": 0.2,
                "crop_smallest": 0.64,
                "rotation": 10.0,
            },
        },
    },
    "jvtc": {
        "model": {"variant": "jvtc", "pooling": "avg", "norm_bias": "learned"},
        "stage1": {
            "method": "jvtc",
            "augment": {"flip": 0.5, "pad": 0, "erase": 0.5, "erase_largest": 0.2, "erase_fill": "released"},
        },
    },
}
METHODS = tuple(RECIPES)

# What the settings that came with the recipes were before: configurations written in full by then do not have them.
_BEFORE: dict[str, Any] = {
    "model": {"variant": "jvtc", "pooling": "avg", "norm_bias": "learned"},
    "stage1": {
        "sampler": "random",
        "augment": {"erase_fill": "mean"},
        "mlc": {"memory_start": "features", "first_epoch": 1, "walk": "mutual", "test_feature": "after-norm"},
        "jvtc": {
            "target_norm": "l2",
            "within_camera": "once",
            "per_recording": False,
            "renormalise": True,
            "euclidean_share": 0.0,
            "joint_share": 0.0,
        },
    },
}
# Keys that a run writes into its config.yaml and checkpoints, and hardly anybody writes by hand, all of them.
_WRITTEN_IN_FULL = {"root", "mesh_root", "eval_batch_size", "log_every", "model", "stage1", "stage2", "stage3"}


def recipe(method: str = "cluster-contrast") -> TrainConfig:
    """The published settings of a stage-1 method; those of stages 2 and 3 are GCL-extended's. See METHODS."""
    return from_dict(TrainConfig, RECIPES[method])


def from_values(values: Mapping[str, Any], method: str | None = None) -> TrainConfig:
    """Settings from plain values, over the recipe of their stage-1 method.

    Arguments:
        values: as a YAML file or a checkpoint has them. Where a run of an earlier version wrote them in full, what they lack is
            as it was then.
        method: takes the place of stage1.method among them.

    Errors: ConfigError that names the key, what it must be and what came.
    """
    stage1 = values.get("stage1")
    chosen = method or (stage1.get("method") if isinstance(stage1, Mapping) else None)
    in_full = set(values) >= _WRITTEN_IN_FULL
    base = from_dict(TrainConfig, _BEFORE) if in_full else recipe(chosen if chosen in RECIPES else METHODS[0])
    if method is None:
        return from_dict(TrainConfig, values, base=base)
    section = {**stage1, "method": method} if isinstance(stage1, Mapping) else {"method": method}
    return from_dict(
        TrainConfig, {**values, "stage1": section} if stage1 is None or isinstance(stage1, Mapping) else values, base=base
    )
