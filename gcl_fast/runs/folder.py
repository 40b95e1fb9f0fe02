"""The run folder and its small files: configuration and metrics, always written whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gcl_fast.config import TrainConfig, load_yaml, to_dict
from gcl_fast.errors import RunError
from gcl_fast.files import json_text, write_whole

NOT_TRAINING = (  # settings that a resumed run may change: they do not touch what is learnt
    "runs",
    "name",
    "device",
    "workers",
    "loader",
    "cache",
    "compile",
    "tensorboard",
    "log_every",
    "checkpoint_every",
    "picture_every",
    "eval_batch_size",
    "same_camera",
    "skip_broken",
)


def write_config(run_dir: Path, config: TrainConfig) -> None:
    import yaml

    write_whole(run_dir / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))


def read_config(run_dir: Path) -> TrainConfig:
    if not (run_dir / "config.yaml").is_file():
        raise RunError(f"{run_dir} is no run folder: no config.yaml in it")
    return load_yaml(run_dir / "config.yaml")


def open_run(config: TrainConfig, *, resume: bool, overwrite: bool) -> Path:
    """Make the run folder, or check that an existing one may be gone on with."""
    run_dir = config.run_dir
    if (run_dir / "config.yaml").exists():
        if overwrite:
            shutil.rmtree(run_dir)
        elif not resume:
            raise RunError(
                f"{run_dir} already holds a run: --resume goes on with it, --overwrite starts anew, --name names another"
            )
        else:
            old, new = to_dict(read_config(run_dir)), to_dict(config)
            changed = [key for key in new if key not in NOT_TRAINING and old[key] != new[key]]
            if changed:
                raise RunError(
                    f"{run_dir} was started with other settings ({', '.join(changed)}); resume with the same, "
                    "or use another --name"
                )
    write_config(run_dir, config)
    return run_dir


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
