"""A replayed step is the step, with fresh batches and draws: on the CPU, where a tape stands in for a GPU's graph, to the bit; on
a GPU, whose kernels add in no fixed order, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import distributed
from gcl_fast.errors import ConfigError
from gcl_fast.models import IdentityEncoder
from gcl_fast.ops import _check
from gcl_fast.records import Batch
from gcl_fast.stages import layout
from gcl_fast.stages.stage import Stage, set_lr
from gcl_fast.stages.step_graph import CudaGraph, StepGraph, capturable, tensors_of
from gcl_fast.stages.warmup import multilabel
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from gcl_fast.stages.warmup.jvtc import JVTCStage
from gcl_fast.stages.warmup.mlc import MLCStage
from tests.device_path_cases import warmup, warmup_batches
from tests.guided_steps import guided_batches, guided_stage
from tests.taped_graph import TapedGraph
from tests.test_step import make_batch, make_config, make_networks, make_stage

NEAR = 1e-6  # on a GPU, see `same`
CPU, GPU = torch.device("cpu"), torch.device("cuda")
VARIANCE = {"background": 0.5, "colour": 0.5, "occluder": 0.5, "crop": 0.5}


@pytest.fixture(autouse=True)
def nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU row numbers are not read."""
    monkeypatch.setattr(_check, "check_index", lambda *_, **__: None)


def all_of(stage: Stage) -> dict[str, Tensor]:
    """What a step may change."""
    found = {f"{kind}.{name}": value for kind, module in stage.modules.items() for name, value in module.state_dict().items()}
    for kind, optimizer in stage.optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            found |= {f"{kind}.{number}.{name}": value for name, value in state.items()}
    extra = {**stage.extra_state(), **stage.extra_state().get("memory", {})}
    return found | {name: value for name, value in extra.items() if isinstance(value, Tensor)}


def same(got: dict[str, Tensor], want: dict[str, Tensor], when: str) -> None:
    """To the bit on the CPU. On a GPU rounding, 1e-16 in float64, grows up to a millionfold within a step; a replay that read
    something old would be off by far more."""
    assert list(got) == list(want)
    for name, value in want.items():
        if value.device.type == "cpu" or not value.is_floating_point():
            assert torch.equal(got[name], value), f"{when}: {name}"
        else:
            away, size = float((got[name] - value).abs().max()), max(1e-2, float(value.abs().max()))
            assert away <= NEAR * size, f"{when}: {name} is off by {away} of {size}"


def graph_on(device: torch.device) -> Any:
    return Counted(device) if device.type == "cuda" else TapedGraph()


class Counted(CudaGraph):
    """A real graph that counts as a tape does."""

    asides = replays = 0

    def aside(self, run: Callable[[], Any]) -> Any:
        self.asides += 1
        return super().aside(run)

    def replay(self) -> None:
        self.replays += 1
        super().replay()


def tame(stage: Stage) -> Stage:
    """In float64; and a gradient that is zero but for its rounding (a bias before a norm) moves nothing: Adam would make a whole
    step of it."""
    for module in stage.modules.values():
        module.double()
    for optimizer in stage.optimizers.values():
        for group in optimizer.param_groups:
            group |= {"eps": 1e-3} if "eps" in group else {}
    if isinstance(stage, JVTCStage):
        stage.bank = stage.bank.double()
    if isinstance(stage, ClusterContrastStage):
        stage.memory.double()
    return stage


def in_double(batches: Iterable[Batch]) -> list[Batch]:
    return [replace(batch, image=batch.image.double()) for batch in batches]


def check_replayed(make: Callable[[], Stage], batches: Sequence[Batch], device: torch.device) -> None:
    """Two epochs, the second at another rate: what was recorded in the first is not replayed in it. Each step begins where the
    last one of the graph ended: rounding does not add up."""
    plain, graphed = tame(make()), tame(make())
    start = {name: value.clone() for name, value in all_of(graphed).items()}
    for epoch, numbers in enumerate((range(4), range(4, 7))):
        for stage in (plain, graphed):
            for optimizer in stage.optimizers.values():
                set_lr(optimizer, 1e-3 / (epoch + 1))
        graph = graph_on(device)
        step = StepGraph(graphed, graph)
        for number in numbers:
            same(step(batches[number], number), plain.step(batches[number], number), f"losses of step {number}")
            same(all_of(graphed), all_of(plain), f"after step {number}")
            for mine, theirs in zip(all_of(plain).values(), all_of(graphed).values(), strict=True):
                mine.copy_(theirs)
        assert (graph.asides, graph.replays) == (1, len(numbers) - 1)
        del step, graph  # of this epoch alone
    still = [name for name, value in start.items() if torch.equal(value, all_of(graphed)[name])]
    assert len(still) < len(start)


@pytest.mark.parametrize("name", ["stage2", "stage3"])
def test_replayed_steps_of_stages_2_and_3(name: str, device: torch.device) -> None:
    batches = [make_batch(device, seed) for seed in range(7)]
    check_replayed(lambda: make_stage(name, make_config(), make_networks(device), device), batches, device)


@pytest.mark.parametrize(("name", "variance"), [("stage2", {}), ("stage3", VARIANCE)])
def test_replayed_steps_with_the_photo_s_own_pixels(
    name: str, variance: dict[str, float], tmp_path: Path, device: torch.device
) -> None:
    check_replayed(lambda: guided_stage(name, tmp_path, device, **variance), guided_batches(7, device), device)


