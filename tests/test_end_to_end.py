"""Whole runs at toy size through the command line: all stages, all layouts, kills, and what must stop a run at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import gcl_fast
from gcl_fast.cli.main import main
from gcl_fast.config import to_dict
from gcl_fast.config.yaml_files import load_yaml
from gcl_fast.constants import LEARNING_ENCODER, NOVEL_YAWS
from gcl_fast.runs.dataset import OpenedDataset
from gcl_fast.runs.folder import read_metrics, write_metrics
from gcl_fast.runs.networks import build_networks
from gcl_fast.runs.training import Training
from gcl_fast.stages.checkpoint import load_checkpoint, save_checkpoint
from tests.threads import threads
from tests.toy_world import SETTINGS, write_toy_world

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("torchvision", reason="the backbones need torchvision")


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(SETTINGS)
    return path


def train(settings, root, runs, *more):
    return ["train", "--config", str(settings), "--root", str(root), "--runs", str(runs), *more]


@pytest.mark.parametrize("layout", ["market1501", "dukemtmc", "msmt17"])
def test_all_stages_in_each_layout(tmp_path, settings, layout, capsys):
    root = write_toy_world(tmp_path / "data", layout)
    command = train(settings, root, tmp_path / "runs", "--dataset", layout, "--name", layout, "--stage", "all", "--control")
    averaged = layout == "market1501"
    command += ["--stage3.average-encoder", "0.5"] * averaged
    assert main(command) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / layout
    metrics = json.loads((run / "metrics.json").read_text())
    for stage in ("untrained", "stage1", "stage3", "control"):
        assert 0 <= metrics[stage]["mAP"] <= 1 and 0 <= metrics[stage]["rank1"] <= 1
    assert metrics["seconds"] > 0
    joint, control = (load_checkpoint(run / stage / "last.pt") for stage in ("stage3", "control"))
    assert joint["iteration"] == control["iteration"] == 6
    learning = {LEARNING_ENCODER} if averaged else set()
    assert "memory" in joint["extra"] and set(joint["modules"]) == {"encoder", "generator", "discriminator"} | learning
    assert set(control["modules"]) == {"encoder"} | learning
    encoder = gcl_fast.load_encoder(run, device="cpu").network.state_dict()
    assert all(torch.equal(value, joint["modules"]["encoder"][name]) for name, value in encoder.items())
    for picture in ("stage2_train.png", "stage2_test.png", "stage3_train.png", "stage1_ranked_lists.png"):
        assert (run / "pictures" / picture).stat().st_size > 0
    assert "stage3" in (run / "report.html").read_text()
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    names = {name for line in history if line["stage"] == "stage3" for name in line}
    losses = "adv_nv adv_mix image_rec code_cyc mem_self mem_class mem_real id id_mix dis_penalty"
    assert set(losses.split()) <= names
    assert main(["evaluate", str(run), "--rerank", "--output", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["plain"]["mAP"] == pytest.approx(metrics["stage3"]["mAP"], abs=1e-6) and "reranked" in scores
    for what in ("reconstruction", "novel", "mix"):
        out = tmp_path / what
        assert main(["generate", str(run), "--what", what, "--num", "2", "--out", str(out), "--angles", "30", "315"]) == 0
        assert (out / f"{what}.png").stat().st_size > 0


def test_evaluate_lays_the_encoder_out_as_the_run_did(tmp_path, settings, monkeypatch):
    """In bfloat16 another memory layout rounds otherwise, and a rank may differ."""
    root, seen = write_toy_world(tmp_path / "data"), []
    layout = ["--channels-last", "on", "--precision", "bf16"]
    assert main(train(settings, root, tmp_path / "runs", "--name", "run", "--stage", "1", *layout)) == 0
    score = OpenedDataset.score

    def watched(dataset: OpenedDataset, encoder: torch.nn.Module, **options: bool) -> dict[str, float]:
        seen.append(encoder.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last))
        return score(dataset, encoder, **options)

    monkeypatch.setattr(OpenedDataset, "score", watched)
    assert main(["evaluate", str(tmp_path / "runs/run"), "--output", str(tmp_path / "scores.json")]) == 0
    told = json.loads((tmp_path / "runs/run/metrics.json").read_text())["stage1"]
    assert seen == [True] and json.loads((tmp_path / "scores.json").read_text())["plain"] == told


def test_the_total_time_holds_the_stages_of_calls_that_were_killed(tmp_path):
    training = object.__new__(Training)
    training.run_dir, training.seconds_before, training.began = tmp_path, 1.0, time.perf_counter()
    write_metrics(tmp_path, {"times": {"stage1": 50.5, "stage2": 20.0}})
    training.count_seconds()
    assert read_metrics(tmp_path)["seconds"] == 70.5


def test_pictures_of_a_data_set_without_query_images_are_of_training_images(tmp_path, capsys):
    world = write_toy_world(tmp_path / "data")
    photos, out = world / "market1501/bounding_box_train", tmp_path / "out"
    shutil.copytree(world / "mesh/market/train", photos / "mesh/folder/train")
    (tmp_path / "toy.yaml").write_text(SETTINGS)
    config = load_yaml(tmp_path / "toy.yaml")
    networks = build_networks(config)
    modules = {name: getattr(networks, name).state_dict() for name in ("encoder", "generator", "discriminator")}
    checkpoint = tmp_path / "last.pt"
    save_checkpoint(checkpoint, {"stage": "stage2", "config": to_dict(config), "modules": modules})

    def generate(dataset, root, *more):
        where = ["--dataset", dataset, "--root", str(root), "--num", "2", "--out", str(out)]
        code = main(["generate", str(checkpoint), *where, *more])
        printed = capsys.readouterr()
        return code, printed.out if code == 0 else printed.err.splitlines()[-1]

    code, words = generate("folder", photos)
    assert code == 0 and "of training images: the data set has no query images" in words
    people = {path.name[:4] for path in (out / "novel").iterdir()}
    assert people and people <= {f"{pid:04d}" for pid in range(1, 5)}
    code, words = generate("folder", photos, "--split", "train")
    assert code == 0 and "no query" not in words
    for split in ("query", "gallery"):
        code, words = generate("folder", photos, "--split", split)
        assert code == 1 and f"the data set has no {split} images: --split train draws from those of training" in words
    code, words = generate("market1501", world)
    assert code == 0 and "training" not in words
    shutil.rmtree(world / "mesh/market/test")
    code, words = generate("market1501", world)
    assert code == 1 and "no meshes for the query images" in words and "--split train draws from" in words


def _last(run, stage):
    path = run / stage / "last.pt"
    return load_checkpoint(path) if path.exists() else None


def _kill_inside(command, run, stage, iteration):
    """Start the command in its own process and SIGKILL it once `stage` has passed `iteration`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gcl_fast", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    try:
        while process.poll() is None and time.monotonic() < deadline:
            state = _last(run, stage)
            if state is not None and state["iteration"] >= iteration:
                break
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    state = _last(run, stage)
    assert state is not None and state["iteration"] >= iteration, "the run never got there"


