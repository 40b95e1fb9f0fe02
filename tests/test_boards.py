"""What TensorBoard and Weights & Biases are shown of a run, and progress where there is no terminal."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gcl_fast import progress
from gcl_fast.config import TrainConfig, from_dict, to_dict
from gcl_fast.errors import FileError, MissingPackageError
from gcl_fast.runs import live_page
from gcl_fast.runs.lock import RunLock
from gcl_fast.runs.training import Training, train
from gcl_fast.runs.work_ahead import COSTS, batches_after, work_of
from gcl_fast.stages.boards import TensorBoard, WandB, flat
from gcl_fast.stages.epoch_progress import EpochProgress
from gcl_fast.stages.log import RunLog
from tests.toy_world import SETTINGS, write_toy_world


class FakeWandB(ModuleType):
    """Remembers what the package wandb would be told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str | None]] = []
        self.summary: dict[str, float] = {}
        self.finished = 0
        self.Image = lambda image: ("image", image.shape)

    def init(self, **options: Any) -> SimpleNamespace:
        self.started.append(options)
        return SimpleNamespace(
            define_metric=lambda name, step_metric=None: self.metrics.append((name, step_metric)),
            log=self.logged.append,
            summary=self.summary,
            finish=lambda: setattr(self, "finished", self.finished + 1),
        )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FakeWandB]:
    """A toy run of all stages with both boards."""
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("tensorboard")
    folder, wandb = tmp_path_factory.mktemp("boards"), FakeWandB()
    root = write_toy_world(folder / "world")
    values = {**yaml.safe_load(SETTINGS), "tensorboard": True, "wandb": "people"}
    config = from_dict(TrainConfig, {**values, "root": str(root), "runs": str(folder), "name": "toy"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", wandb)
        return train(config), wandb


def test_tensorboard_has_rates_speed_pictures_settings_and_scores(shown: tuple[Path, FakeWandB]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(shown[0] / "events"))
    events.Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    assert {"stage1/images_per_second", "stage2/images_per_second", "stage3/images_per_second"} <= scalars
    rates = {"stage1/lr/encoder", "stage2/lr/generator", "stage2/lr/discriminator"}
    rates |= {f"stage3/lr/{name}" for name in ("encoder", "generator", "discriminator")}
    assert rates <= scalars
    assert [e.value for e in events.Scalars("stage2/lr/generator")] == pytest.approx([TrainConfig().stage2.lr])
    assert {"stage1/ranked_lists", "stage3/ranked_lists", "stage3/train"} <= set(tags["images"])
    assert [event.step for event in events.Images("stage3/ranked_lists")] == [5]  # the last iteration
    words = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"] if "configuration" in tag}
    assert len(words) == 1 and "    dataset: market1501\n" in next(iter(words.values()))
    assert "scores/stage3/mAP" in scalars and "scores/untrained/mAP" in scalars


def test_wandb_is_told_the_same_through_its_own_package(shown: tuple[Path, FakeWandB]) -> None:
    run_dir, wandb = shown
    (options,) = wandb.started
    assert options["project"] == "people" and options["name"] == "toy" and options["resume"] == "allow" and options["id"]
    assert options["config"]["stage1.batch_size"] == 8 and wandb.finished == 1
    assert ("stage2/*", "stage2/iteration") in wandb.metrics
    names = set().union(*wandb.logged)
    assert {"stage1/contrast", "stage2/total", "stage3/mAP", "stage3/lr/encoder", "stage3/ranked_lists"} <= names
    assert wandb.summary["stage3/mAP"] >= 0
    from gcl_fast.runs.folder import read_metrics

    assert read_metrics(run_dir)["wandb"] == options["id"]  # a resumed run goes on with it


def test_a_run_that_goes_on_is_the_same_on_wandb(shown: tuple[Path, FakeWandB], monkeypatch: pytest.MonkeyPatch) -> None:
    from gcl_fast.runs.folder import read_config

    run_dir, wandb = shown
    monkeypatch.setitem(sys.modules, "wandb", again := FakeWandB())
    Training(read_config(run_dir), (1,), resume=True, overwrite=False).close()
    assert [options["id"] for options in again.started] == [options["id"] for options in wandb.started]


def test_wandb_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackageError, match="--wandb needs wandb: pip install wandb"):
        WandB("people", tmp_path, "1", {})


def test_settings_are_flat_numbers_and_text() -> None:
    values = flat(to_dict(TrainConfig()))
    assert values["stage1.cluster.eps"] == TrainConfig().stage1.cluster.eps
    assert values["mesh_root"] == "None" and values["yaws"] == str(list(TrainConfig().yaws))


def test_names_that_are_not_utf_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    name = os.fsdecode(b"caf\xe9")
    RunLog(tmp_path / name).close()
    assert "history.jsonl alone: TensorBoard's writer takes paths in UTF-8 alone, got '" in capsys.readouterr().err
    log = RunLog(tmp_path / "run")
    log.results({"root": name}, {"stage1/mAP": 0.5})
    log.close()


def test_events_that_cannot_be_written_name_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    board = TensorBoard(tmp_path / "events")
    for name in ("add_scalar", "add_image", "close"):
        monkeypatch.setattr(board.writer, name, full)
    for call in (
        lambda: board.scalars("stage1", 0, {"loss": 1.0}),
        lambda: board.picture("stage1/p", np.zeros((2, 2, 3), np.uint8), 0),
        board.close,
    ):
        with pytest.raises(FileError, match=r"cannot write .*events: No space left on device .* make room"):
            call()


def test_a_board_that_cannot_be_closed_does_not_keep_the_run(tmp_path: Path) -> None:
    def close() -> None:
        raise FileError("full")

    training = Training.__new__(Training)
    training.log, training.lock = SimpleNamespace(close=close), RunLock(tmp_path / "run")
    with pytest.raises(FileError, match="full"):
        training.close()
    RunLock(tmp_path / "run").release()


def test_the_live_page_is_written_when_training_paid_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now, written = [0.0], []

    def write(run_dir: Path, *, live: bool) -> None:
        assert run_dir == tmp_path and live
        written.append(now[0])
        now[0] += 2.0  # what it takes

    monkeypatch.setattr(live_page, "write_report", write)
    monkeypatch.setattr(live_page.time, "perf_counter", lambda: now[0])
    page = live_page.LivePage(tmp_path)
    for epoch in range(10):
        page.after_epoch(60.0)
        assert len(written) == (1 if epoch < 4 else 2 if epoch < 8 else 3)  # 2 seconds in 200 and more
    monkeypatch.setattr(live_page, "write_report", lambda *_, **__: (_ for _ in ()).throw(MissingPackageError("no jinja2")))
    page.after_epoch(1e6)  # no reason to end a training
    assert page.broken


def test_the_run_s_end_counts_the_stages_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    config = from_dict(TrainConfig, {"stage1": {"epochs": 2, "iters": 10, "batch_size": 8, "num_instances": 4}})
    config = from_dict(
        TrainConfig, {"stage2": {"epochs": 1, "batch_size": 4}, "stage3": {"epochs": 1, "batch_size": 4}}, base=config
    )
    assert work_of(config, 1, 100).images == 160 and work_of(config, 2, 100).iterations == 25
    large, small = COSTS["resnet50"], COSTS["resnet18"]
    assert batches_after(config, 3, (1, 2, 3), 100) == (0, 0)
    known = (large[2] + large[3]) * 100 / 8
    assert batches_after(config, 1, (1, 2, 3), 100) == pytest.approx((known, known))
    assert batches_after(config, 3, (3,), 100, control=True)[1] == pytest.approx(large[1] * 25 * 8 / (large[3] * 4))
    unknown = (small[2] + small[3]) * 100 / 8  # what a GPU makes of it is not known: all that has been measured
    assert batches_after(config, 1, (1, 2, 3), 100, on_cpu=False) == pytest.approx((known, unknown))
    assert batches_after(config, 2, (1, 2, 3), 100, on_cpu=False)[0] == pytest.approx(25, rel=0.1)  # stage 2 tells enough
    now = [0.0]
    monkeypatch.setattr("gcl_fast.stages.epoch_progress.time.perf_counter", lambda: now[0])
    shown = EpochProgress("stage1", 10, 0, 20, torch.device("cpu"), batches_later=(100, 100))
    now[0] = 1.0
    shown.update(None, 8)
    assert "stage ends in 0:19, the run in about 1:59" in shown.text
    between = EpochProgress("stage1", 10, 0, 20, torch.device("cpu"), batches_later=(40, 100))
    now[0] = 2.0
    between.update(None, 8)
    assert "stage ends in 0:19, the run in 0:59 to 1:59" in between.text
    alone = EpochProgress("stage3", 10, 0, 20, torch.device("cpu"))
    now[0] = 3.0
    alone.update(None, 8)
    assert "stage ends in 0:19 " in alone.text and "the run" not in alone.text


def test_long_work_says_a_line_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.counting("evaluate") as count:
        for done in range(1, 101):
            now[0] += 1.0
            count(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evaluate  20/100  1:20 left" and len(lines) == 4
    with progress.counting("quick") as count:
        count(1, 2)
    assert not capsys.readouterr().err
