"""Options of the training step: what each may change in the result, and that no step waits for the device."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.config import ConfigError, TrainConfig, from_dict
from gcl_fast.models import Discriminator, Generator
from gcl_fast.ops import bank
from gcl_fast.stages import layout
from gcl_fast.stages.amp import use_bfloat16
from tests.test_step import make_batch, make_config, make_networks, make_stage

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


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_channels_last_changes_no_weight(name: str) -> None:
    plain, laid = run(name, channels_last="off")[0], run(name, channels_last="on")[0]
    weight = laid.encoder.backbone.layer1[0].conv1.weight
    assert laid.memory_format == torch.channels_last and weight.is_contiguous(memory_format=torch.channels_last)
    assert plain.memory_format == torch.preserve_format
    batch = make_batch(CPU, 0).to(CPU, memory_format=laid.memory_format)
    assert batch.image.is_contiguous(memory_format=torch.channels_last) and batch.index.dim() == 1
    assert_same(laid, plain)


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


@pytest.mark.slow
def test_compiled_graphs_change_no_weight(monkeypatch) -> None:
    """Captured forward and backward graphs, run as they are: what torch.compile sees is the step. Its generated code is not
    run here: compiling it takes minutes."""
    monkeypatch.setattr(layout, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    compiled, plain = (run("stage3", steps=1, make=small_networks, compile=choice)[0] for choice in ("on", "off"))
    assert compiled.generator.decoder._compiled_call_impl is not None
    assert_same(compiled, plain)


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_bfloat16_keeps_the_losses(name: str) -> None:
    """bfloat16 rounds each value by up to 2^-9 = 0.2 %, some 40 layers deep: sqrt(40) * 0.2 % is 1.3 %, four times that is
    allowed of the first step's losses; contrast divides cosines by 0.04: four times 1.3 % of 1 / 0.04 is 1.3. Real images meet
    the discriminator in float32: those two losses are the same bits."""
    (_, exact), (_, rounded) = (run(name, steps=1, double=False, precision=precision) for precision in ("fp32", "bf16"))
    for loss, value in exact[0].items():
        assert torch.isfinite(rounded[0][loss])
        allowed = 1.3 if loss.startswith("mem_") else 0.02
        allowed = 3 * 1.3 + 0.05 * float(value) if loss == "total" and name == "stage3" else max(allowed, 0.05 * float(value))
        assert float(rounded[0][loss]) == pytest.approx(float(value), abs=allowed), loss
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

    WAITING = ("_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "masked_select", "equal", "bincount", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().split("::")[1].split(".")[0] in self.WAITING:
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_no_step_waits_for_the_device(name: str, monkeypatch) -> None:
    monkeypatch.setattr(bank, "_check_rows", lambda *_: None)  # reads row numbers on the CPU alone
    stage, batch = make_stage(name, make_config(), make_networks(CPU), CPU), make_batch(CPU, 0)
    stage.step(batch, 0)
    with Waits() as waits:
        stage.step(batch, 1)
    assert waits.found == []
    with Waits() as waits:
        float(torch.ones(()))
    assert waits.found == ["aten::_local_scalar_dense"]