@pytest.mark.parametrize("memory", ["each", "hard", "mean"])
def test_replayed_steps_of_cluster_contrast(memory: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Stage:
        stage = warmup(ClusterContrastStage, device, memory=memory, batch_size=8, num_instances=2)
        stage.optimizers = {"encoder": torch.optim.Adam(stage.encoder.parameters(), fused=True)}  # as on a GPU
        return stage

    monkeypatch.setattr(ClusterContrastStage, "_move_to_means", ClusterContrastStage._move_all_to_means)  # on the CPU as on a GPU
    check_replayed(make, in_double(warmup_batches(7, device=device)), device)


@pytest.mark.parametrize("number", [1, 40])
def test_replayed_steps_of_jvtc(number: int, device: torch.device) -> None:
    def make() -> Stage:
        stage = warmup(JVTCStage, device, jvtc={"batch_size": 8, "views": 2, "epochs": 98, "temporal_from": 99})
        stage.number = number
        return stage

    check_replayed(make, in_double(warmup_batches(7, device=device)), device)


@pytest.mark.parametrize("single_label", [True, False])
def test_replayed_steps_of_mlc(single_label: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Stage:
        stage = warmup(MLCStage, device, mlc={"batch_size": 8, "threshold": 0.3, "min_neighbors": 3})
        stage.single_label, stage.momentum = single_label, 0.5
        return stage

    monkeypatch.setattr(multilabel, "_on_host", lambda bank: False)  # on the CPU as on a GPU
    check_replayed(make, in_double(warmup_batches(7, device=device)), device)


def test_losses_stay_when_the_next_step_is_taken(device: torch.device) -> None:
    step = StepGraph(make_stage("stage2", make_config(), make_networks(device), device), graph_on(device))
    losses = [step(make_batch(device, seed), seed) for seed in range(4)]
    assert len({float(each["total"]) for each in losses}) == 4


def test_a_batch_of_another_size_runs_without_the_graph(device: torch.device) -> None:
    plain, graphed = (tame(make_stage("stage2", make_config(), make_networks(device), device)) for _ in range(2))
    graph = graph_on(device)
    step = StepGraph(graphed, graph)
    for iteration, size in enumerate([4, 4, 3, 4, 2]):
        whole = make_batch(device, iteration)
        batch = replace(whole, **{name: getattr(whole, name)[:size] for name in ("image", "mesh", "mesh_novel", "index")})
        same(step(batch, iteration), plain.step(batch, iteration), f"losses of step {iteration}")
    same(all_of(graphed), all_of(plain), "at the end")
    assert (graph.asides, graph.replays) == (3, 2)


def test_a_step_that_reads_a_number_cannot_be_recorded() -> None:
    """The CPU's walk asks how far it has come."""
    stage = warmup(MLCStage, CPU, mlc={"batch_size": 8, "threshold": 0.3, "min_neighbors": 3})
    stage.single_label, stage.momentum = False, 0.5
    step, batches = StepGraph(stage, TapedGraph()), warmup_batches(2, device=CPU)
    step(batches[0], 0)
    with pytest.raises(AssertionError, match="the host reads a number"):
        step(batches[1], 1)


def test_the_tape_repeats_what_the_host_knew() -> None:
    """Else the tests above would show nothing: a learning rate that changed would come through."""
    graph, x, known = TapedGraph(), torch.zeros(3), [2.0]
    y = graph.record(lambda: x.add_(1).mul(known[0]))
    assert x.tolist() == [0, 0, 0] and y.isnan().all()
    known[0] = 5.0
    graph.replay()
    assert x.tolist() == [1, 1, 1] and y.tolist() == [2, 2, 2]
    x.fill_(9)
    graph.replay()
    assert y.tolist() == [20, 20, 20]


def test_optimisers_may_be_held_by_a_graph_while_one_is_recorded() -> None:
    weight = [torch.nn.Parameter(torch.ones(2))]
    adam, sgd = torch.optim.Adam(weight), torch.optim.SGD(weight, 0.1)
    before = [dict(optimizer.param_groups[0]) for optimizer in (adam, sgd)]
    with pytest.raises(KeyError), capturable([adam, sgd]):
        assert adam.param_groups[0]["capturable"] is True and "capturable" not in sgd.param_groups[0]
        raise KeyError
    assert [optimizer.param_groups[0] for optimizer in (adam, sgd)] == before


def test_tensors_are_found_in_batches_and_draws() -> None:
    batch = make_batch(CPU, 0)
    found = list(tensors_of((batch, (3, None))))
    assert [id(tensor) for tensor in found] == [id(value) for value in vars(batch).values() if value is not None]


def test_a_graph_needs_a_gpu_one_process_and_uncompiled_or_compiled_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="step_graph needs a CUDA device, got cpu"):
        layout.prepare({}, make_config(step_graph=True), CPU)
    with pytest.raises(ConfigError, match="step_graph .* compile 'off' or 'on', got 'graphs'"):
        layout.prepare({}, make_config(step_graph=True, compile="graphs"), GPU)
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(ConfigError, match="step_graph is for a single process, got 2"):
        layout.prepare({}, make_config(step_graph=True), GPU)


@pytest.mark.parametrize("kind", [ClusterContrastStage, JVTCStage, MLCStage])
def test_every_warm_up_runs_as_a_graph_where_asked(kind: type[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "check_graphs", lambda *_: None)
    visual = {"jvtc": {"epochs": 98, "temporal_from": 99}}  # the images have no frame numbers
    for asked in (False, True):
        config = make_config(step_graph=asked, stage1=visual)
        stage = kind(config, IdentityEncoder("jvtc", "resnet18", width=4), warmup(kind, CPU, **visual).data)
        assert stage.step_graph is asked
