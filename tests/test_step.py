"""The stages' step changes every weight as the plain step, written straight from the method, does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.models import Discriminator, Generator, IdentityEncoder
from gcl_fast.models.three_networks import Networks
from gcl_fast.records import Batch
from gcl_fast.reference.step import Contrast, Weights, plain_step
from gcl_fast.stages.generative import GenerativeStage
from gcl_fast.stages.joint import JointStage
from gcl_fast.stages.views import draw_mix
from tests.stage_data import StageData

IMAGES, SIZE, CLUSTERS = 12, (56, 40), 3


def make_config(**changes) -> TrainConfig:
    stage = {"batch_size": 4, "lr": 1e-3}
    return from_dict(
        TrainConfig,
        {
            "height": SIZE[0],
            "width": SIZE[1],
            "device": "cpu",
            "precision": "fp32",
            "stage2": stage,
            "stage3": {**stage, "lr_encoder": 1e-2, "num_negatives": 5, "memory_w": 0.7, "id_w": 1.3},
            **changes,
        },
    )


def make_networks(device: torch.device) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    encoder = IdentityEncoder("jvtc", "resnet18", width=4, feature_width=6)
    generator = Generator(encoder.code_dim, width=2, mlp_width=6)
    networks = {"encoder": encoder, "generator": generator, "discriminator": Discriminator(3)}
    return {name: module.double().to(device) for name, module in networks.items()}


def make_batch(device: torch.device, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    index = torch.randperm(IMAGES, generator=generator)[:4]
    return Batch(draw(4, 3, *SIZE), draw(4, 1, *SIZE).tanh(), draw(4, 1, *SIZE).tanh(), index, index, index).to(device)


def make_stage(
    name: str, config: TrainConfig, networks: dict[str, nn.Module], device: torch.device, people: torch.Tensor | None = None
):
    data = StageData(torch.zeros(IMAGES, dtype=torch.int64), device, people=people)
    if name == "stage2":
        return GenerativeStage(config, Networks(**networks), data)
    stage = JointStage(config, Networks(**networks), data)
    stage.memory.double()
    rng = torch.Generator().manual_seed(9)
    bank = torch.nn.functional.normalize(torch.randn(IMAGES, 6, generator=rng, dtype=torch.float64), dim=1)
    stage.memory.features.copy_(bank)
    stage.memory.labels.copy_(torch.arange(IMAGES) % CLUSTERS)
    stage.centers = torch.randn(CLUSTERS, 6, generator=rng, dtype=torch.float64).to(device)
    return stage


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_every_weight_moves_as_in_the_plain_step(name: str, device: torch.device) -> None:
    config = make_config()
    fast, plain = (make_stage(name, config, make_networks(device), device) for _ in range(2))
    for stage in (fast, plain):  # Adam would blow the rounding of a gradient that is zero (a bias before a norm) up to a step
        stage.optimizers = {k: torch.optim.SGD(stage.modules[k].parameters(), 1e-3, momentum=0.9) for k in stage.optimizers}
    start = copy.deepcopy({k: m.state_dict() for k, m in fast.modules.items()})
    settings = config.stage2 if name == "stage2" else config.stage3
    contrast = None
    if name == "stage3":
        memory = plain.memory
        contrast = Contrast(
            memory.features,
            memory.labels,
            plain.centers,
            settings.temperature,
            settings.num_negatives,
            settings.bank_momentum,
            settings.memory_w,
            settings.id_w,
        )
    for module in plain.modules.values():
        module.train()
    if name == "stage2":
        plain.encoder.eval()
    for iteration in range(3):
        batch = make_batch(device, iteration)
        got = fast.step(batch, iteration)
        mix_weight, order = draw_mix(len(batch), settings.loss.mixup_alpha, plain.iteration_rng(iteration))
        want = plain_step(
            plain.modules,
            plain.optimizers,
            batch,
            mix_weight=mix_weight,
            order=torch.from_numpy(order).to(device),
            weights=Weights(),
            contrast=contrast,
            seed=int(plain.iteration_rng(iteration).integers(2**31)),
        )
        assert set(got) == set(want)
        for loss, value in want.items():
            assert float(got[loss]) == pytest.approx(float(value), rel=2e-6), loss  # the log keeps float32
    for kind, module in fast.modules.items():
        expected = plain.modules[kind].state_dict()
        for key, value in module.state_dict().items():
            largest = expected[key].abs().max().clamp_min(1e-3)
            assert (value - expected[key]).abs().max() <= 1e-9 * largest, f"{kind}.{key}"
        moved = [k for k, p in module.named_parameters() if not torch.equal(p, start[kind][k])]
        assert len(moved) == (0 if kind == "encoder" and name == "stage2" else len(list(module.parameters()))), kind
    if name == "stage3":
        assert torch.allclose(fast.memory.features, plain.memory.features, rtol=1e-10)


def test_a_step_draws_its_randomness_from_seed_and_iteration_alone(device: torch.device, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)  # else it may add in another order each time
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    config = make_config(cudnn_benchmark="off")
    states = []
    for noise in (0, 1):
        stage = make_stage("stage3", config, make_networks(device), device)
        torch.manual_seed(noise)
        np.random.seed(noise)
        stage.step(make_batch(device, 0), 5)
        states.append({f"{k}.{n}": v for k, m in stage.modules.items() for n, v in m.state_dict().items()})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