def _equal(one, two, where=""):
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            _equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for i, pair in enumerate(zip(one, two, strict=True)):
            _equal(*pair, f"{where}[{i}]")
    else:
        assert one == two, where


def test_killed_runs_reach_the_same_weights(tmp_path, settings):
    """SIGKILL in stage 1 and again in stage 3; weights, optimisers, bank and labels end bit-identical."""
    root = write_toy_world(tmp_path / "data")
    with threads(1):  # as the child processes
        assert main(train(settings, root, tmp_path / "runs", "--name", "whole")) == 0
        killed = tmp_path / "runs" / "killed"
        command = train(settings, root, tmp_path / "runs", "--name", "killed", "--resume")
        _kill_inside(command, killed, "stage1", 2)
        _kill_inside(command, killed, "stage3", 4)
        assert main(command) == 0
    for stage in ("stage1", "stage2", "stage3"):
        whole, resumed = (load_checkpoint(tmp_path / "runs" / name / stage / "last.pt") for name in ("whole", "killed"))
        for part in ("modules", "optimizers", "extra", "iteration", "epoch", "best"):
            _equal(whole[part], resumed[part], f"{stage}.{part}")
    metrics = [json.loads((tmp_path / "runs" / name / "metrics.json").read_text()) for name in ("whole", "killed")]
    assert metrics[0]["stage3"] == metrics[1]["stage3"]


