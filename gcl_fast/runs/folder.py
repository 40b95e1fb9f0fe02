"""The run folder and its small files: configuration and metrics, always written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcl_fast.config import RESOLVED, TrainConfig, load_yaml, read_yaml, to_dict, yaml_text
from gcl_fast.errors import ConfigError, RunError
from gcl_fast.files import json_text, write_whole
from gcl_fast.runs.lock import NAME as LOCK
from gcl_fast.runs.run_files import STAGES, remove_run, remove_unfinished
from gcl_fast.runs.same_settings import with_absolute_paths
from gcl_fast.stages.checkpoint import load_trained, trained_settings


def write_config(run_dir: Path, config: TrainConfig, resolved: Mapping[str, Any]) -> None:
    """config.yaml: the settings, then what `auto` became."""
    values = {**to_dict(with_absolute_paths(config)), RESOLVED: dict(resolved)}
    write_whole(run_dir / "config.yaml", yaml_text(values))


def read_resolved(run_dir: Path) -> dict[str, Any]:
    """What `auto` became in a run; {} where it did not write it down."""
    path = run_dir / "config.yaml"
    try:
        resolved = read_yaml(path).get(RESOLVED) if path.is_file() else None
    except ConfigError as error:
        raise RunError(f"{error}; delete it, and the settings are taken from a checkpoint") from None
    return resolved if isinstance(resolved, dict) else {}


def read_config(run_dir: Path) -> TrainConfig:
    """The settings of a run; where config.yaml is lost, those in a checkpoint."""
    if (run_dir / "config.yaml").is_file():
        return load_yaml(run_dir / "config.yaml")
    for path in _checkpoints(run_dir):
        print(f"{run_dir / 'config.yaml'} is missing: the settings are taken from {path}")
        return trained_settings(path, load_trained(path))
    raise RunError(f"{run_dir} is no run folder: no config.yaml in it")


def _checkpoints(run_dir: Path) -> list[Path]:
    return [path for stage in STAGES if (path := stage_checkpoint(run_dir, stage)).is_file()]


def holds_run(run_dir: Path) -> bool:
    return (run_dir / "config.yaml").exists() or bool(_checkpoints(run_dir))


def prepare_run(config: TrainConfig, *, overwrite: bool) -> None:
    """Clear the run folder where that was asked for, else of halves of checkpoints; what else lies in it stays."""
    remove_unfinished(config.run_dir)
    if overwrite and holds_run(config.run_dir):
        stays = [name for name in remove_run(config.run_dir) if name != LOCK]
        if stays:
            print(f"removed the run in {config.run_dir}; not part of it, and left: {', '.join(stays[:8])}")


def stage_checkpoint(run_dir: Path, stage: str) -> Path:
    """The file that holds the last state of a stage; it may not be there yet."""
    return run_dir / stage / "last.pt"


def read_metrics(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "metrics.json"
    if not path.is_file():
        return {}
    what_to_do = "delete it, and --resume writes it anew"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged ({error}); {what_to_do}") from None
    if not isinstance(metrics, dict):
        raise RunError(f"{path} must hold names and scores, got {type(metrics).__name__}; {what_to_do}")
    return metrics


def write_metrics(run_dir: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Merge `values` into metrics.json, section by section."""
    metrics = read_metrics(run_dir)
    for key, value in values.items():
        metrics[key] = {**metrics.get(key, {}), **value} if isinstance(value, dict) else value
    write_whole(run_dir / "metrics.json", json_text(metrics, indent=2))
    return metrics
