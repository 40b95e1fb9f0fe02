"""Stage 1: one file per unsupervised warm-up method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from gcl_fast.config import TrainConfig
from gcl_fast.data.augment import Augment
from gcl_fast.stages.warmup.warmup_stage import WarmupStage


def warmup_stage(config: TrainConfig, encoder: nn.Module, space: Any, **changes: Any) -> WarmupStage:
    """The stage of config.stage1.method on an open data set (a Workspace); changes as in WarmupStage."""
    from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
    from gcl_fast.stages.warmup.jvtc import JVTCStage
    from gcl_fast.stages.warmup.mlc import MLCStage

    method, augment = config.stage1.method, Augment(**asdict(config.stage1.augment))
    options = {"device": space.device, "features": space.features, "score": space.score, **changes}
    if method == "cluster-contrast":
        return ClusterContrastStage(config, encoder, space.train_loader(augment=augment), space.cameras, **options)
    kind, settings = {"mlc": (MLCStage, config.stage1.mlc), "jvtc": (JVTCStage, config.stage1.jvtc)}[method]
    styled = space.styled(use=settings.camstyle)
    return kind(config, encoder, space.train_loader(augment=augment, records=styled.records), styled, **options)
