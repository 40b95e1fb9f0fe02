"""Whole runs on a GPU at toy size: stages, loaders, resume, networks as CUDA graphs.

The same bodies run on the CPU, so that the tests are known to work where no GPU is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gcl_fast.cli.main import main
from gcl_fast.data.loaders.dali import dali
from gcl_fast.errors import MissingPackageError
from gcl_fast.stages.checkpoint import load_checkpoint
from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage
from tests.test_ops_cuda import each_device
from tests.toy_world import SETTINGS, write_toy_world

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

SHORT = ["--stage1.epochs", "1", "--stage1.iters", "2", "--stage2.iters", "1", "--stage3.epochs", "1", "--stage3.iters", "2"]


class Killed(BaseException):
    pass


@pytest.fixture
def world(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(SETTINGS)
    return write_toy_world(tmp_path / "data")


def train(world: Path, name: str, device: str, *more: str) -> list[str]:
    folder = world.parent
    places = ["--root", str(world), "--runs", str(folder / "runs"), "--name", name]
    return ["train", "--config", str(folder / "toy.yaml"), *places, "--device", device, *more]


def losses(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def has_dali() -> bool:
    try:
        dali()
    except MissingPackageError:
        return False
    return True


@each_device
@pytest.mark.parametrize("loader", ["torch", "cached", "dali"])
def test_all_stages(world: Path, device: str, loader: str, capsys: pytest.CaptureFixture[str]) -> None:
    if loader == "dali" and not has_dali():
        pytest.skip("needs nvidia-dali-cuda130")
    part = device == "cpu" and loader != "cached"  # the whole is test_end_to_end's
    short = [*SHORT, *(["--stage", "1"] if part else ["--stage", "all", "--control"])]
    assert main(train(world, "run", device, "--loader", loader, *short)) == 0, capsys.readouterr().err
    run = world.parent / "runs/run"
    lines = losses(run)
    assert lines and all(torch.tensor(value).isfinite() for line in lines for value in line.values() if isinstance(value, float))
    last = load_checkpoint(run / ("stage3" if "all" in short else "stage1") / "last.pt")
    assert last["iteration"] == 2
    assert all(
        value.isfinite().all() for part in last["modules"].values() for value in part.values() if value.is_floating_point()
    )
    assert main(["evaluate", str(run), "--rerank", "--device", device]) == 0, capsys.readouterr().err


@each_device
def test_a_run_that_was_killed_goes_on(world: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage1 = ["--stage", "1"]
    assert main(train(world, "whole", device, *stage1)) == 0
    plain = ClusterContrastStage.step

    def dies(self: Any, batch: Any, iteration: int) -> Any:
        if iteration == 4:  # in the second of two epochs of three
            raise Killed
        return plain(self, batch, iteration)

    with monkeypatch.context() as patched:
        patched.setattr(ClusterContrastStage, "step", dies)
        with pytest.raises(Killed):
            main(train(world, "killed", device, *stage1))
    runs = world.parent / "runs"
    assert load_checkpoint(runs / "killed/stage1/last.pt")["iteration"] == 4
    assert main(train(world, "killed", device, *stage1, "--resume")) == 0
    whole, resumed = (load_checkpoint(runs / name / "stage1/last.pt") for name in ("whole", "killed"))
    assert whole["iteration"] == resumed["iteration"] == 6
    for name, value in whole["modules"]["encoder"].items():
        other = resumed["modules"]["encoder"][name]
        # cuDNN adds in no fixed order, and Adam moves a weight by about lr whatever the size of its gradient
        near = 0.0 if device == "cpu" else 6 * 2 * 3.5e-4 + 0.02 * float(value.double().abs().max())
        assert float((value.double() - other.double()).abs().max()) <= near, name


@each_device
@pytest.mark.parametrize("option", [["--compile", "graphs"], ["--step-graph"]], ids=" ".join)
def test_graphs_learn_the_same(world: Path, device: str, option: list[str]) -> None:
    """On a CPU, which has no graphs, the runs are two of the same."""
    short = ["--stage", "1", "--stage1.epochs", "1", "--stage1.iters", "3", "--precision", "fp32"]
    for name, choice in (("plain", []), ("graphs", option if device == "cuda" else [])):
        assert main(train(world, name, device, *short, *choice)) == 0
    plain, graphs = (
        [line for line in losses(world.parent / "runs" / name) if "contrast" in line] for name in ("plain", "graphs")
    )
    assert len(plain) == len(graphs) == 3
    for one, two in zip(plain, graphs, strict=True):
        for name in one.keys() - {"stage", "time"}:
            assert two[name] == pytest.approx(one[name], rel=1e-6 if device == "cpu" else 0.05, abs=1e-6), (one, name)


@each_device
def test_all_stages_take_their_steps_as_graphs(world: Path, device: str) -> None:
    """Epoch after epoch, with checkpoints, scores and pictures between. What is learnt so is held step by step in float64, in
    tests/test_step_graph.py: here 1e-7 of rounding is soon a multiple of stage 3's losses."""
    short = ["--stage", "all", "--precision", "fp32", *(["--step-graph"] if device == "cuda" else [])]
    for stage in ("stage1", "stage2", "stage3"):
        short += [f"--{stage}.epochs", "2", f"--{stage}.iters", "3"]
    assert main(train(world, "run", device, *short)) == 0
    run = world.parent / "runs/run"
    steps = [line for line in losses(run) if "contrast" in line or "total" in line]
    assert len(steps) == 18
    assert all(torch.tensor(value).isfinite() for line in steps for value in line.values() if isinstance(value, float))
    assert load_checkpoint(run / "stage3/last.pt")["iteration"] == 6
