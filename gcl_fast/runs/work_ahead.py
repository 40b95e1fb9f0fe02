"""How much work a run's stages hold, counted from its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gcl_fast.config import JVTCConfig, Stage1Config, Stage2Config, TrainConfig, WarmupConfig

COSTS: dict[str, dict[int, float]] = {"resnet50": {1: 1.0, 2: 10.0, 3: 13.0}, "resnet18": {1: 1.0, 2: 34.0, 3: 36.0}}
"""Time that a stage takes for an image, as a multiple of a step of stage 1, by backbone, on a CPU.

ResNet-50: as in bench/results/step_cpu.json, 256 x 128.
ResNet-18: the demo's networks, whose generator is slow beside so small an encoder; whole stages of seed 1 in
bench/results/demo_seeds.json, beside stage 1 without its clustering and scoring, an eighth of its time.
No other backbone has been measured."""
NEAR = 1.15  # a range narrower than this is one number


@dataclass(frozen=True)
class Work:
    """Of one stage: epochs, iterations in each (at most: images that no cluster takes are left out), images in each."""

    epochs: int
    iterations: int
    batch_size: int

    @property
    def images(self) -> int:
        return self.epochs * self.iterations * self.batch_size


def settings_of(config: TrainConfig, stage: int) -> Stage1Config | WarmupConfig | Stage2Config:
    """The section that says how long a stage is and how large its batches are."""
    own: dict[str, WarmupConfig] = {"mlc": config.stage1.mlc, "jvtc": config.stage1.jvtc}
    return {1: own.get(config.stage1.method, config.stage1), 2: config.stage2, 3: config.stage3}[stage]


def work_of(config: TrainConfig, stage: int, num_images: int) -> Work:
    """What a stage does on so many training images."""
    settings = settings_of(config, stage)
    drawn = settings.batch_size // settings.views if isinstance(settings, JVTCConfig) else settings.batch_size
    return Work(settings.epochs, settings.iters or max(1, num_images // drawn), settings.batch_size)


def batches_after(
    config: TrainConfig, stage: int, stages: Sequence[int], num_images: int, *, control: bool = False, on_cpu: bool = True
) -> tuple[float, float]:
    """As many batches of `stage` as the stages after it, and a control run, take the time of: at least, at most. By `COSTS`; of
    networks and devices that were not measured the lowest and the highest of them, of the others twice the same."""
    measured = COSTS.get(config.model.backbone) if on_cpu else None
    found = [_batches(config, stage, stages, num_images, cost, control) for cost in ([measured] if measured else COSTS.values())]
    low, high = min(found), max(found)
    return (low, high) if high > NEAR * low else (high, high)


def _batches(
    config: TrainConfig, stage: int, stages: Sequence[int], num_images: int, cost: dict[int, float], control: bool
) -> float:
    later = sum(cost[number] * work_of(config, number, num_images).images for number in stages if number > stage)
    if control:  # stage 1's batches, as many as stage 3 has
        joint = work_of(config, 3, num_images)
        later += cost[1] * joint.epochs * joint.iterations * work_of(config, 1, num_images).batch_size
    return later / (cost[stage] * work_of(config, stage, num_images).batch_size)
