"""Typed configuration: dataclasses (`schema`), plain values into them (`plain_values`), YAML files (`yaml_files`)."""

from gcl_fast.config.method_recipes import METHODS, from_values, recipe
from gcl_fast.config.plain_values import from_dict, to_dict
from gcl_fast.config.schema import LossConfig, ModelConfig, Stage2Config, Stage3Config, TrainConfig, VarianceConfig
from gcl_fast.config.stage1_schema import AugmentConfig, ClusterConfig, JVTCConfig, MLCConfig, Stage1Config, WarmupConfig
from gcl_fast.config.yaml_files import RESOLVED, config_dir, load_shipped, load_yaml, read_yaml, shipped, yaml_text
from gcl_fast.errors import ConfigError

__all__ = [
    "METHODS",
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
    "from_values",
    "load_shipped",
    "load_yaml",
    "read_yaml",
    "recipe",
    "shipped",
    "to_dict",
    "yaml_text",
]
