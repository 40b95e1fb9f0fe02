"""The command that goes on with a run, for those whose own was refused."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from gcl_fast.config import TrainConfig
from gcl_fast.runs.folder import read_config, read_metrics, stage_checkpoint
from gcl_fast.runs.same_settings import with_absolute_paths


def started_stages(run_dir: Path) -> tuple[int, ...]:
    """The stages of the last call that trained in a run folder; of earlier versions those with a checkpoint."""
    kept = read_metrics(run_dir).get("stages")
    if isinstance(kept, list):
        return tuple(kept)
    return tuple(number for number in (1, 2, 3) if stage_checkpoint(run_dir, f"stage{number}").is_file())


def resume_command(config: TrainConfig) -> str:
    """`gcl-fast train ... --resume` with the settings and stages of the run in the folder of `config`, and its data, if they are
    gone from their place, where `config` has them; N for a stage that nothing tells, empty where config.yaml is lost."""
    run_dir = config.run_dir
    settings = run_dir / "config.yaml"
    if not settings.is_file():
        return ""
    words, kept, asked = ["gcl-fast", "train", "--config", str(settings)], read_config(run_dir), with_absolute_paths(config)
    if os.path.abspath(kept.run_dir) != os.path.abspath(run_dir):  # it was moved
        words += ["--runs", str(run_dir.parent), "--name", run_dir.name]
    for flag, before, now in (("--root", kept.root, asked.root), ("--mesh-root", kept.mesh_root, asked.mesh_root)):
        if before and now and not Path(before).exists() and Path(now).exists():
            words += [flag, now]
    control = ["--control"] if read_metrics(run_dir).get("with_control") else []
    return shlex.join([*words, "--stage", stage_flag(started_stages(run_dir)), *control, "--resume"])


def started_otherwise(config: TrainConfig, stages: Sequence[int]) -> str:
    """For the end of an error that a call with other stages than the run's may have come by; empty where they are the same."""
    before, command = started_stages(config.run_dir), resume_command(config)
    if not before or not command or before == tuple(stages):
        return ""
    return f"; {config.run_dir} was started with --stage {stage_flag(before)}: `{command}` goes on with that"


def stage_flag(stages: Sequence[int]) -> str:
    """What --stage was."""
    return {(1,): "1", (2,): "2", (3,): "3", (1, 2, 3): "all"}.get(tuple(stages), "N")
