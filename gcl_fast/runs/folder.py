"""The run folder and its small files: configuration and metrics, always written whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcl_fast.config import RESOLVED, TrainConfig, from_values, load_yaml, to_dict, yaml_text
from gcl_fast.errors import ConfigError, RunError
from gcl_fast.files import json_text, write_whole
from gcl_fast.runs.lock import NAME as LOCK
from gcl_fast.runs.resolved import CHOICES
from gcl_fast.runs.run_files import STAGES, files_of_run, remove_run
from gcl_fast.runs.same_settings import changed_settings, with_absolute_paths
from gcl_fast.stages.checkpoint import load_trained

LONGEST_NAME = 255  # bytes, as file systems have it


def write_config(run_dir: Path, config: TrainConfig, resolved: Mapping[str, Any]) -> None:
    """config.yaml: the settings, then what `auto` became."""
    values = {**to_dict(with_absolute_paths(config)), RESOLVED: dict(resolved)}
    write_whole(run_dir / "config.yaml", yaml_text(values))


def read_resolved(run_dir: Path) -> dict[str, Any]:
    """What `auto` became in a run; {} where it did not write it down."""
    import yaml

    path = run_dir / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    resolved = values.get(RESOLVED) if isinstance(values, dict) else None
    return resolved if isinstance(resolved, dict) else {}


def read_config(run_dir: Path) -> TrainConfig:
    """The settings of a run; where config.yaml is lost, those in a checkpoint."""
    if (run_dir / "config.yaml").is_file():
        return load_yaml(run_dir / "config.yaml")
    for path in _checkpoints(run_dir):
        print(f"{run_dir / 'config.yaml'} is missing: the settings are taken from {path}")
        return from_values(load_trained(path)["config"])
    raise RunError(f"{run_dir} is no run folder: no config.yaml in it")


def _checkpoints(run_dir: Path) -> list[Path]:
    return [path for stage in STAGES if (path := stage_checkpoint(run_dir, stage)).is_file()]


def holds_run(run_dir: Path) -> bool:
    return (run_dir / "config.yaml").exists() or bool(_checkpoints(run_dir))


def check_name(name: str) -> None:
    """Errors: ConfigError where a run's name is not one folder of its own: the run would lie among other runs, or elsewhere."""
    if name in ("", ".", "..") or os.sep in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ConfigError(f"--name must be the name of one folder, got {name!r}; --runs DIR says where it lies")


def check_run(config: TrainConfig, stages: Sequence[int], *, resume: bool, overwrite: bool) -> None:
    """Whether a call may use the run folder as asked; nothing is written.

    Errors: RunError that says what to do; ConfigError for a name that is no folder's.
    """
    check_name(config.name)
    run_dir = config.run_dir
    if resume and overwrite:
        raise RunError("--resume goes on with a run, --overwrite removes it: give one of them")
    if not holds_run(run_dir):
        return
    if overwrite:
        _check_overwrite(config, stages)
    elif not resume:
        raise RunError(
            f"{run_dir} already holds a run: --resume goes on with it, --overwrite removes what it wrote and starts anew, "
            "--name names another"
        )
    else:
        kept = read_resolved(run_dir)
        old = read_config(run_dir)
        was_open = {key: kept[key] for key in CHOICES if key in kept and getattr(old, key) == "auto" != getattr(config, key)}
        changed = changed_settings(replace(old, **was_open), config)
        if changed:
            raise RunError(
                f"{run_dir} was started with other settings: {', '.join(changed)}; resume with the same, or use another --name"
            )


def check_start(config: TrainConfig, stages: Sequence[int]) -> None:
    """Whether each stage has what it starts from: the stage before it, in this call or in the run folder. What --init gives the
    first stage is looked at when it is read.

    Errors: RunError that says what to train first.
    """
    for stage in stages:
        path = stage_checkpoint(config.run_dir, f"stage{stage - 1}")
        given = bool(config.init) and stage == stages[0]
        if stage == 1 or stage - 1 in stages or given or path.exists():
            continue
        needs = "an identity encoder" if stage == 2 else "the networks of stage 2"
        raise RunError(
            f"stage {stage} starts from {needs}, and {path} is missing: train --stage {stage - 1} in this run first (--name "
            f"{config.name}; --stage all trains all three), or give --init RUN or FILE"
        )


def nothing_to_resume(config: TrainConfig) -> str:
    """What to tell who asked to go on with a run that is not there, perhaps by a mistyped name; empty where one is. Errors:
    ConfigError for a name that is no folder's."""
    check_name(config.name)
    run_dir = config.run_dir
    if holds_run(run_dir):
        return ""
    names = sorted(path.parent.name for path in run_dir.parent.glob("*/config.yaml"))
    others = f" ({run_dir.parent} holds {', '.join(names[:8])}{' ...' if len(names) > 8 else ''})" if names else ""
    return f"nothing to resume: there is no run in {run_dir} yet; it starts now{others}"


def _check_overwrite(config: TrainConfig, stages: Sequence[int]) -> None:
    """Errors: RunError where what the call starts from is among what it would remove."""
    run_dir = config.run_dir
    removed = {path.resolve() for path in files_of_run(run_dir)}
    for name in filter(None, (part.strip() for part in (config.init or "").split(","))):
        path = Path(name).expanduser()
        inside = [file for file in removed if file == path.resolve() or path.resolve() in file.parents]
        if inside:
            raise RunError(
                f"--init {name} lies in {run_dir}, which --overwrite would clear: use another --name, or copy the file elsewhere"
            )
    needed = {2: "stage1", 3: "stage2"}.get(min(stages, default=1))
    start = stage_checkpoint(run_dir, needed) if needed else None
    if start is not None and start.exists() and not config.init:
        raise RunError(
            f"stage {min(stages)} starts from {start}, which --overwrite would remove: leave it there and use another --name "
            f"with --init {start}, or --resume this run"
        )


def prepare_run(config: TrainConfig, *, overwrite: bool) -> None:
    """Clear the run folder where that was asked for; what else lies in it stays."""
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
