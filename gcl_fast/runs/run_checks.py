"""Whether a call may use a run folder as asked, and what to do where it may not. Nothing is written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gcl_fast.config import TrainConfig
from gcl_fast.errors import ConfigError, FileError, RunError
from gcl_fast.progress import counted
from gcl_fast.runs.device import choose_device
from gcl_fast.runs.folder import holds_run, read_config, read_metrics, read_resolved, stage_checkpoint
from gcl_fast.runs.resolved import CHOICES, Resolved
from gcl_fast.runs.resume_command import resume_command
from gcl_fast.runs.run_files import STAGES, files_of_run
from gcl_fast.runs.same_settings import changed_settings
from gcl_fast.runs.stage_start import starts_from_init
from gcl_fast.runs.work_ahead import settings_of
from gcl_fast.stages.checkpoint import load_trained, trained_settings
from gcl_fast.stages.engine import other_images
from gcl_fast.stages.layout import check_graphs

LONGEST_NAME = 255  # bytes, as file systems have it


def check_name(name: str) -> None:
    """Errors: ConfigError where a run's name is not one folder of its own: the run would lie among other runs, or elsewhere."""
    if name in ("", ".", "..") or os.sep in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ConfigError(f"--name must be the name of one folder, got {name!r}; --runs DIR says where it lies")


def check_run(config: TrainConfig, stages: Sequence[int], *, resume: bool, overwrite: bool) -> None:
    """Whether a call may use the run folder as asked; nothing is written.

    Errors: RunError that says what to do; ConfigError for a name that is no folder's, or CUDA graphs that cannot be had;
        FileError where no run can be written.
    """
    check_name(config.name)
    _check_place(config.run_dir)
    check_graphs(config, choose_device(config.device))
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
        named = {key: getattr(config, key) for key in CHOICES if getattr(old, key) == "auto" != getattr(config, key)}
        # meshes "none": nothing has asked for them yet
        was_open = {key: kept[key] if kept[key] != "none" else value for key, value in named.items() if key in kept}
        changed = changed_settings(replace(old, **was_open), config)
        if old.same_camera != config.same_camera and _has_scores(run_dir):  # by one rule: they are compared, also for best.pt
            changed.append(f"same_camera {old.same_camera} -> {config.same_camera}")
        if changed:
            command = resume_command(config)
            with_its_own = f"`{command}` goes on with its own" if command else "resume with the same"
            raise RunError(
                f"{run_dir} was started with other settings: {', '.join(changed)}; {with_its_own}, --overwrite removes what it "
                "wrote and starts anew, --name names another"
            )


def _check_place(run_dir: Path) -> None:
    """Errors: FileError where the folder is something else, or cannot be made or written in."""
    there = next(place for place in (run_dir, *run_dir.absolute().parents) if place.exists())
    if not there.is_dir():
        raise FileError(f"a run cannot be written to {run_dir}: {there} is a file; --runs and --name say where it is to lie")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileError(f"a run cannot be written to {run_dir}: {there} may not be written in; --runs DIR names another place")


def _has_scores(run_dir: Path) -> bool:
    return any("mAP" in part for part in read_metrics(run_dir).values() if isinstance(part, dict))


def unfinished(path: Path, stage: int) -> str:
    """How far a stage's checkpoint has come, in words; empty where the stage is finished."""
    state = load_trained(path)
    done, epochs = int(state.get("epoch", 0)), settings_of(trained_settings(path, state), stage).epochs
    return "" if done >= epochs else f"{done} of {counted(epochs, 'epoch')}"


