"""The command that goes on with a run, for those whose own was refused."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from gcl_fast.runs.folder import read_config, read_metrics, stage_checkpoint


def started_stages(run_dir: Path) -> tuple[int, ...]:
    """The stages of the last call that trained in a run folder; of earlier versions those with a checkpoint."""
    kept = read_metrics(run_dir).get("stages")
    if isinstance(kept, list):
        return tuple(kept)
    return tuple(number for number in (1, 2, 3) if stage_checkpoint(run_dir, f"stage{number}").is_file())


def resume_command(run_dir: Path) -> str:
    """`gcl-fast train ... --resume` with the run's own settings and stages; N for a stage that nothing tells, empty where
    config.yaml is lost."""
    settings = run_dir / "config.yaml"
    if not settings.is_file():
        return ""
    words = ["gcl-fast", "train", "--config", str(settings)]
    if os.path.abspath(read_config(run_dir).run_dir) != os.path.abspath(run_dir):  # it was moved
        words += ["--runs", str(run_dir.parent), "--name", run_dir.name]
    return shlex.join([*words, "--stage", stage_flag(started_stages(run_dir)), "--resume"])


def started_otherwise(run_dir: Path, stages: Sequence[int]) -> str:
    """For the end of an error that a call with other stages than the run's may have come by; empty where they are the same."""
    before, command = started_stages(run_dir), resume_command(run_dir)
    if not before or not command or before == tuple(stages):
        return ""
    return f"; {run_dir} was started with --stage {stage_flag(before)}: `{command}` goes on with that"


def stage_flag(stages: Sequence[int]) -> str:
    """What --stage was."""
    return {(1,): "1", (2,): "2", (3,): "3", (1, 2, 3): "all"}.get(tuple(stages), "N")
