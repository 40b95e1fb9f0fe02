"""Typed configuration: dataclasses (`schema`), plain values into them (`plain_values`), YAML files (`yaml_files`)."""

from gcl_fast.config.plain_values import from_dict, to_dict
from gcl_fast.config.schema import (
    AugmentConfig,
    ClusterConfig,
    JVTCConfig,
    LossConfig,
    MLCConfig,
    ModelConfig,
    Stage1Config,
    Stage2Config,
    Stage3Config,
    TrainConfig,
    VarianceConfig,
    WarmupConfig,
)
from gcl_fast.config.yaml_files import RESOLVED, config_dir, load_shipped, load_yaml, shipped
from gcl_fast.errors import ConfigError

__all__ = [
    "RESOLVED",
    "AugmentConfig",
    "ClusterConfig",
    "ConfigError",
    "JVTCConfig",
    "LossConfig",
    "MLCConfig",
    "ModelConfig",
    "Stage1Config",
    "Stage2Config",
    "Stage3Config",
    "TrainConfig",
    "VarianceConfig",
    "WarmupConfig",
    "config_dir",
    "from_dict",
    "load_shipped",
    "load_yaml",
    "shipped",
    "to_dict",
]
