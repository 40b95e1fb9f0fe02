"""What a run starts from and hands to its stages, what it keeps when it goes on, and what only the first process writes."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast import distributed
from gcl_fast.config import TrainConfig, from_dict, to_dict
from gcl_fast.data.loaders import reader
from gcl_fast.errors import (
    CheckpointError,
    ConfigError,
    GclError,
    MissingMeshesError,
    MissingPackageError,
    RunError,
    StageError,
    TooLittleMemoryError,
)
from gcl_fast.runs import run_pictures, training
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.dry_run import dry_run
from gcl_fast.runs.folder import read_metrics, read_resolved, stage_checkpoint, write_config, write_metrics
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.stage_start import load_start
from gcl_fast.runs.training import Training, train
from gcl_fast.stages.checkpoint import load_checkpoint, load_trained, save_checkpoint
from gcl_fast.stages.engine import Engine
from tests.toy_world import SETTINGS, write_toy_world
from tests.weights import equal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_world(tmp_path_factory.mktemp("world") / "data", people=3, images=4)


def settings(root: Path, runs: Path, **changes: Any) -> TrainConfig:
    """A toy run: 2 updates in stage 1, 6 in stage 3."""
    values = yaml.safe_load(SETTINGS) | {"root": str(root), "runs": str(runs)}
    values["stage1"] |= {"epochs": 1, "iters": 2}
    return from_dict(TrainConfig, changes, base=from_dict(TrainConfig, values))


def begun(config: TrainConfig, stages: tuple[int, ...] = (1,), **options: bool) -> Training:
    """A run at its start, its folder free for the next."""
    run = Training(config, stages, **{"resume": False, "overwrite": False, **options})
    run.close()
    return run


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]], int]:
    """A run of all stages with the control run: its folder, what each stage's engine was told and started from, how many
    encoders took synchronised batch norm."""
    told: dict[str, dict[str, Any]] = {}
    synced: list[object] = []
    engine, sync = training.Engine, distributed.sync_batch_norm

    def watched(stage: Any, *args: Any, **options: Any) -> Any:
        weights = {name: value.clone() for name, value in stage.encoder.state_dict().items()}
        told[stage.name] = {**options, "finished_epochs": getattr(stage, "first_epoch", 0), "weights": weights}
        return engine(stage, *args, **options)

    changes = {"checkpoint_every": 2, "log_every": 3, "picture_every": 4, "sync_bn": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Engine", watched)
        patch.setattr(distributed, "sync_batch_norm", lambda *args: synced.append(args) or sync(*args))
        run = train(settings(root, tmp_path_factory.mktemp("runs"), **changes), control=True)
    return run, told, len(synced)


def test_each_stage_is_saved_logged_and_pictured_as_often_as_asked(whole) -> None:
    _, told, _ = whole
    assert told.keys() == {"stage1", "stage2", "stage3", "control"}
    for options in told.values():
        assert (options["checkpoint_every"], options["log_every"], options["picture_every"]) == (2, 3, 4)


def test_the_page_is_renewed_after_each_epoch(whole) -> None:
    pytest.importorskip("jinja2", reason="the page needs it")
    assert all(options["after_epoch"] is not None for options in whole[1].values())


def test_the_control_run_makes_as_many_updates_as_stage_3(whole) -> None:
    run, _, _ = whole
    updates = {stage: load_trained(stage_checkpoint(run, stage))["iteration"] for stage in ("stage1", "stage3", "control")}
    assert updates == {"stage1": 2, "stage3": 6, "control": 6}


def test_the_control_run_goes_on_from_stage_1(whole) -> None:
    run, told, _ = whole
    finished, control = load_trained(stage_checkpoint(run, "stage1")), told["control"]
    assert control["finished_epochs"] == finished["epoch"] == 1
    assert equal(finished["modules"]["encoder"], control["weights"])


def test_every_stage_that_trains_the_encoder_synchronises_its_batch_norm(whole) -> None:
    assert whole[2] == 3  # stages 1 and 3, and the control run; stage 2 holds it still


def test_a_run_keeps_that_it_was_started_with_a_control_run(whole) -> None:
    metrics = read_metrics(whole[0])
    assert metrics["stages"] == [1, 2, 3] and metrics["with_control"] is True


def test_training_leaves_the_caller_its_threads(root: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(settings(root, tmp_path, threads=before + 1), (1,))
    assert torch.get_num_threads() == before


# What a run starts from


def test_the_start_weights_are_scored_and_trained_and_then_not_asked_for(root: Path, tmp_path: Path, monkeypatch) -> None:
    weights, scored, stages = tmp_path / "start.pt", [], []
    start = build_networks(settings(root, tmp_path, seed=9)).encoder.state_dict()
    torch.save(start, weights)

    def score(self: OpenedDataset, encoder: torch.nn.Module) -> dict[str, float]:
        scored.append({name: value.clone() for name, value in encoder.state_dict().items()})
        return {"mAP": 0.5}

    monkeypatch.setattr(OpenedDataset, "score", score)
    monkeypatch.setattr(Training, "_train", lambda self, stage: stages.append(stage.encoder.state_dict()))
    config = settings(root, tmp_path, model={"weights": str(weights)})
    begun(config).run()
    assert len(scored) == len(stages) == 1
    for state in (*scored, *stages):
        assert equal(state, start)
    monkeypatch.undo()
    train(config, (1,), overwrite=True)
    weights.unlink()
    train(config, (1,), resume=True)
    train(config, (2,), resume=True)  # begins, from stage 1


def test_what_init_names_is_scored_as_the_start(whole, root: Path, tmp_path: Path, monkeypatch) -> None:
    """Not a network of random weights; where stage 1 has gone on and the score is lost, there is none."""
    given, scored = stage_checkpoint(whole[0], "stage3"), []
    monkeypatch.setattr(OpenedDataset, "score", lambda _, encoder: scored.append(encoder.state_dict()) or {"mAP": 0.5})
    config = settings(root, tmp_path, init=str(given))
    begun(config).untrained()
    (state,) = scored
    assert equal(load_trained(given)["modules"]["encoder"], state)
    (config.run_dir / "metrics.json").unlink()
    shutil.copytree(whole[0] / "stage1", config.run_dir / "stage1")
    begun(config, resume=True).untrained()
    assert len(scored) == 1 and "untrained" not in read_metrics(config.run_dir)


def test_the_fresh_encoder_is_scored_once(root: Path, tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(OpenedDataset, "score", lambda *_: calls.append("scored") or {"mAP": 0.5})
    for resume in (False, True):
        begun(settings(root, tmp_path), resume=resume).untrained()
    assert calls == ["scored"]


def test_a_run_that_goes_on_does_not_ask_for_what_it_was_started_from(whole, root: Path, tmp_path: Path) -> None:
    given = shutil.copy(stage_checkpoint(whole[0], "stage1"), tmp_path / "given.pt")
    config = settings(root, tmp_path, init=str(given))
    train(config, (1,))
    Path(given).unlink()
    train(config, (1,), resume=True)


@pytest.mark.parametrize("calls", [[(1, 2)], [(1,), (2,)]])
def test_only_the_first_stage_of_a_run_starts_from_what_was_given(calls, whole, root: Path, tmp_path: Path, capsys) -> None:
    """Also where each stage has a call of its own, which has to keep --init: else what the call before it trained was lost."""
    config = settings(root, tmp_path, init=f"{whole[0] / 'stage3'}")
    for stages in calls:
        run = train(config, stages, resume=True)
    first, second = (load_trained(stage_checkpoint(run, f"stage{stage}"))["modules"] for stage in (1, 2))
    assert equal(first["encoder"], second["encoder"])  # stage 2 holds it still
    assert ("starts from what stage 1 of this run left" in capsys.readouterr().out) == (len(calls) == 2)
    third = vars(begun(config, (3,), resume=True)._networks(3))
    for name, weights in second.items():
        assert equal(weights, third[name].state_dict())


def test_stage_2_does_not_pass_over_a_stage_1_that_is_not_finished(whole, root: Path, tmp_path: Path, capsys) -> None:
    """Else stage 2 would start from --init again; --overwrite removes that stage 1."""
    given = stage_checkpoint(whole[0], "stage3")
    config = settings(root, tmp_path, init=str(given))
    unfinished = {"stage": "stage1", "epoch": 0, "config": to_dict(config), "modules": {}}
    save_checkpoint(stage_checkpoint(config.run_dir, "stage1"), unfinished)
    with pytest.raises(RunError, match=r"stage 1 of this run, which is not finished \(0 of 1 epoch\)"):
        begun(config, (2,), resume=True)
    for start in (dry_run, begun):
        start(config, (2,), overwrite=True)
        assert f"starts from {given} (--init)" in capsys.readouterr().out


def test_stage_3_starts_from_all_that_stage_2_trains(whole, root: Path, tmp_path: Path) -> None:
    """A network that the file lacks would be trained from random weights, unsaid."""
    config = settings(root, tmp_path)
    content = load_checkpoint(stage_checkpoint(whole[0], "stage2"))
    del content["modules"]["generator"]
    save_checkpoint(path := stage_checkpoint(config.run_dir, "stage2"), content)
    with pytest.raises(CheckpointError, match=f"{path} holds no generator"):
        load_start(build_networks(config), config, (3,), 3)


# What is refused before a folder is touched


@pytest.mark.parametrize("start", [train, dry_run])
@pytest.mark.parametrize("stages", [(1, 2, 3), (1,)])
def test_no_stage_is_trained_after_one_that_did_not_start_from_it(stages, start, whole, root: Path, tmp_path: Path) -> None:
    """Hours of a stage 1 that stage 2 knows nothing of; one that has lost its checkpoint is trained anew."""
    config = settings(root, tmp_path, init=str(stage_checkpoint(whole[0], "stage1")))
    train(config, (2,))
    words = (
        "stage 1 is not part of .*, whose stage 2 was started without it: --stage 2 --resume and then --stage 3 --resume go on"
    )
    with pytest.raises(RunError, match=words):
        start(config, stages, resume=True)
    assert not stage_checkpoint(config.run_dir, "stage1").exists()
    write_metrics(config.run_dir, {"times": {"stage1": 1.0}})
    start(config, (1,), resume=True)


def test_a_stage_that_has_begun_does_not_ask_for_the_one_before(whole, root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path, sync_bn=True)  # as that run was
    shutil.copytree(whole[0] / "stage3", config.run_dir / "stage3")
    train(config, (3,), resume=True)
    with pytest.raises(RunError, match="stage 3 starts from the networks of stage 2"):
        train(config, (3,), overwrite=True)


def test_a_dry_run_refuses_what_the_run_would(whole, root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path)
    train(config, (1,))
    other = replace(config, root=str(write_toy_world(tmp_path / "other", people=2)))
    for start in (train, dry_run):
        with pytest.raises(RunError, match="--control needs stages 1 and 3 of this run, and .* is missing"):
            start(config, (1,), resume=True, control=True)
        with pytest.raises(RunError, match="does not hold the training images that .* was started on"):
            start(other, (1,), resume=True)


@pytest.mark.parametrize("start", [train, dry_run])
def test_jvtc_without_frame_numbers_is_refused_before_a_run_folder_is_made(start, root: Path, tmp_path: Path) -> None:
    photos = sorted(root.rglob("bounding_box_train/*.jpg"))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.csv").write_text("\n".join(["path", *map(str, photos)]))
    values = {"dataset": "csv", "root": str(tmp_path / "lists"), "stage1": {"method": "jvtc"}}
    config = from_dict(TrainConfig, values, base=settings(root, tmp_path))
    config = replace(config, stage1=replace(config.stage1, jvtc=replace(config.stage1.jvtc, cluster=config.stage1.cluster)))
    with pytest.raises(StageError, match="needs frame numbers"):
        start(config, (1,))
    assert not config.run_dir.exists()


def test_a_control_run_that_stage_1_has_other_images_for_is_refused_before_training(root: Path, tmp_path: Path) -> None:
    """Its memory has a row for each: that would be known after stage 3."""
    world = shutil.copytree(root, tmp_path / "data")
    config = settings(world, tmp_path / "runs", stage1={"method": "mlc", "mlc": {"epochs": 1, "iters": 1, "batch_size": 4}})
    train(config, (1,))
    next(world.glob("mesh/market/train/vertices/0001*.npz")).unlink()
    config = replace(config, skip_unmeshed=True)
    for start in (train, dry_run):
        with pytest.raises(
            RunError, match="--control goes on with stage 1 .* does not fit the training images .* leave --control out"
        ):
            start(config, (1, 2, 3), resume=True, control=True)
    assert not stage_checkpoint(config.run_dir, "stage2").exists()
    begun(config, (1, 2, 3), resume=True)
    begun(config, (1, 2, 3), overwrite=True, control=True)


def test_a_batch_that_the_processes_cannot_share_is_refused_at_the_start(root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(distributed, "from_first", lambda make: make())
    with pytest.raises(ConfigError, match=r"stage1\.batch_size.*multiple of 3"):
        begun(settings(root, tmp_path))
    assert not list(tmp_path.iterdir())


def test_views_that_were_never_rendered_end_a_run_before_stage_1(root: Path, tmp_path: Path) -> None:
    """Of the rendered folders only each photo's own view is read to see whether it can guide."""
    world = tmp_path / "data"
    shutil.copytree(root, world)
    for split, folder in (("train", "bounding_box_train"), ("test", "query"), ("test", "bounding_box_test")):
        shutil.copytree(world / "market1501" / folder, world / "mesh/market" / split / "render", dirs_exist_ok=True)
    with pytest.raises(GclError, match="rendered pictures exist only in the views render of"):
        begun(settings(world, tmp_path / "runs", meshes="rendered"), (1, 2))


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_meshes_that_are_missed_lead_back_to_stage_1_where_the_run_goes_on(how: str, root: Path, tmp_path: Path) -> None:
    world = tmp_path / "data"
    shutil.copytree(root / "market1501", world / "market1501")
    config = settings(world, tmp_path / "runs")
    begun(config)
    with pytest.raises(MissingMeshesError) as error:
        begun(config, (1, 2), **{how: True})
    assert ("was started with --stage 1" in str(error.value)) == (how == "resume")


