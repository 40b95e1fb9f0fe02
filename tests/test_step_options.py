"""Options of the training step: what each may change in the result, and that no step waits for the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import TrainConfig, from_dict
from gcl_fast.errors import ConfigError
from gcl_fast.models import Discriminator, Generator
from gcl_fast.ops import bank
from gcl_fast.stages import layout
from gcl_fast.stages.amp import use_bfloat16
from gcl_fast.stages.losses import fake_terms, pixel_weights, real_terms
from gcl_fast.stages.optimizer_state import load_optimizer
from tests.taped_graph import WAITING
from tests.test_step import IMAGES, SIZE, make_batch, make_config, make_networks, make_stage

CPU = torch.device("cpu")


def run(name: str, *, steps: int = 2, double: bool = True, make=make_networks, **options):
    """The stage after some steps, and the losses of each. Plain SGD, as in test_step."""
    networks = make(CPU)
    if not double:
        networks = {kind: module.float() for kind, module in networks.items()}
    stage = make_stage(name, make_config(**options), networks, CPU)
    stage.optimizers = {k: torch.optim.SGD(stage.modules[k].parameters(), 1e-3, momentum=0.9) for k in stage.optimizers}
    losses = []
    for iteration in range(steps):
        batch = make_batch(CPU, iteration)
        if not double:
            batch.image, batch.mesh, batch.mesh_novel = (t.float() for t in (batch.image, batch.mesh, batch.mesh_novel))
            if name == "stage3":
                stage.memory.float()
                stage.centers = stage.centers.float()
        losses.append(stage.step(batch.to(CPU, memory_format=stage.memory_format), iteration))
    return stage, losses


def assert_same(one, two) -> None:
    """In float64 two orders of the same sums agree to 1e-9 of the largest weight, as in test_step."""
    for kind, module in one.modules.items():
        want = two.modules[kind].state_dict()
        for key, value in module.state_dict().items():
            assert (value - want[key]).abs().max() <= 1e-9 * want[key].abs().max().clamp_min(1e-3), f"{kind}.{key}"


class SmallEncoder(nn.Module):
    """Code and feature from one convolution and a batch norm: a ResNet takes a minute to trace."""

    code_dim, feature_dim = 8, 6

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.Linear(8, 6)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = self.norm(self.conv(image)).relu().mean((2, 3))
        return code, self.head(code)


def small_networks(device: torch.device) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    networks = {"encoder": SmallEncoder(), "generator": Generator(8, width=1, mlp_width=4), "discriminator": Discriminator(2)}
    return {name: module.double().to(device) for name, module in networks.items()}


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_a_stage_weighs_the_person_of_each_row_in_its_image_losses(name: str) -> None:
    batch, generator = make_batch(CPU, 0), torch.Generator().manual_seed(5)
    people = torch.rand(IMAGES, 1, *SIZE, generator=generator) > 0.5
    loss = {name: {"loss": {"foreground": 3.0}}}
    plain, weighed = (make_stage(name, make_config(**options), small_networks(CPU), CPU, people=people) for options in ({}, loss))
    assert plain.pixel_weights(batch) is None
    assert torch.equal(weighed.pixel_weights(batch), pixel_weights(people[batch.index], 3.0))
    got, want = (stage.step(batch, 0) for stage in (weighed, plain))
    assert got["image_rec"] != want["image_rec"] and got["image_cyc"] != want["image_cyc"]
    assert torch.equal(got["dis_real"], want["dis_real"])


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_channels_last_changes_no_weight(name: str) -> None:
    plain, laid = (run(name, steps=1, make=small_networks, channels_last=choice)[0] for choice in ("off", "on"))
    weight = laid.encoder.conv.weight
    assert laid.memory_format == torch.channels_last and weight.is_contiguous(memory_format=torch.channels_last)
    assert plain.memory_format == torch.preserve_format
    batch = make_batch(CPU, 0).to(CPU, memory_format=laid.memory_format)
    assert batch.image.is_contiguous(memory_format=torch.channels_last) and batch.index.dim() == 1
    assert_same(laid, plain)


def test_the_compiled_discriminator_has_its_gradient_penalty(monkeypatch) -> None:
    """Its graphs, run as they are captured, give the same scores; the real pass, differentiated twice, stays out of them.
    (The other networks are compiled alike; capturing all of a step takes a minute, its generated code several.)"""
    graphs = []

    def captured(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(layout, "BACKEND", captured)
    torch._dynamo.reset()
    networks, config = small_networks(CPU), make_config(compile="on")
    plain = copy.deepcopy(networks["discriminator"])
    layout.prepare(networks, config, CPU)
    parts = networks["encoder"], networks["generator"].structure, networks["generator"].decoder, networks["discriminator"]
    assert all(part._compiled_call_impl is not None for part in parts)
    image = make_batch(CPU, 0).image
    got, want = (real_terms(network, image, with_penalty=True) for network in (parts[-1], plain))
    assert all(map(torch.equal, got, want)) and not graphs
    got, want = (fake_terms(network, {"rec": image})["rec"] for network in (parts[-1], plain))
    assert float(got.detach()) == pytest.approx(float(want.detach()), rel=1e-12) and graphs


def test_graphs_are_asked_of_the_compiler_and_of_a_gpu_only(monkeypatch) -> None:
    asked, networks = [], small_networks(CPU)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: asked.append(options))
    monkeypatch.setattr(nn.Module, "to", lambda self, **options: self)
    for choice in ("auto", "off", "on", "graphs"):
        layout.prepare(networks, make_config(compile=choice), torch.device("cuda"))
    assert [options["mode"] for options in asked] == [None] * 4 + ["reduce-overhead"] * 4
    with pytest.raises(ConfigError, match="compile 'graphs' needs a CUDA device, got cpu"):
        layout.prepare(networks, make_config(compile="graphs"), CPU)


def test_bfloat16_keeps_the_losses() -> None:
    """bfloat16 rounds each value by up to 2^-9 = 0.2 %, some 40 layers deep: sqrt(40) * 0.2 % is 1.3 %, which the first step's
    losses may be off. Real images meet the discriminator in float32: those two losses are the same bits."""
    (_, exact), (_, rounded) = (
        run("stage3", steps=1, double=False, make=small_networks, precision=precision) for precision in ("fp32", "bf16")
    )
    for loss, value in exact[0].items():
        assert float(rounded[0][loss]) == pytest.approx(float(value), rel=0.013, abs=1e-3), loss
    for loss in ("dis_real", "dis_penalty"):
        assert torch.equal(exact[0][loss], rounded[0][loss]), loss
    assert not torch.equal(exact[0]["image_rec"], rounded[0]["image_rec"])


def test_auto_is_what_the_machine_does_well(monkeypatch) -> None:
    from gcl_fast.stages import amp

    for there in (False, True):
        monkeypatch.setattr(amp, "has_bfloat16", lambda device, there=there: there)
        assert use_bfloat16("auto", CPU) is there and use_bfloat16("bf16", CPU) and not use_bfloat16("fp32", CPU)
    with pytest.raises(ConfigError, match="precision must be 'auto', 'fp32' or 'bf16', got 'off'"):
        use_bfloat16("off", CPU)
    config = TrainConfig()
    assert (config.precision, config.channels_last, config.compile) == ("auto", "auto", "auto")
    assert layout.prepare({}, config, CPU) == torch.preserve_format
    assert layout.prepare({}, config, torch.device("cuda")) == torch.channels_last


def test_configurations_of_earlier_commits_are_read() -> None:
    assert from_dict(TrainConfig, {"amp": "off"}).precision == "fp32"
    assert from_dict(TrainConfig, {"amp": False}).precision == "fp32"
    assert from_dict(TrainConfig, {"amp": "bf16"}).precision == "bf16"
    with pytest.raises(ConfigError, match=r"precision must be one of 'auto', 'fp32', 'bf16', got 'fp16'"):
        from_dict(TrainConfig, {"precision": "fp16"})


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values read, shapes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().split("::")[1].split(".")[0] in WAITING:
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_no_step_waits_for_the_device(name: str, monkeypatch) -> None:
    monkeypatch.setattr(bank, "check_rows", lambda *_: None)  # reads row numbers on the CPU alone
    stage, batch = make_stage(name, make_config(), small_networks(CPU), CPU), make_batch(CPU, 0)
    stage.step(batch, 0)
    with Waits() as waits:
        stage.step(batch, 1)
    assert waits.found == []
    with Waits() as waits:
        float(torch.ones(()))
    assert waits.found == ["aten::_local_scalar_dense"]


def test_moments_of_another_layout_are_laid_out_as_the_weights() -> None:
    """Fused optimisers on a GPU refuse others: a run that began on a CPU must go on there."""
    there, here = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(module.parameters(), fused=True) for module in (there, here)]
    there(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizers[0].step()
    load_optimizer(optimizers[1], optimizers[0].state_dict())
    for before, after in zip(there.parameters(), here.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            moment = optimizers[1].state[after][name]
            assert torch.equal(moment, optimizers[0].state[before][name]) and moment.stride() == after.stride()


@pytest.mark.parametrize(("kind", "fused"), [(torch.optim.Adam, True), (torch.optim.Adam, None), (torch.optim.SGD, True)])
def test_an_optimizer_that_takes_over_a_state_computes_in_its_own_way(kind: type, fused: bool | None) -> None:
    """A stage that began on a CPU, whose optimiser is not fused, takes the steps of a GPU's there."""
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    there, here = kind([weights[0]], lr=0.5, fused=None if fused else True), kind([weights[1]], lr=0.1, fused=fused)
    weights[0].grad = torch.ones(3)
    there.step()
    before = copy.deepcopy(there.state_dict())  # what is loaded shares memory
    load_optimizer(here, before)
    (group,) = here.param_groups
    assert group["fused"] is fused and group["lr"] == 0.5
    assert before["param_groups"] == there.state_dict()["param_groups"]
    for weight, optimizer in zip(weights, (there, here), strict=True):
        weight.data.fill_(2)
        weight.grad = torch.full((3,), 3.0)
        optimizer.step()
    assert torch.allclose(*weights, rtol=1e-6)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        load_optimizer(here, {**before, "param_groups": before["param_groups"] * 2})
