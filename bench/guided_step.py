"""What the texture guide costs: one training iteration of stages 2 and 3 with `model.guide` texture beside the same with mesh,
the published method. Rasters of guide and mesh are made in both: the batch's meshes are the loader's part.

With each number: `images_per_second`; on a GPU `peak_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from gcl_fast.config import TrainConfig, load_shipped
from gcl_fast.data.plans import shuffled
from gcl_fast.records import Batch
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.networks import build_networks
from gcl_fast.stages.adversarial_stage import AdversarialStage
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.synthetic import write_world

OP = "guided_step"
IMPLEMENTATIONS = ("texture", "mesh")
CHECK = "every loss of an iteration is finite; that the guide is right is tests/test_guides.py's to show"
QUICK = {"stage": [2, 3], "batch": [8]}
FULL = {"stage": [2, 3], "batch": [8, 16]}
"""At the demo's sizes: the built-in world's 96x48, small networks, Anny's 13,718 vertices."""


@cache
def world() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="guided_step")
    write_world(
        Path(folder.name), layout="market1501", image_size=(96, 48), seed=1, num_train_ids=8, num_test_ids=2, images_per_id=4
    )
    return folder


def config_of(case: dict, device: torch.device, guide: str) -> TrainConfig:
    demo = load_shipped("demo")
    # The same variance for neither: what is timed is the guide.
    stage3 = replace(demo.stage3, variance=replace(demo.stage3.variance, background=0.0, colour=0.0, occluder=0.0, crop=0.0))
    return replace(
        demo, root=world().name, device=str(device), precision="fp32", model=replace(demo.model, guide=guide), stage3=stage3
    )


def make_stage(case: dict, device: torch.device, guide: str) -> tuple[AdversarialStage, Batch]:
    config = config_of(case, device, guide)
    dataset = OpenedDataset(config, with_meshes=True)
    torch.manual_seed(0)
    networks = build_networks(config)
    kinds: dict[int, type[AdversarialStage]] = {2: GenerativeStage, 3: JointStage}
    stage = kinds[case["stage"]](config, networks, dataset)
    count = len(dataset.data.train)
    if isinstance(stage, JointStage):
        stage.memory.features.copy_(torch.nn.functional.normalize(torch.randn_like(stage.memory.features), dim=1))
        stage.memory.labels.copy_(torch.arange(count) // 4)
        stage.centers = stage.memory.features[::4].clone()
    plan = shuffled(np.arange(count), case["batch"], seed=0)
    batch = next(iter(stage.batches(plan, 0, 0)))
    return stage, batch.to(device, memory_format=stage.memory_format)


def check(case: dict, device: torch.device) -> None:
    for guide in IMPLEMENTATIONS:
        stage, batch = make_stage(case, device, guide)
        losses = stage.step(batch, 0)
        assert all(torch.isfinite(value) for value in losses.values()), f"{guide}: {losses}"


def call(implementation: str, case: dict, device: torch.device) -> Callable[[], object]:
    stage, batch = make_stage(case, device, implementation)
    number = iter(range(1 << 30))
    return lambda: stage.step(batch, next(number))


def test_guided_step(case, implementation, device, measure_images) -> None:
    measure_images()