def test_a_generator_guided_by_the_photos_pixels(tmp_path, settings, capsys):
    """Stages 2 and 3 and the pictures after them; rendered folders, and variance without a guide, are refused before training."""
    root = write_toy_world(tmp_path / "data")
    shares = [f"--stage3.variance.{name}=0.5" for name in ("background", "colour", "occluder", "crop")]
    command = train(settings, root, tmp_path / "runs", "--model.guide", "texture", *shares)
    assert main(command) == 0
    run = tmp_path / "runs" / "run"
    assert load_checkpoint(run / "stage3" / "last.pt")["config"]["model"]["guide"] == "texture"
    for what in ("novel", "reconstruction", "mix"):
        assert main(["generate", str(run), "--what", what, "--num", "2", "--out", str(tmp_path / "out")]) == 0
        assert (tmp_path / "out" / f"{what}.png").is_file()
    photo = next((root / "market1501/query").glob("*.jpg")).relative_to(root).as_posix()  # stands for its own true views
    (root / "truth").mkdir()
    (root / "truth/index.csv").write_text(
        "source,yaw,image,background\n" + f"{photo},0,{photo},{photo}\n{photo},90,{photo},{photo}\n"
    )
    scores, novel = tmp_path / "scores.json", (tmp_path / "out/novel.png").read_bytes()
    turned = ["generate", str(run), "--num", "1", "--out", str(tmp_path / "out"), "--turntable"]
    assert main([*turned, "--scores", str(scores)]) == 0
    assert (tmp_path / "out/turntable.gif").is_file() and (tmp_path / "out/novel.png").read_bytes() == novel
    assert main([*turned, "--what", "novel"]) == 0 and (tmp_path / "out/novel.png").read_bytes() != novel
    facts = json.loads(scores.read_text())
    assert 0 < facts["carried_pixels_psnr"] < 100 and "carried_pixels_psnr_body" in facts
    assert facts["source_image_psnr"] == 100 and facts["novel_view_psnr_body_per_yaw"].keys() == {"90"}
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main(train(settings, root, tmp_path / "runs", "--name", "other", *shares))
    assert "stage3.variance" in " ".join("".join(capsys.readouterr()).split())
    shutil.rmtree(root / "mesh")
    for view in ("render", *(f"render_{yaw}" for yaw in NOVEL_YAWS)):
        for split, folder in (("train", "bounding_box_train"), ("test", "query"), ("test", "bounding_box_test")):
            (root / "mesh/market" / split / view).mkdir(parents=True, exist_ok=True)
            for image in (root / "market1501" / folder).iterdir():
                shutil.copy(image, root / "mesh/market" / split / view / image.name)
    assert main(train(settings, root, tmp_path / "runs", "--name", "rendered", "--model.guide", "texture")) == 1
    assert "use --model.guide mesh" in capsys.readouterr().err
    assert not (tmp_path / "runs/rendered").exists()


def test_broken_images_are_named_before_training(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    victim = sorted((root / "market1501" / "bounding_box_train").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:200])
    assert main(train(settings, root, tmp_path / "runs", "--stage", "1")) == 1
    assert victim.name in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(train(settings, root, tmp_path / "runs", "--stage", "1", "--skip-broken")) == 0


def test_a_missing_mesh_is_named_before_training(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    victim = sorted((root / "mesh" / "market" / "train" / "vertices").glob("*.npz"))[2]
    victim.unlink()
    assert main(train(settings, root, tmp_path / "runs")) == 1
    assert victim.stem in capsys.readouterr().err


def test_run_folders_are_not_overwritten_by_accident(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    command = train(settings, root, tmp_path / "runs", "--stage", "1")
    assert main(command) == 0
    assert main(command) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--stage1.lr", "0.5"]) == 1
    assert "stage1" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_stages_say_what_they_need(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    assert main(train(settings, root, tmp_path / "runs", "--stage", "2")) == 1
    assert "--init" in capsys.readouterr().err
    assert main(train(settings, root, tmp_path / "runs", "--stage", "3", "--overwrite")) == 1
    assert "stage 2" in capsys.readouterr().err


def test_clusters_that_cannot_train_are_explained(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    command = train(settings, root, tmp_path / "runs", "--stage", "1", "--stage1.cluster.min-samples", "12")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "0 clusters" in error and "stage1.cluster.eps" in error


def test_command_line_errors(capsys):
    assert main([]) == 2
    assert main(["trian"]) == 2 and "no command 'trian'" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert main(["train", "--dataset", "market1501", "--root", "/nowhere/at/all"]) == 1
    assert "/nowhere/at/all" in capsys.readouterr().err
    assert main(["doctor"]) == 0 and "kernels" in capsys.readouterr().out
