"""A look at a run before it begins: what it would read, train and need. Nothing is written."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcl_fast import distributed
from gcl_fast.config import JVTCConfig, Stage1Config, TrainConfig, WarmupConfig
from gcl_fast.data.datasets.camstyle import StyledRecords
from gcl_fast.errors import InputError, RunError, StageError
from gcl_fast.progress import clock, counted
from gcl_fast.runs.cpu_threads import choose_threads
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.folder import read_resolved, stage_checkpoint
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.open_dataset import open_dataset
from gcl_fast.runs.photo_count import check_count, check_frames, count_notes, with_iterations
from gcl_fast.runs.resolved import keep_choices, line_of
from gcl_fast.runs.run_checks import check_control, check_control_images, check_images, check_run, check_start
from gcl_fast.runs.stage_start import look_at_init, starts_from_init
from gcl_fast.runs.start_summary import settings_summary, stage1_notes, start_box
from gcl_fast.runs.work_ahead import settings_of, work_of
from gcl_fast.stages.boards import wandb_package
from gcl_fast.stages.checkpoint import load_trained
from gcl_fast.stages.epoch_progress import peak_memory
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.stage import Stage
from gcl_fast.stages.warmup.methods import stage_of_method

SMALL_BATCH = 16  # that a CPU is measured with
QUICK = 2.0  # seconds; a step below is measured twice more, warm


class PlantedData(OpenedDataset):
    """Some of the training images, whose features say that they show `planted` persons: every stage finds clusters in them,
    whatever its networks are worth."""

    planted: int

    def features(self, encoder: nn.Module) -> Tensor:
        width = int(encoder.feature_dim)  # type: ignore[arg-type]  # nn.Module may hold anything under a name
        generator = torch.Generator().manual_seed(0)
        person = torch.arange(len(self.data.train)) % self.planted
        centers = F.normalize(torch.randn(self.planted, width, generator=generator), dim=1)
        noise = F.normalize(torch.randn(len(person), width, generator=generator), dim=1)
        return F.normalize(centers[person] + 0.1 * noise, dim=1)

    def styled(self, *, use: bool = True) -> StyledRecords:
        with contextlib.redirect_stdout(io.StringIO()):  # of a part of the images
            return super().styled(use=use)


@dataclass(frozen=True)
class Measured:
    """Of one stage: seconds that a step takes for an image, that the encoder takes to read one, and peak memory in GiB."""

    step: float
    reading: float
    memory: float
    batch_size: int


def dry_run(
    config: TrainConfig, stages: Sequence[int], *, resume: bool = False, overwrite: bool = False, control: bool = False
) -> None:
    """Print data, start weights, loader, device, precision, steps, and an estimate of time and memory from a few real steps.

    Errors: as `training.train` before it begins.
    """
    if distributed.launched() > 1:
        raise RunError("--dry-run looks at one process: start it without torchrun")
    if control:
        check_control(config, stages, overwrite=overwrite)
    if config.wandb:
        wandb_package()
    check_run(config, stages, resume=resume, overwrite=overwrite)
    check_start(config, stages, overwrite=overwrite)
    threads = torch.get_num_threads()
    try:
        _look(config, stages, resume=resume, overwrite=overwrite, control=control)
    finally:
        torch.set_num_threads(threads)


def _look(config: TrainConfig, stages: Sequence[int], *, resume: bool, overwrite: bool, control: bool) -> None:
    before = read_resolved(config.run_dir) if resume else {}
    given, config = config, keep_choices(config, before)
    if words := choose_threads(config.threads, before):
        print(words)
    dataset = open_dataset(config, given, stages, resume=resume)
    config = replace(config, loader=dataset.config.loader)
    count, resolved, asked = len(dataset.data.train), dataset.resolved(), config.stage1.iters
    check_count(config, stages, count)
    check_frames(config, stages, dataset.data.train)
    _ = dataset.bodies  # as a training: meshes that cannot guide are refused
    if control:
        check_control_images(config, dataset.image_names, overwrite=overwrite)
    config = with_iterations(config, resolved["images"])
    check_images(config, before, resolved)
    goes_on = resume and stage_checkpoint(config.run_dir, f"stage{stages[0]}").exists()
    from_init = starts_from_init(config, stages, stages[0], removed=overwrite)
    print(start_box(config, stages, goes_on=goes_on, given=from_init))
    if 1 in stages and not (goes_on or from_init) and config.model.weights not in ("none", "imagenet"):
        build_networks(config)  # a file: is it there, does it fit
    if from_init and not goes_on:
        look_at_init(config, stages, overwrite=overwrite)
    print(dataset.table())
    print(line_of(resolved))
    if 1 in stages and isinstance(rule := settings_of(config, 1), WarmupConfig):
        dataset.styled(use=rule.camstyle)  # says how many there are
    print(settings_summary(config, stages))
    for note in stage1_notes(config, stages) + count_notes(config, stages, count, iters=asked):
        print(f"note: {note}")
    print(f"the run would be written to {config.run_dir}")
    _estimate(config, stages, count, resume=resume, control=control)
    print("dry run: nothing was written")


def _estimate(config: TrainConfig, stages: Sequence[int], count: int, *, resume: bool, control: bool) -> None:
    total = 0.0
    for stage in stages:
        work = work_of(config, stage, count)
        upto = "" if settings_of(config, stage).iters else "about "
        epochs, begun = _done(config, stage) if resume else (0, 0)
        if epochs >= work.epochs:
            print(f"stage {stage}: done")
            continue
        left = work.epochs - epochs
        images = max(0, left * work.iterations - begun) * work.batch_size
        steps = f"{counted(left, 'epoch')} of {upto}{counted(work.iterations, 'step')}, {upto}{counted(images, 'image')}"
        if epochs or begun:
            behind = f" (of the first {counted(begun, 'step')} done)" if begun else ""
            steps = f"left of {counted(work.epochs, 'epoch')}: {steps}{behind}"
        try:
            measured = measure(config, stage)
        except (StageError, InputError) as error:  # of the made-up features; what any run would meet ends the dry run
            print(f"stage {stage}: {steps}; time and memory not measured: {error}")
            print("note: that was with features made up to show persons; with its own the run may end so too, or train")
            total = float("nan")
            continue
        reading = (left if stage == 1 else stage == 3) * count * measured.reading
        seconds = images * measured.step + reading
        total += seconds
        scaled = f", from a batch of {measured.batch_size}" if measured.batch_size < work.batch_size else ""
        print(
            f"stage {stage}: {steps}; about {clock(seconds)} at {1 / measured.step:.1f} images/s, "
            f"about {measured.memory:.1f} GiB of memory ({'measured' if not scaled else 'scaled'}{scaled})"
        )
    left_out = f"clustering, scoring{', pictures and the control run' if control else ' and pictures'} not counted"
    if total == 0:
        print(f"nothing is left to train{', the control run not counted' if control else ''}")
    elif math.isnan(total):
        print("in all: not known, where a stage was not measured")
    else:
        print(f"in all about {clock(total)}, {left_out}, on this machine as busy as it is now")


def _done(config: TrainConfig, stage: int) -> tuple[int, int]:
    """Of a stage of the run that goes on: finished epochs, and steps of the next."""
    path = stage_checkpoint(config.run_dir, f"stage{stage}")
    if not path.exists():
        return 0, 0
    state = load_trained(path)
    return int(state.get("epoch", 0)), int(state.get("position", 0))


def measure(config: TrainConfig, stage: int) -> Measured:
    """A few steps of a stage with fresh networks on images of the data set."""
    cuda = torch.cuda.is_available() and config.device != "cpu"
    work_batch = settings_of(config, stage).batch_size
    small = config if cuda else _in_small_batches(config, stage)
    settings = settings_of(small, stage)
    rule = getattr(settings, "cluster", None)  # of the stages that cluster
    size = 8 if rule is None else max(rule.k1, rule.min_samples) + 2  # images of a planted person: all neighbours of each other
    people = max(4, settings.batch_size // settings.num_instances if isinstance(settings, Stage1Config) else 4)
    small = replace(small, compile="off", skip_broken=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken photos: told of all when the data set was opened
        dataset = PlantedData(small, with_meshes=stage > 1, at_most=people * size)
    dataset.planted = people
    networks = build_networks(small, start=False)
    encoder = networks.encoder.to(dataset.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats(dataset.device)
    before = _memory_now(dataset.device)
    began = time.perf_counter()
    OpenedDataset.features(dataset, encoder)
    reading = (time.perf_counter() - began) / len(dataset.data.train)
    built: Stage
    if stage == 1:
        built = stage_of_method(small, encoder, dataset)
    else:
        built = GenerativeStage(small, networks, dataset) if stage == 2 else JointStage(small, networks, dataset)
    step = _seconds_an_image(built)
    grown = max(0.0, peak_memory(dataset.device) - before) * work_batch / settings.batch_size
    return Measured(step, reading, before + grown, settings.batch_size)


def _in_small_batches(config: TrainConfig, stage: int) -> TrainConfig:
    """The same with about `SMALL_BATCH` images in a step, for a machine that needs minutes for a whole batch."""
    settings = settings_of(config, stage)
    if settings.batch_size <= SMALL_BATCH:
        return config
    changes, group = {}, 1  # images that belong together
    if isinstance(settings, Stage1Config):
        changes["num_instances"] = group = min(settings.num_instances, 4)
    elif isinstance(settings, JVTCConfig):
        group = settings.views
    changes["batch_size"] = group * max(2, SMALL_BATCH // group)
    smaller = replace(settings, **changes)  # type: ignore[arg-type]  # both are fields of its class
    if stage > 1:
        return replace(config, **{f"stage{stage}": smaller})  # type: ignore[arg-type]  # as above
    if isinstance(settings, Stage1Config):
        return replace(config, stage1=smaller)  # type: ignore[arg-type]  # as above
    return replace(config, stage1=replace(config.stage1, **{config.stage1.method: smaller}))  # type: ignore[arg-type]  # as above


def _memory_now(device: torch.device) -> float:
    """GiB in use: of the allocator on a GPU, of the process on a CPU (its peak where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**30
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError, IndexError):
        return peak_memory(device)


def _seconds_an_image(stage: Stage) -> float:
    """Of the quickest of up to three steps."""
    stage.enter_epoch(0)
    batches = iter(stage.batches(stage.epoch_plan(0), 0, 0))
    times: list[float] = []
    for iteration, batch in enumerate(batches):
        if stage.device.type == "cuda":
            torch.cuda.synchronize(stage.device)
        began = time.perf_counter()
        losses = stage.step(batch.to(stage.device, memory_format=stage.memory_format), iteration)
        torch.stack(list(losses.values())).sum().item()  # waits for the device
        seconds = time.perf_counter() - began
        times.append(seconds / len(batch))
        if len(times) == 3 or seconds > QUICK:
            break
    return min(times)
