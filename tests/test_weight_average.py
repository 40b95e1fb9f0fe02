"""The moving average of the encoder's weights: its arithmetic, what a stage scores, saves and goes on from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.constants import LEARNING_ENCODER
from gcl_fast.models.published import recognise
from gcl_fast.stages.checkpoint import load_checkpoint
from gcl_fast.stages.warmup.warmup_stage import Continuation
from gcl_fast.stages.weight_average import WeightAverage
from tests import distributed_worker as worker


def copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_it_is_the_average_of_all_weights_so_far(device) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double().to(device)
    average, expected = WeightAverage(network, 0.75), copied(network)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    assert not any(weight.requires_grad for weight in average.module.parameters())
    for _ in range(5):
        network(torch.randn(2, 3, 5, 5, dtype=torch.float64, device=device)).square().sum().backward()
        optimizer.step()
        average.update()
        for name, value in copied(network).items():
            expected[name] = 0.75 * expected[name] + 0.25 * value if value.is_floating_point() else value
    for name, value in average.module.state_dict().items():
        assert torch.allclose(value, expected[name], rtol=1e-13, atol=0), name
        assert name.endswith("tracked") or not torch.equal(value, network.state_dict()[name])
    assert int(average.module[1].num_batches_tracked) == 5


def test_stage_3_scores_and_saves_the_average(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(worker.CONFIG["stage3"], "average_encoder", 0.9)
    stage = worker.make_stage("stage3", batch_norm=True)
    monkeypatch.setattr(worker, "make_stage", lambda case, **options: stage)
    expected, update = copied(stage.encoder), WeightAverage.update
    learned: list[dict[str, torch.Tensor]] = []
    scored: list[dict[str, torch.Tensor]] = []

    def recorded(average: WeightAverage) -> None:
        update(average)
        learned.append(copied(stage.encoder))

    monkeypatch.setattr(WeightAverage, "update", recorded)
    monkeypatch.setattr(worker.StageData, "score", lambda self, encoder: scored.append(copied(encoder)) or {})
    worker.run("stage3", tmp_path, batch_norm=True)

    kept = load_checkpoint(tmp_path / "stage3" / "last.pt")["modules"]
    assert set(kept) == {"encoder", LEARNING_ENCODER, "generator", "discriminator"} and len(learned) == 4
    for weights in learned:
        expected = {k: 0.9 * expected[k] + 0.1 * v if v.is_floating_point() else v for k, v in weights.items()}
    for name, value in kept["encoder"].items():
        assert torch.allclose(value, expected[name], rtol=1e-12, atol=1e-15), name
        assert torch.equal(value, scored[-1][name])
        assert torch.equal(kept[LEARNING_ENCODER][name], learned[-1][name])


def test_who_asks_a_checkpoint_for_its_networks_gets_the_average() -> None:
    encoder = copied(worker.make_stage("stage3", batch_norm=True).encoder)
    other = {name: value + 1 for name, value in encoder.items()}
    (part,) = recognise({"modules": {LEARNING_ENCODER: other, "encoder": encoder}})
    assert part.module == "encoder" and torch.equal(part.state["bn.weight"], encoder["bn.weight"])


@pytest.mark.parametrize("case", ["cluster-contrast", "mlc", "jvtc"])
def test_the_control_is_averaged_alike(case: str, monkeypatch) -> None:
    """A continuation of stage 1 by any method scores the average, and learns as without one."""
    plain = worker.make_stage(case, batch_norm=True)
    kind = type(plain)
    config = worker.from_dict(worker.TrainConfig, worker.CONFIG)
    going_on = kind(config, plain.encoder, plain.data, Continuation("control", 2, 3, average=0.5))
    scored: list[nn.Module] = []
    monkeypatch.setattr(worker.StageData, "score", lambda self, encoder: scored.append(encoder) or {})
    going_on.score()
    weights = {id(weight) for weight in scored[0].parameters()}
    average = going_on.modules["encoder"]
    assert going_on.modules[LEARNING_ENCODER] is going_on.encoder is plain.encoder
    assert weights <= {id(weight) for weight in average.parameters()} and average is not plain.encoder
    before = copied(average)
    with torch.no_grad():
        going_on.encoder.bn.weight.add_(1.0)
    going_on.descend(sum(p.sum() for p in going_on.encoder.parameters()), "encoder")
    moved = 0.5 * before["bn.weight"] + 0.5 * going_on.encoder.bn.weight
    assert torch.allclose(average.bn.weight, moved, rtol=1e-12)
