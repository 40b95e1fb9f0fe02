"""Stages whose generator is guided by the photo's own pixels, small and in float64, and batches for them."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from gcl_fast.guides import GuidedGenerator
from gcl_fast.models import Discriminator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from tests.stage_data import StageData
from tests.test_guides import PERSPECTIVE, SIZE, WEAK, bodies
from tests.test_step import make_config


def guided_stage(name: str, folder: Path, device: torch.device, **variance: float) -> GenerativeStage | JointStage:
    torch.manual_seed(0)
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    networks = [encoder, GuidedGenerator(encoder.code_dim, width=2, mlp_width=6), Discriminator(3)]
    rule = {"batch_size": 4, "lr": 1e-3}
    config = make_config(
        height=SIZE[0],
        width=SIZE[1],
        model={"guide": "texture"},
        stage2=rule,
        stage3={**rule, "lr_encoder": 1e-2, "num_negatives": 3, "variance": variance},
    )
    people = bodies(folder, [WEAK, PERSPECTIVE, WEAK, PERSPECTIVE], device)
    data = StageData(torch.zeros(4, dtype=torch.int64), device, bodies=people)
    on_device = Networks(*(network.double().to(device) for network in networks))
    if name == "stage2":
        return GenerativeStage(config, on_device, data)
    stage = JointStage(config, on_device, data)
    stage.memory.double()
    stage.memory.features.copy_(F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1))
    stage.memory.labels.copy_(torch.arange(4) % 2)
    stage.centers = torch.randn(2, 6, dtype=torch.float64).to(device)
    return stage


def guided_batches(count: int, device: torch.device) -> list[Batch]:
    rng = torch.Generator().manual_seed(3)
    index, yaw = torch.tensor([2, 0, 3, 1]), torch.tensor([45.0, 120.0, 200.0, 315.0])
    photos = [torch.randn(4, 3, *SIZE, generator=rng, dtype=torch.float64) for _ in range(count)]
    return [Batch(photo, None, None, index, index, index, yaw).to(device) for photo in photos]
