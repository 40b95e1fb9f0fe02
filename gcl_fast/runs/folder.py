"""The small files of a run folder: configuration and metrics, always written whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gcl_fast.config import TrainConfig, load_yaml, to_dict
from gcl_fast.errors import RunError


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def write_config(run_dir: Path, config: TrainConfig) -> None:
    import yaml

    write_whole(run_dir / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))


def read_config(run_dir: Path) -> TrainConfig:
    if not (run_dir / "config.yaml").is_file():
        raise RunError(f"{run_dir} is no run folder: no config.yaml in it")
    return load_yaml(run_dir / "config.yaml")


def read_metrics(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def write_metrics(run_dir: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Merge `values` into metrics.json, section by section."""
    metrics = read_metrics(run_dir)
    for key, value in values.items():
        metrics[key] = {**metrics.get(key, {}), **value} if isinstance(value, dict) else value
    write_whole(run_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics
