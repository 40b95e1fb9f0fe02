"""YAML files into settings, strictly, and where the shipped ones lie."""

from __future__ import annotations

from pathlib import Path

from gcl_fast.config.plain_values import from_dict
from gcl_fast.config.schema import TrainConfig
from gcl_fast.errors import ConfigError


def load_yaml(path: str | Path, base: TrainConfig | None = None) -> TrainConfig:
    """Read a YAML file over `base` (default: the published settings)."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}; shipped ones: {', '.join(shipped())}")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(values).__name__}")
    try:
        return from_dict(TrainConfig, values, base=base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def config_dir() -> Path:
    """The shipped YAML files: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped() -> list[str]:
    return sorted(p.stem for p in config_dir().glob("*.yaml"))


def load_shipped(name: str) -> TrainConfig:
    return load_yaml(config_dir() / f"{name}.yaml")
