"""What the number of training images asks of the settings: whether there are enough, and how many steps an epoch has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gcl_fast.config import ClusterConfig, TrainConfig
from gcl_fast.constants import OWN_DATA
from gcl_fast.errors import InputError
from gcl_fast.progress import counted
from gcl_fast.records import Record
from gcl_fast.stages.warmup.temporal import frames_of

BY_COUNT = -1  # stage1.iters: by the number of images
TIMES = 8
"""That an epoch of stage 1 shows each image, at most, where the iterations go by their number. The published 200 of 256 images
are 4 times on Market-1501's 12,936; of few images a step or two would be too little."""
FAR = 48  # times that an epoch shows each image: more is told
MOST = 400  # iterations of such an epoch
SHARE = 10  # k1 is large where it is more than this part of the images
LEAST_K1 = 6  # that is advised


def with_iterations(config: TrainConfig, images: int) -> TrainConfig:
    """The settings with the iterations of stage 1 counted out, where they go by the number of images (listed, so that a resumed
    run has as many)."""
    stage1 = config.stage1
    if stage1.iters != BY_COUNT:
        return config
    iters = min(MOST, max(1, TIMES * images // stage1.batch_size))
    return replace(config, stage1=replace(stage1, iters=iters))


def check_count(config: TrainConfig, stages: Sequence[int], images: int) -> None:
    """Errors: InputError where there are too few images to cluster, which would otherwise be known after the first epoch's
    features are read."""
    place = f"{config.dataset} in {config.root} has {counted(images, 'training image')}"
    if images < 2:
        raise InputError(f"{place}: training needs at least two")
    for section, rule in _rules(config, stages):
        flag = f"--{section}"
        if images < 2 * rule.min_samples:
            raise InputError(
                f"{place}, too few: at least two people are to be found, each in {rule.min_samples} images or more "
                f"({flag}.min-samples), which takes {2 * rule.min_samples}; give more photos or a smaller {flag}.min-samples"
            )
        pairs, jvtc = images * (images - 1) // 2, config.stage1.jvtc
        unused = rule is jvtc.cluster and jvtc.global_from > jvtc.epochs  # it makes no labels
        if rule.rho is not None and round(rule.rho * pairs) == 0 and not unused:
            raise InputError(
                f"{place}, too few: the radius of clusters is the mean distance of the nearest pairs, a share of {rule.rho:g} of "
                f"all ({flag}.rho), which is none of {pairs}; give a larger share, or {flag}.rho None for a radius of {flag}.eps"
            )
        if config.dataset in OWN_DATA and images <= rule.k1:
            raise InputError(
                f"{place}, too few: people are told apart by their {rule.k1} nearest images ({flag}.k1), which would be all of "
                f"them, and everybody one person. That takes {rule.k1 + 1} images, better {SHARE * rule.k1:,}; give more photos"
                + (f", or try {flag}.k1 {_k1_for(images)}" if _k1_for(images) < images else "")
            )


def check_frames(config: TrainConfig, stages: Sequence[int], records: Sequence[Record]) -> None:
    """Errors: StageError where JVTC would read frame numbers that the images do not have: before a run folder is made."""
    if 1 in stages and config.stage1.method == "jvtc" and config.stage1.jvtc.reads_frames:
        frames_of(records)


def count_notes(config: TrainConfig, stages: Sequence[int], images: int, *, iters: int) -> list[str]:
    """What to know at the start of a run on so many images, a line each.

    iters: of stage 1, as they were asked for.
    """
    notes = []
    if 1 in stages and iters == BY_COUNT and config.stage1.method == "cluster-contrast":
        steps, size = config.stage1.iters, config.stage1.batch_size
        times = round(steps * size / images)
        shown = f"each of {counted(images, 'image')} about {counted(times, 'time')}"
        if times < 2:
            shown = f"{steps * size:,} pictures of {counted(images, 'image')}"
        notes.append(
            f"an epoch of stage 1 has {counted(steps, 'step')} of {size}: {shown} (--stage1.iters N sets another number)"
        )
    if 1 in stages and iters > 0 and config.stage1.method == "cluster-contrast" and config.dataset in OWN_DATA:
        times = round(iters * config.stage1.batch_size / images)
        if times > FAR:
            notes.append(
                f"an epoch of stage 1 shows each of {counted(images, 'image')} about {counted(times, 'time')}; "
                f"--stage1.iters {BY_COUNT} takes as many steps as show it {TIMES} times at most"
            )
    for section, rule in _rules(config, stages):
        advised = _k1_for(images)
        if advised < rule.k1:
            notes.append(
                f"{rule.k1} nearest images (--{section}.k1) are more than a tenth of {images:,}: different people may fall into "
                f"one cluster; try --{section}.k1 {advised}"
            )
    return notes


def _k1_for(images: int) -> int:
    return max(LEAST_K1, images // SHARE)


def _rules(config: TrainConfig, stages: Sequence[int]) -> list[tuple[str, ClusterConfig]]:
    """How the stages cluster, with the section that says so."""
    stage1 = config.stage1
    first = {"cluster-contrast": ("stage1.cluster", stage1.cluster), "jvtc": ("stage1.jvtc.cluster", stage1.jvtc.cluster)}
    found = [first[stage1.method]] if 1 in stages and stage1.method in first else []
    return found + ([("stage3.cluster", config.stage3.cluster)] if 3 in stages else [])
