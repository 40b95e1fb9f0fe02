"""Run folders: what --overwrite removes, who may write, what a resumed run may change, and that they work from anywhere."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

from gcl_fast.cli.main import main
from gcl_fast.config import TrainConfig, from_dict, load_yaml
from gcl_fast.records import Record
from gcl_fast.runs import lock as run_lock
from gcl_fast.runs import resolved
from gcl_fast.runs.folder import read_config, read_resolved
from gcl_fast.runs.lock import RunLock
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.resolved import keep_choices, name_digest
from gcl_fast.runs.resume_command import resume_command, started_otherwise
from gcl_fast.runs.run_files import remove_run
from gcl_fast.runs.same_settings import changed_settings, with_absolute_paths
from gcl_fast.stages.checkpoint import load_checkpoint
from gcl_fast.stages.engine import Engine
from tests.toy_world import SETTINGS, write_toy_world


class Toy:
    """A toy run of stage 1 in `run`, its data in the run folder as `make demo` has them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "runs" / "toy"
        self.root = write_toy_world(self.run / "data", people=3, images=4)
        self.settings = folder / "toy.yaml"
        self.settings.write_text(SETTINGS.replace("epochs: 2, iters: 3", "epochs: 1, iters: 2"))
        self.command = [
            *("train", "--config", str(self.settings), "--root", str(self.root), "--runs", str(self.run.parent)),
            *("--name", "toy", "--threads", "1", "--stage", "1"),
        ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    toy = Toy(tmp_path_factory.mktemp("trained"))
    assert main(toy.command) == 0
    return toy


@pytest.fixture
def toy(trained: Toy, tmp_path: Path) -> Toy:
    """The trained run, copied."""
    shutil.copytree(trained.folder, tmp_path / "copy")
    copy = Toy.__new__(Toy)
    copy.folder = tmp_path / "copy"
    copy.run, copy.settings = copy.folder / "runs" / "toy", copy.folder / "toy.yaml"
    copy.root = copy.run / "data"
    copy.command = [word.replace(str(trained.folder), str(copy.folder)) for word in trained.command]
    return copy


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(command) == 1
    return capsys.readouterr().err


# What --overwrite removes


def test_overwrite_removes_what_the_run_wrote_and_nothing_else(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    mine = [toy.run / name for name in ("notes.txt", "stage1/notes.txt", "pictures/mine.png", "encoder/encoder.safetensors")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    images = sorted(toy.root.rglob("*.jpg"))
    (toy.run / "stage2").mkdir()
    (toy.run / "stage2/last.pt").write_bytes(b"of the run")
    (toy.run / "stage1/.last.123.456.tmp.pt").write_bytes(b"what a killed write left")
    assert main([*toy.command, "--overwrite"]) == 0, capsys.readouterr().err
    assert all(path.read_text() == "mine" for path in mine)
    assert sorted(toy.root.rglob("*.jpg")) == images
    assert not (toy.run / "stage2").exists() and not list(toy.run.glob("stage1/.*"))
    assert "not part of it, and left: data, encoder, notes.txt" in capsys.readouterr().out


def test_a_run_leaves_an_empty_folder_nowhere(toy: Toy) -> None:
    shutil.rmtree(toy.root)
    assert remove_run(toy.run) == [] and not toy.run.exists()


def test_resume_and_overwrite_together_are_refused(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one of them" in refused([*toy.command, "--resume", "--overwrite"], capsys)
    assert (toy.run / "stage1/last.pt").exists()


def test_resume_of_a_run_that_is_not_there_says_so(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*toy.command, "--resume", "--name", "typo", "--root", "/nowhere"]
    assert main(command) == 1
    assert f"nothing to resume: there is no run in {toy.run.parent / 'typo'} yet" in (output := capsys.readouterr().out)
    assert "holds toy" in output


def test_overwrite_does_not_remove_what_the_call_needs(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    last = toy.run / "stage1" / "last.pt"
    content = last.read_bytes()
    for start in (last, toy.run, last.parent):
        assert "which --overwrite would clear" in refused([*toy.command, "--overwrite", "--init", str(start)], capsys)
    stage2 = [*toy.command[:-1], "2", "--overwrite"]
    assert f"stage 2 starts from {last}, which --overwrite would remove" in refused(stage2, capsys)
    shutil.copytree(toy.run / "stage1", toy.run / "stage2")
    assert "stage 3 starts from" in refused([*toy.command[:-1], "3", "--overwrite"], capsys)
    assert last.read_bytes() == content


def test_a_start_that_cannot_be_leaves_nothing_in_the_way(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    command, new = [*toy.command, "--name", "new", "--init"], toy.run.parent / "new"
    photo = next(toy.root.rglob("*.jpg"))
    assert f"{photo} is truncated or no torch checkpoint" in refused([*command, str(photo)], capsys)
    assert f"no checkpoint in {toy.root}" in refused([*command, str(toy.root)], capsys)
    half = toy.folder / "generator.pt"
    torch.save({"modules": {"generator": build_networks(read_config(toy.run)).generator.state_dict()}}, half)
    assert "none of the files holds an identity encoder" in refused([*command, str(half)], capsys)
    assert "stage 3 needs the " in refused([*command, str(toy.run), "--stage", "3"], capsys)
    assert not new.exists()
    assert main([*command, str(toy.run)]) == 0
    assert capsys.readouterr().out.count("tensors mapped onto the encoder") == 1  # read twice, told once


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/elsewhere", "n" * 256, "ä" * 128])
@pytest.mark.parametrize("flags", [[], ["--resume"], ["--dry-run"]])
def test_a_run_has_a_folder_of_its_own(flags: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["train", "--runs", str(tmp_path), "--name", name, *flags], capsys)
    assert message == f"gcl-fast train: --name must be the name of one folder, got {name!r}; --runs DIR says where it lies\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_place_where_no_run_can_be_written_is_refused_before_all_else(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("mine")
    command = ["train", "--root", str(tmp_path / "nowhere"), "--name", "a", *flags]
    assert f"{tmp_path / 'a'} is a file" in refused([*command, "--runs", str(tmp_path)], capsys)
    assert f"{tmp_path / 'a'} is a file" in refused([*command, "--runs", str(tmp_path / "a/b")], capsys)
    assert (tmp_path / "a").read_text() == "mine"
    monkeypatch.setattr("gcl_fast.runs.run_checks.os.access", lambda place, mode: place != tmp_path)
    assert f"{tmp_path} may not be written in" in refused([*command, "--runs", str(tmp_path / "b/c")], capsys)


# One process at a time


def test_a_run_in_use_is_refused_by_name(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    held = RunLock(toy.run)
    try:
        message = refused([*toy.command, "--resume"], capsys)
        assert f"in use by process {os.getpid()} on {socket.gethostname()}" in message and "--name" in message
        assert "in use" in refused([*toy.command, "--overwrite"], capsys)
        assert (toy.run / "stage1/last.pt").exists()
    finally:
        held.release()
    assert main([*toy.command, "--resume"]) == 0
    assert not (toy.run / run_lock.NAME).exists()


# What a resumed run may change


def test_a_moved_data_set_resumes(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    moved = toy.folder / "elsewhere"
    toy.root.rename(moved)
    command = [str(moved) if word == str(toy.root) else word for word in toy.command]
    assert main([*command, "--resume", "--mesh-root", str(moved / "mesh")]) == 0, capsys.readouterr().err
    assert read_config(toy.run).root == str(moved)
    victim = sorted(moved.glob("market1501/bounding_box_train/*.jpg"))[0]
    victim.rename(victim.with_name(victim.name.replace("_00.jpg", "_01.jpg")))
    assert "does not hold the training images that" in refused([*command, "--resume"], capsys)


@pytest.mark.parametrize("flags", [["--resume"], ["--resume", "--dry-run"], ["--overwrite"]])
@pytest.mark.parametrize("keep", [False, True])
def test_a_moved_or_copied_run_is_not_taken_for_the_one_it_was(
    keep: bool, flags: list[str], toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would begin anew in the old place, go on there, or clear it."""
    assert main([*toy.command, "--resume"]) == 0  # its config.yaml names its own folder
    moved = toy.run.with_name("renamed run")
    shutil.copytree(toy.run, moved)
    if not keep:
        shutil.rmtree(toy.run)
    command = ["train", "--config", str(moved / "config.yaml"), "--root", str(moved / "data"), "--stage", "1", *flags]
    place = ["--runs", str(moved.parent), "--name", moved.name]
    assert f"names {toy.run}, where that run was before it was moved" in (message := refused(command, capsys))
    assert shlex.join(place) in message and toy.run.exists() == keep
    for own in (place, ["--name", "another"]):
        assert main([*command, *own]) == 0, capsys.readouterr().err


def test_overwrite_removes_nothing_that_stage_3_would_start_from(toy: Toy, tmp_path: Path, capsys) -> None:
    """The generator is the run's own stage 2's, --init gives an encoder alone."""
    encoder, kept = tmp_path / "encoder.pt", toy.run / "stage2" / "last.pt"
    shutil.copy(toy.run / "stage1" / "last.pt", encoder)
    kept.parent.mkdir()
    shutil.copy(encoder, kept)
    before = sorted(toy.run.rglob("*"))
    command = [*toy.command[:-1], "3", "--init", str(encoder)]
    for flags in (["--overwrite"], ["--overwrite", "--dry-run"]):
        message = refused([*command, *flags], capsys)
        assert "stage 3 needs the discriminator, generator of stage 2" in message and "to be removed by --overwrite" in message
    assert sorted(toy.run.rglob("*")) == before
    for flags in ([], ["--dry-run"]):  # and both say the same of a new run
        message = refused([*command, "--name", "new", *flags], capsys)
        assert "stage 3 needs the discriminator, generator of stage 2" in message and "is missing" in message
    assert not (toy.run.parent / "new").exists()


@pytest.mark.parametrize("flags", [["--overwrite"], ["--name", "new"], ["--name", "new", "--dry-run"]])
def test_what_cannot_be_had_here_is_refused_before_a_folder_is_touched(
    flags: list[str], toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(toy.run.parent.rglob("*"))
    assert "compile 'graphs' needs a CUDA device, got cpu" in refused([*toy.command, *flags, "--compile", "graphs"], capsys)
    assert "step_graph needs a CUDA device, got cpu" in refused([*toy.command, *flags, "--step-graph"], capsys)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "--wandb needs wandb: pip install wandb" in refused([*toy.command, *flags, "--wandb", "people"], capsys)
    assert sorted(toy.run.parent.rglob("*")) == before


def test_start_weights_are_not_asked_for_where_networks_are_loaded(toy: Toy, tmp_path: Path, capsys) -> None:
    gone = ["--model.weights", str(tmp_path / "gone.pt")]
    assert main([*toy.command, "--name", "new", "--init", str(toy.run), *gone]) == 0
    assert main([*toy.command, "--name", "new", "--init", str(toy.run), *gone, "--resume"]) == 0
    assert "nothing was left to train" in capsys.readouterr().out
    assert "gone.pt" in refused([*toy.command, "--name", "other", *gone], capsys)
    assert not (toy.run.parent / "other").exists()


def test_a_run_keeps_which_stages_it_was_started_with(toy: Toy) -> None:
    metrics = json.loads((toy.run / "metrics.json").read_text())
    assert metrics["stages"] == [1] and metrics["with_control"] is False


def test_what_a_killed_write_left_is_removed_by_who_goes_on(toy: Toy) -> None:
    report = toy.run / ".report.123.456.tmp.html"  # another command may be at it
    left = [toy.run / name for name in ("stage1/.last.123.456.tmp.pt", ".metrics.123.456.tmp.json")]
    for path in (report, *left):
        path.write_bytes(b"half a file")
    assert main([*toy.command, "--resume"]) == 0
    assert report.exists() and not any(path.exists() for path in left)


def test_images_without_meshes_may_be_left_out_after_stage_1(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    min(toy.root.glob("mesh/market/train/vertices/*.npz")).unlink()
    command = [*toy.command[:-1], "all", "--resume"]
    assert "give --skip-unmeshed to leave their images out" in refused(command, capsys)
    assert main([*command, "--skip-unmeshed"]) == 0, capsys.readouterr().err
    assert (toy.run / "stage3/last.pt").exists()


def test_a_stage_goes_on_with_its_images_alone(toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    def stop(engine: Engine, seconds: float) -> None:
        save(engine, seconds)
        raise KeyboardInterrupt

    save, command = Engine.save, [*toy.command[:-1], "2", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "save", stop)
        assert main(command)
    min(toy.root.rglob("bounding_box_train/*.jpg")).write_bytes(b"")
    error = refused([*command, "--skip-broken"], capsys)
    assert str(toy.run / "stage2/last.pt") in error and "does not fit the training images of now" in error


def test_other_settings_are_named_with_both_values(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused([*toy.command, "--resume", "--stage1.lr", "0.5", "--seed", "9"], capsys)
    assert "seed 1 -> 9, stage1.lr 0.00035 -> 0.5" in message
    assert "epochs" not in message


def told_command(message: str) -> list[str]:
    """The command of this package that a message holds, without the program's name."""
    return shlex.split(message.split("`")[1])[1:]


def test_a_refused_resume_tells_the_command_that_goes_on(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(["train", "--runs", str(toy.run.parent), "--name", "toy", "--resume"], capsys)
    assert "stage1.epochs 1 -> 50" in message and "goes on with its own, --overwrite removes" in message
    settings, run = toy.run / "config.yaml", ["--runs", str(toy.run.parent), "--name", "toy"]  # the folder was copied
    assert told_command(message) == ["train", "--config", str(settings), *run, "--stage", "1", "--resume"]
    stated = settings.read_text()
    settings.write_text(stated.replace(f"runs: {load_yaml(settings).runs}", f"runs: {toy.run.parent}"))
    assert settings.read_text() != stated
    shutil.rmtree(toy.root / "mesh")
    for flags in ([], ["--dry-run"]):
        command = ["train", "--config", str(settings), "--root", str(toy.root), "--resume"]
        message = refused([*command, *flags], capsys)
        assert "need a mesh of the body" in message and f"{toy.run} was started with --stage 1: `gcl-fast train" in message
    assert told_command(message) == ["train", "--config", str(settings), "--stage", "1", "--resume"]
    settings.write_text(settings.read_text().replace(f"root: {load_yaml(settings).root}", f"root: {toy.run}/gone", 1))
    message = refused(command, capsys)  # the data are where --root says
    assert told_command(message) == ["train", "--config", str(settings), "--root", str(toy.root), "--stage", "1", "--resume"]
    assert main(told_command(message)) == 0
    assert "nothing was left to train: --stage 1 is finished" in capsys.readouterr().out


def test_the_stages_of_a_run_are_told_where_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    config = TrainConfig(runs=str(tmp_path.parent), name=tmp_path.name)
    for stages, flag in (([], "N"), ([1, 2, 3], "all"), ([2], "2"), ([2, 3], "N")):
        (tmp_path / "metrics.json").write_text(json.dumps({"stages": stages}))
        assert resume_command(config).endswith(f" --stage {flag} --resume")
    (tmp_path / "metrics.json").write_text(json.dumps({"stages": [1, 2, 3], "with_control": True}))
    assert resume_command(config).endswith(" --stage all --control --resume")
    (tmp_path / "metrics.json").unlink()  # as runs of earlier versions
    assert started_otherwise(config, (1,)) == ""
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1/last.pt").write_bytes(b"")
    assert started_otherwise(config, (1,)) == "" and "with --stage 1: " in started_otherwise(config, (1, 2, 3))
    (tmp_path / "config.yaml").unlink()
    assert resume_command(config) == started_otherwise(config, (2,)) == ""


def test_a_lost_configuration_is_read_from_a_checkpoint(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    (toy.run / "config.yaml").unlink()
    assert "already holds a run" in refused(toy.command, capsys)
    assert "stage1.lr 0.00035 -> 0.5" in refused([*toy.command, "--resume", "--stage1.lr", "0.5"], capsys)
    assert main([*toy.command, "--resume"]) == 0
    assert "config.yaml is missing: the settings are taken from" in capsys.readouterr().out
    assert (toy.run / "config.yaml").exists()


# What auto became


def test_what_auto_became_is_written_down(trained: Toy) -> None:
    written = read_resolved(trained.run)
    expected = {"device": "cpu", "precision": "fp32", "loader": "cached", "compile": "off", "channels_last": "off"}
    assert expected.items() <= written.items()
    assert written["threads"] == 1 and written["images"] == 12
    assert json.loads((trained.run / "metrics.json").read_text())["resolved"] == written
    page = (trained.run / "report.html").read_text()
    assert "Precision</th><td>fp32<" in page and "Image loader</th><td>cached<" in page
    assert load_yaml(trained.run / "config.yaml") == read_config(trained.run)  # may be given to --config


def test_auto_is_shown_and_kept_where_it_would_be_another(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.settings.write_text(toy.settings.read_text().replace("precision: fp32", "precision: auto"))
    bf16: list[bool] = [False]
    for module in (resolved, sys.modules["gcl_fast.runs.dataset"]):
        monkeypatch.setattr(module, "use_bfloat16", lambda choice, _: choice == "bf16" or (choice == "auto" and bf16[0]))
    assert main([*toy.command, "--overwrite"]) == 0
    assert "device cpu  precision fp32  loader cached  meshes none  channels_last off  compile off" in capsys.readouterr().out
    bf16[0] = True
    assert main([*toy.command, "--resume"]) == 0
    assert "precision: bf16 would be chosen here, the run keeps its fp32" in capsys.readouterr().out
    assert read_resolved(toy.run)["precision"] == "fp32"
    assert main([*toy.command, "--resume", "--precision", "fp32"]) == 0  # the same, by name
    assert "precision fp32 -> bf16" in refused([*toy.command, "--resume", "--precision", "bf16"], capsys)


def test_a_loader_that_cannot_be_had_here_is_replaced(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcl_fast.data.loaders import reader

    monkeypatch.setattr(reader, "may_take", lambda device: 0)
    assert main([*toy.command, "--resume"]) == 0
    assert "the run's cached cannot be used here" in capsys.readouterr().out
    assert read_resolved(toy.run)["loader"] in ("dali", "torch")


def test_images_are_told_apart_by_name_person_and_camera(tmp_path: Path) -> None:
    def digest(root: Path, name: str = "a.jpg", pid: int = 1, camera: int = 0) -> str:
        return name_digest([Record(root / name, pid, camera), Record(root / "z.jpg", 2, 1)], root)

    one = digest(tmp_path)
    assert digest(tmp_path / "moved") == one
    assert len({one, digest(tmp_path, "b.jpg"), digest(tmp_path, pid=3), digest(tmp_path, camera=4)}) == 4


def test_choices_are_kept_only_where_auto_was_left() -> None:
    config = from_dict(TrainConfig, {"device": "cpu", "precision": "bf16"})
    kept = keep_choices(config, {"precision": "fp32", "channels_last": "on", "loader": "torch", "meshes": "none"})
    assert (kept.precision, kept.channels_last, kept.loader, kept.meshes) == ("bf16", "on", "torch", "auto")
    if not torch.cuda.is_available():
        assert keep_choices(TrainConfig(), {"device": "cuda"}).device == "auto"


# From anywhere


def test_a_run_started_with_relative_paths_works_from_another_folder(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy.folder)
    command = ["train", "--config", "toy.yaml", "--runs", "runs", "--name", "near", "--stage", "1", "--root", "runs/toy/data"]
    assert main([*command, "--init", "runs/toy"]) == 0
    assert f"{Path('runs/toy/stage1/last.pt')}: " in capsys.readouterr().out
    near = toy.folder / "runs" / "near"
    assert load_yaml(near / "config.yaml").root == load_checkpoint(near / "stage1/last.pt")["config"]["root"] == str(toy.root)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["evaluate", str(near)]) == 0
    monkeypatch.chdir(toy.folder)
    assert main([*command, "--init", "runs/toy", "--resume"]) == 0


def test_the_home_folder_is_spelt_out_and_a_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for weights, kept in (("imagenet", "imagenet"), ("none", "none"), ("~/w.pt", str(tmp_path / "w.pt"))):
        config = with_absolute_paths(
            from_dict(TrainConfig, {"root": "~/data", "init": "~/a.pt, b.pt", "model": {"weights": weights}})
        )
        assert config.root == str(tmp_path / "data") and config.model.weights == kept
        assert config.init == f"{tmp_path / 'a.pt'},{Path.cwd() / 'b.pt'}"


def test_paths_may_be_written_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = from_dict(TrainConfig, {"init": "a.pt,b.pt", "model": {"weights": "w.pth"}})
    two = from_dict(TrainConfig, {"init": f"{tmp_path}/a.pt, ./b.pt", "model": {"weights": str(tmp_path / "w.pth")}})
    assert changed_settings(one, two) == []
    assert with_absolute_paths(TrainConfig()).model.weights == "none"
    assert changed_settings(one, from_dict(TrainConfig, {"init": "c.pt", "model": {"weights": "w.pth"}})) == [
        f"init {tmp_path}/a.pt,{tmp_path}/b.pt -> {tmp_path}/c.pt"
    ]


def test_sigterm_ends_a_run_with_a_checkpoint(
    toy: Toy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gcl_fast.stages.warmup.cluster_contrast import ClusterContrastStage

    step = ClusterContrastStage.step

    def terminated(stage: ClusterContrastStage, batch: object, iteration: int) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(stage, batch, iteration)

    with monkeypatch.context() as planted:
        planted.setattr(ClusterContrastStage, "step", terminated)
        assert main([*toy.command, "--overwrite"]) == 128 + signal.SIGTERM
    assert "--resume goes on" in capsys.readouterr().err
    assert load_checkpoint(toy.run / "stage1/last.pt")["iteration"] == 1
    assert not (toy.run / run_lock.NAME).exists()
    assert main([*toy.command, "--resume"]) == 0
    assert load_checkpoint(toy.run / "stage1/last.pt")["iteration"] == 2


def test_damaged_small_files_say_what_to_do(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = toy.run / "metrics.json"
    metrics.write_text(metrics.read_text()[:40])
    message = refused([*toy.command, "--resume"], capsys)
    assert "metrics.json is damaged" in message and "delete it, and --resume writes it anew" in message
    assert not (toy.run / run_lock.NAME).exists()
    metrics.unlink()
    config = toy.run / "config.yaml"
    config.write_text(config.read_text()[:200] + ": [")
    assert "config.yaml is not valid YAML" in (message := refused([*toy.command, "--resume"], capsys)) and "delete it" in message
    config.unlink()
    assert main([*toy.command, "--resume"]) == 0
    assert {"untrained", "stage1", "resolved"} <= json.loads(metrics.read_text()).keys()
