"""The warm-up methods by name."""

from __future__ import annotations

from gcl_fast.config import TrainConfig
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.stages.training_data import TrainingData
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from gcl_fast.stages.warmup.warmup_stage import Continuation, WarmupStage

STAGES: dict[str, type[ClusterContrastStage] | type[MLCStage] | type[JVTCStage]] = {
    "cluster-contrast": ClusterContrastStage,
    "mlc": MLCStage,
    "jvtc": JVTCStage,
}


def stage_of_method(
    config: TrainConfig, encoder: IdentityEncoder, data: TrainingData, continuation: Continuation | None = None
) -> WarmupStage:
    """The stage of config.stage1.method; continuation: go on after a finished run of it."""
    return STAGES[config.stage1.method](config, encoder, data, continuation)
