"""Names and angles that several rooms share."""

from __future__ import annotations

from typing import Literal, get_args

LayoutName = Literal["market1501", "dukemtmc", "msmt17"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)
"""Published data sets, in whose folders the synthetic world is written too."""
DatasetName = Literal[LayoutName, "csv", "folder"]
DATASETS: tuple[DatasetName, ...] = get_args(DatasetName)
OWN_DATA: tuple[DatasetName, ...] = ("csv", "folder")
"""A user's own images, whose names and folders say nothing."""

LEARNING_ENCODER = "encoder_learning"
"""In checkpoints: the encoder that learns, where "encoder" is the moving average of its weights."""

NOVEL_YAWS = (45, 90, 135, 180, 225, 270, 315)
"""Turns of a body about its vertical axis from which new views are drawn, degrees."""
ALL_YAWS = (0, *NOVEL_YAWS)
"""The photo's own view and the new ones: what the authors rendered."""

BackboneName = Literal[
    "resnet18",
    "resnet50",
    "resnet101",
    "resnet50_ibn_a",
    "resnet101_ibn_a",
    "osnet_x1_0",
    "efficientnet_lite0",
    "vit_small_patch16",
]
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
"""Backbones of the identity encoder."""