def check_start(config: TrainConfig, stages: Sequence[int], *, overwrite: bool = False) -> None:
    """Whether each stage has what it starts from: the stage before it, in this call or, finished, in the run folder. What --init
    gives the first stage is looked at when it is read.

    overwrite: what the folder holds is about to be removed.
    Errors: RunError that says what to train first.
    """
    for stage in stages:
        if not overwrite:
            _check_order(config, stage)
        path = stage_checkpoint(config.run_dir, f"stage{stage - 1}")
        given = starts_from_init(config, stages, stage, removed=overwrite)
        begun = not overwrite and stage_checkpoint(config.run_dir, f"stage{stage}").exists()
        if stage == 1 or stage - 1 in stages or given or begun:
            continue
        if not path.exists():
            needs = "an identity encoder" if stage == 2 else "the networks of stage 2"
            raise RunError(
                f"stage {stage} starts from {needs}, and {path} is missing: train --stage {stage - 1} in this run first (--name "
                f"{config.name}; --stage all trains all three), or give --init RUN or FILE"
            )
        if far := unfinished(path, stage - 1):
            whole = stage_checkpoint(config.run_dir, "stage1").exists()
            raise RunError(
                f"stage {stage} starts from stage {stage - 1} of this run, which is not finished ({far}): --stage {stage - 1} "
                f"--resume finishes it{', --stage all --resume goes on to the end' if whole else ''}; another --name with --init "
                f"{path.parent} starts from it as it is"
            )


def _check_order(config: TrainConfig, stage: int) -> None:
    """Errors: RunError where a stage would be trained after a later one, which then was not started from it. A stage that was
    trained and has lost its checkpoint may be trained anew."""
    own, *later = (stage_checkpoint(config.run_dir, f"stage{number}") for number in range(stage, 4))
    name = next((path.parent.name for path in later if path.exists()), "")
    if name and not own.exists() and own.parent.name not in read_metrics(config.run_dir).get("times", {}):
        number = name.removeprefix("stage")
        way_on = "--stage 2 --resume and then --stage 3 --resume go on" if number == "2" else "--stage 3 --resume goes on"
        raise RunError(
            f"stage {stage} is not part of {config.run_dir}, whose stage {number} was started without it: {way_on} there, "
            f"another --name trains stage {stage}"
        )


def check_control(config: TrainConfig, stages: Sequence[int], *, overwrite: bool) -> None:
    """Errors: RunError where stage 1 or 3, which the control run starts from, is neither in this call nor, finished, in the run
    folder."""
    for number in (1, 3):
        path = stage_checkpoint(config.run_dir, f"stage{number}")
        if number not in stages and (overwrite or not path.exists()):
            state = "about to be deleted" if path.exists() else "missing"
            raise RunError(
                f"--control needs stages 1 and 3 of this run, and {path} is {state}: "
                f"train stage {number} in the same call, or --resume a run that has it"
            )
        if number not in stages and (far := unfinished(path, number)):
            raise RunError(
                f"--control needs stages 1 and 3 of this run, and stage {number} is not finished ({far}): "
                "train it in the same call"
            )


def check_control_images(config: TrainConfig, now: str, *, overwrite: bool) -> None:
    """Errors: RunError where the control run could not go on from stage 1, whose memory has a row for each image: else that is
    known after stage 3. now: a fingerprint of the images that are trained on."""
    path = stage_checkpoint(config.run_dir, "stage1")
    if overwrite or config.stage1.method == "cluster-contrast" or not path.exists():
        return
    before = load_trained(path).get("image_names")
    if before and before != now:
        raise RunError(
            f"--control goes on with stage 1 and its memory of each image, and {other_images(path)}; or leave --control out"
        )


def check_images(config: TrainConfig, before: Resolved, now: Resolved) -> None:
    """Errors: RunError where the training images are not those of the run so far. before, now: what both wrote down of them."""
    for key in ("images", "image_names"):
        if before.get(key, now[key]) != now[key]:
            raise RunError(
                f"{config.root} does not hold the training images that {config.run_dir} was started on: "
                f"{before['images']} then, {now['images']} now, or others by name, person or camera; "
                "give --root DIR where they are, or start another run with --name"
            )


def check_moved(config: TrainConfig, source: Path) -> None:
    """Whether --resume or --overwrite means the run that its settings lie in.

    source: the file that they come from.
    Errors: RunError where that run was moved or copied, and the settings still name its old folder: the call would begin anew
        there, or go on with another run, or remove it.
    """
    here, there = source.parent.resolve(), config.run_dir.resolve()
    of_run = source.name == "config.yaml" and any(stage_checkpoint(here, stage).is_file() for stage in STAGES)
    if of_run and here != there == read_config(here).run_dir.resolve():  # else --runs or --name say where
        raise RunError(
            f"--config {source} names {config.run_dir}, where that run was before it was moved or copied: add "
            f"{shlex.join(['--runs', str(here.parent), '--name', here.name])} for this one"
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
