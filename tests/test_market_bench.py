"""bench/market1501.py on a toy world: every part runs, is written at once, and is not repeated."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("faiss", reason="the bench's baseline needs it")
pytest.importorskip("sklearn", reason="the bench's baseline needs it")
pytest.importorskip("torchvision", reason="the backbones need it")

from gcl_fast.config import TrainConfig, load_yaml
from tests.module_files import bench_module
from tests.toy_world import SETTINGS, write_toy_world

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The module, with networks and schedules of the toy world."""
    module = bench_module("market1501", monkeypatch)
    (tmp_path / "toy.yaml").write_text(SETTINGS)

    def toy(start: str) -> TrainConfig:
        config = load_yaml(tmp_path / "toy.yaml")
        stage1, stage3 = replace(config.stage1, epochs=1, iters=1), replace(config.stage3, epochs=1, iters=1)
        return replace(config, threads=1, stage1=stage1, stage2=replace(config.stage2, iters=1), stage3=stage3)

    monkeypatch.setattr(module, "small", toy)
    return module


def test_every_part_runs_once(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    world, runs, out = write_toy_world(tmp_path / "data", people=4, images=6), tmp_path / "runs", tmp_path / "out.json"
    doubts = world / "mesh" / "market" / "train" / "doubts.csv"
    doubts.write_text("image,doubt\n0001_c1s1_000000_00,cut off\n")
    monkeypatch.setattr(bench, "BlazePose", lambda *_: None)
    monkeypatch.setattr(bench, "pose_weights", lambda: None)  # every body is there: none is estimated
    argv = ["market1501.py", "--data", str(world / "market1501"), "--people", "3", "--meshes", str(world / "mesh")]
    argv += ["--runs", str(runs), "--out", str(out), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    assert bench.main() == 0
    result = json.loads(out.read_text())
    assert not result["counts"]["as_published"] and result["trained_on"] == {"people": 3, "images": 18}
    assert result["meshes"]["doubtful"] == {"cut off": 1} and result["meshes"]["estimated_by_this_call"] == 0
    parts = result["runs"]["imagenet"]["1"]
    assert set(parts) == set(bench.PARTS) and set(parts["full"]) == set(bench.PARTS) - {"full"}
    assert all(0 < parts[name]["mAP"] <= 1 for name in bench.PARTS if name != "full")
    assert parts["full"]["texture"]["mAP"] == parts["texture"]["mAP"]  # the toy's people are all tested on anyway
    assert set(result["points_of_mAP"]["imagenet"]) >= {"texture_over_control", "published_over_baseline_full"}
    monkeypatch.setattr(bench, "in_training", None)  # nothing is trained again
    capsys.readouterr()
    assert bench.main() == 0
    assert json.loads(out.read_text())["runs"]["imagenet"]["1"] == parts
    for part in ("full", "published"):  # as where a run of published was cut short
        (runs / "parts" / f"imagenet_1_{part}.json").unlink()
    monkeypatch.setattr(sys, "argv", [*argv, "--parts", "full"])
    assert bench.main() == 0
    assert set(json.loads(out.read_text())["runs"]["imagenet"]["1"]["full"]) == set(bench.PARTS) - {"full", "published"}
    monkeypatch.setattr(sys, "argv", [*argv[:4], "2", *argv[5:]])
    with pytest.raises(SystemExit, match="other images than are asked for"):
        bench.main()