# What a run keeps when it goes on


def test_a_run_that_goes_on_keeps_its_threads(root: Path, tmp_path: Path, monkeypatch) -> None:
    config, given = settings(root, tmp_path), []
    begun(replace(config, threads=1))
    monkeypatch.setattr(training, "choose_threads", lambda setting, before: given.append((setting, before["threads"])))
    begun(config, resume=True)
    assert given == [(0, 1)]


def test_a_run_of_stage_1_alone_forgets_no_meshes(root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path)
    begun(config, (1, 2))
    begun(config, (1,), resume=True)
    assert read_resolved(config.run_dir)["meshes"] == read_metrics(config.run_dir)["resolved"]["meshes"] == "vertices"


def test_meshes_may_be_named_after_a_run_of_stage_1_alone(root: Path, tmp_path: Path) -> None:
    """Which asked for none: none is no kind that the run has to keep."""
    config = settings(root, tmp_path)
    train(config, (1,))
    begun(replace(config, meshes="vertices"), (2,), resume=True)
    assert read_resolved(config.run_dir)["meshes"] == "vertices"
    with pytest.raises(RunError, match="meshes vertices -> rendered"):
        begun(replace(config, meshes="rendered"), (2,), resume=True)


def test_a_run_whose_loader_cannot_be_had_here_keeps_its_meshes(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    config = settings(root, tmp_path)
    begun(config, (1, 2))
    capsys.readouterr()
    monkeypatch.setattr(reader, "may_take", lambda device: 0)
    dry_run(config, (1, 2), resume=True)
    words = capsys.readouterr().out
    assert "the run's cached cannot be used here" in words and "  loader cached  " not in words and "in all about" in words
    assert begun(config, (1, 2), resume=True).dataset.train_meshes is not None
    assert "the run's cached cannot be used here" in capsys.readouterr().out


@pytest.mark.parametrize("start", [train, dry_run])
def test_a_loader_that_was_asked_for_and_cannot_be_had_is_an_error(start, root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    with pytest.raises(MissingPackageError, match="DALI"):
        start(settings(root, tmp_path, loader="dali"), (1,))
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_dry_run_says_what_it_could_not_measure(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Clusters of made-up features that fail say little of the run; what the run would meet too is an error."""

    def measure(config: TrainConfig, stage: int) -> None:
        raise StageError("found 0 clusters")

    monkeypatch.setattr("gcl_fast.runs.dry_run.measure", measure)
    dry_run(settings(root, tmp_path), (1,))
    words = capsys.readouterr().out
    assert "time and memory not measured: found 0 clusters\nnote: that was with features made up" in words
    assert "in all: not known" in words

    def refuse(config: TrainConfig, stage: int) -> None:
        raise TooLittleMemoryError("too little")

    monkeypatch.setattr("gcl_fast.runs.dry_run.measure", refuse)
    with pytest.raises(TooLittleMemoryError):
        dry_run(settings(root, tmp_path), (1,))


def test_a_run_that_is_begun_anew_is_of_its_own_images(root: Path, tmp_path: Path) -> None:
    other = write_toy_world(tmp_path / "other", people=4, images=4)
    begun(settings(root, tmp_path / "runs"))
    config = settings(other, tmp_path / "runs")
    begun(config, overwrite=True)
    assert read_resolved(config.run_dir)["images"] == 16


def test_pictures_are_of_a_finished_stage(root: Path, tmp_path: Path, monkeypatch) -> None:
    """Else a call for another stage, between a kill and what goes on, would leave those of half a training for good."""

    def stop(engine: Engine, seconds: float) -> None:
        save(engine, seconds)
        raise KeyboardInterrupt

    save, config = Engine.save, settings(root, tmp_path)
    train(config, (1, 2))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "save", stop)
        train(config, (3,), resume=True)
    picture = train(config, (2,), resume=True) / "pictures" / "stage3_ranked_lists.png"
    assert not picture.exists()
    train(config, (3,), resume=True)
    content = picture.read_bytes()
    picture.write_bytes(b"of another training")
    train(config, (3,), resume=True)
    assert picture.read_bytes() == b"of another training"  # nothing was trained: nothing is made again
    shutil.rmtree(config.run_dir / "stage3")  # as errors of damaged checkpoints advise
    train(config, (3,), resume=True)
    assert picture.read_bytes() == content


@pytest.mark.parametrize("method", ["cluster-contrast", "mlc"])
def test_more_epochs_in_the_file_of_a_run_are_trained(method: str, root: Path, tmp_path: Path) -> None:
    """The settings say how long stage 1 is, not the checkpoint."""
    runs = {}
    for name in ("grown", "whole"):
        first, then = (
            settings(root, tmp_path, name=name, stage1={"method": method, "epochs": n, "mlc": {"epochs": n, "iters": 2}})
            for n in (1, 2)
        )
        if name == "grown":
            train(first, (1,))
            write_config(first.run_dir, then, {})
        runs[name] = load_checkpoint(stage_checkpoint(train(then, (1,), resume=name == "grown"), "stage1"))
    assert runs["grown"]["epoch"] == 2
    grown, whole_run = (runs[name]["modules"]["encoder"] for name in ("grown", "whole"))
    assert equal(grown, whole_run)


@pytest.mark.parametrize("method", ["cluster-contrast", "mlc"])
def test_a_weight_decay_edited_in_the_file_of_a_run_applies(method: str, root: Path, tmp_path: Path) -> None:
    """As every other setting there; what the optimiser has gathered goes on."""

    def decaying(by: float) -> TrainConfig:
        mlc = {"epochs": 2, "iters": 2, "weight_decay": by}
        return settings(root, tmp_path, stage1={"method": method, "epochs": 2, "weight_decay": by, "mlc": mlc})

    run_dir = train(decaying(0.0), (1,))
    state = load_checkpoint(stage_checkpoint(run_dir, "stage1"))
    save_checkpoint(stage_checkpoint(run_dir, "stage1"), state | {"epoch": 1})
    write_config(run_dir, decaying(0.25), {})
    train(decaying(0.25), (1,), resume=True)
    before, after = (s["optimizers"]["encoder"] for s in (state, load_checkpoint(stage_checkpoint(run_dir, "stage1"))))
    assert {group["weight_decay"] for group in after["param_groups"]} == {0.25}
    if method == "cluster-contrast":
        assert all(after["state"][key]["step"] > kept["step"] for key, kept in before["state"].items())


def test_scores_of_a_run_are_by_one_rule(root: Path, tmp_path: Path) -> None:
    """They stand beside each other, and choose best.pt."""
    config = settings(root, tmp_path)
    write_config(config.run_dir, config, {})
    other = replace(config, same_camera=True)
    write_metrics(config.run_dir, {"stage1": {"mAP": 0.5}})
    with pytest.raises(RunError, match="with other settings: same_camera False -> True;"):
        begun(other, resume=True)
    (config.run_dir / "metrics.json").unlink()  # as of data without a query that can be scored
    begun(other, resume=True)


def test_the_total_time_holds_that_of_earlier_calls(root: Path, tmp_path: Path) -> None:
    config = settings(root, tmp_path)
    begun(config)
    write_metrics(config.run_dir, {"seconds": 5000.0})
    begun(config, resume=True).count_seconds()
    assert read_metrics(config.run_dir)["seconds"] >= 5000


def test_a_sheet_of_novel_views_that_a_kill_left_out_is_made(whole, root: Path, tmp_path: Path, monkeypatch) -> None:
    """It is written after the scores, which stand in metrics.json by then."""
    world, run, made = shutil.copytree(root, tmp_path / "data"), tmp_path / "run", []
    (world / "truth").mkdir()
    (world / "truth/index.csv").write_text("")
    shutil.copytree(whole[0], run)
    write_metrics(run, {stage: {"novel_view_psnr": 20.0} for stage in ("stage2", "stage3")})
    (run / "pictures/stage2_novel_views.png").write_bytes(b"")
    monkeypatch.setattr(run_pictures, "score_generator", lambda *given: made.append(given[3]))
    dataset = OpenedDataset(settings(world, tmp_path), with_meshes=True)
    run_pictures.score_generators(run, dataset)
    assert made == ["stage3"]


# What the first process writes


def test_the_first_process_alone_records_scores(tmp_path: Path, monkeypatch, capsys) -> None:
    run = Training.__new__(Training)
    run.run_dir = tmp_path
    for first, written in ((False, []), (True, ["metrics.json"])):
        monkeypatch.setattr(distributed, "first", lambda first=first: first)
        run._record_scores("stage1", {"mAP": 0.25, "score": 0.25})
        assert [path.name for path in tmp_path.iterdir()] == written
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"stage1": {"mAP": 0.25}}
    assert capsys.readouterr().out == "stage1: mAP 25.0%\n"
