"""Stage 1 by each method through the command line at toy size: it learns, survives a kill, and stages 2 and 3 go on from it."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import torch

from gcl_fast.cli.main import main
from gcl_fast.data.datasets.camstyle import one_view, several_views, with_camstyle
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.records import Record
from gcl_fast.stages.checkpoint import load_checkpoint
from tests.test_end_to_end import _equal, _kill_inside
from tests.threads import threads
from tests.toy_world import SETTINGS, write_toy_world

pytest.importorskip("tyro", reason="the command line needs tyro")
pytest.importorskip("torchvision", reason="the backbones need torchvision")

WARMUPS = """,
  mlc: {epochs: 3, batch_size: 8, lr: 0.05, lr_steps: [2], single_label_epochs: 1, min_neighbors: 3},
  jvtc: {epochs: 3, batch_size: 16, lr: 0.02, lr_steps: [2], global_from: 1, label_every: 1, temporal_from: 2, smooth_bins: 2,
    candidates: 12, cluster: {k1: 6, k2: 2, eps: 0.3, rho: null, min_samples: 1}}
"""


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "toy.yaml"
    before, after = SETTINGS.split("\nstage2:")
    path.write_text(before.removesuffix("}") + WARMUPS.rstrip() + "}\nstage2:" + after)
    return path


def train(settings, root, runs, *more):
    return ["train", "--config", str(settings), "--root", str(root), "--runs", str(runs), *more]


def add_camstyle(root, *, only=None):
    """Styled copies beside bounding_box_train for every image (or the named ones), brighter by the camera."""
    from PIL import Image

    train_folder = root / "market1501" / "bounding_box_train"
    folder = train_folder.parent / "bounding_box_train_camstyle"
    folder.mkdir()
    for path in sorted(train_folder.iterdir()):
        if only is None or path.stem in only:
            own = int(path.stem.split("_c")[1][0])
            for other in (1, 2, 3):
                if other != own:
                    pixels = np.asarray(Image.open(path)).astype(np.int64) + 10 * other
                    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{path.stem}_fake_{own}to{other}.jpg")
    return folder


@pytest.mark.parametrize(("method", "variant"), [("mlc", "mlc"), ("mlc", "act"), ("jvtc", "jvtc"), ("cluster-contrast", "act")])
def test_all_stages_from_each_method_and_variant(tmp_path, settings, method, variant, capsys):
    root = write_toy_world(tmp_path / "data")
    command = train(
        settings,
        root,
        tmp_path / "runs",
        "--name",
        "run",
        "--stage",
        "all",
        "--method",
        method,
        "--control",
        "--model.variant",
        variant,
        "--stage3.epochs",
        "1",
    )
    assert main(command) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"untrained", "stage1", "stage3", "control"} <= metrics.keys()
    joint, control = (load_checkpoint(run / stage / "last.pt") for stage in ("stage3", "control"))
    assert joint["iteration"] == control["iteration"] == 3
    width = 512 if variant == "jvtc" else 64  # of the toy's backbone
    assert joint["extra"]["memory"]["features"].shape == (24, width)
    assert joint["config"]["stage1"]["method"] == method
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    names = {name for line in history if line["stage"] == "stage1" for name in line}
    expected = {
        "mlc": {"positive", "negative", "labels", "total"},
        "jvtc": {"local", "global", "visual_clusters", "clusters"},
        "cluster-contrast": {"contrast", "clusters"},
    }[method]
    assert expected <= names


@pytest.mark.parametrize("memory", ["hard", "mean"])
def test_cluster_memories(tmp_path, settings, memory, capsys):
    root = write_toy_world(tmp_path / "data")
    command = train(settings, root, tmp_path / "runs", "--stage", "1")
    states = []
    for choice in ("each", memory):
        assert main([*command, "--name", choice, "--stage1.memory", choice]) == 0, capsys.readouterr().err
        states.append(load_checkpoint(tmp_path / "runs" / choice / "stage1" / "last.pt")["extra"]["centroids"])
    assert states[0].shape != states[1].shape or not torch.equal(*states)


@pytest.mark.parametrize("method", ["mlc", "jvtc"])
def test_killed_runs_reach_the_same_weights(tmp_path, settings, method):
    root = write_toy_world(tmp_path / "data")
    add_camstyle(root)
    with threads(1):  # as the child process
        options = ("--stage", "1", "--method", method, "--stage1.eval-every", "3")
        assert main(train(settings, root, tmp_path / "runs", "--name", "whole", *options)) == 0
        command = train(settings, root, tmp_path / "runs", "--name", "killed", "--resume", *options)
        _kill_inside(command, tmp_path / "runs" / "killed", "stage1", 4)
        assert main(command) == 0
    whole, resumed = (load_checkpoint(tmp_path / "runs" / name / "stage1" / "last.pt") for name in ("whole", "killed"))
    for part in ("modules", "optimizers", "extra", "iteration", "epoch", "best"):
        _equal(whole[part], resumed[part], part)


@pytest.mark.parametrize("method", ["mlc", "jvtc"])
def test_the_loss_falls_while_the_task_stays_the_same(tmp_path, settings, method):
    """One class an image, or the local loss alone. (What it does for mAP is measured at demo size: at toy size an untrained
    network already tells plain colours apart.)"""
    root = write_toy_world(tmp_path / "data")
    changes = {
        "mlc": ["--stage1.mlc.epochs", "8", "--stage1.mlc.single-label-epochs", "8", "--stage1.mlc.lr-steps", "7"],
        "jvtc": ["--stage1.jvtc.epochs", "4", "--stage1.jvtc.global-from", "9", "--stage1.jvtc.temporal-from", "9"],
    }[method]
    assert (
        main(
            train(
                settings,
                root,
                tmp_path / "runs",
                "--stage",
                "1",
                "--method",
                method,
                "--name",
                "run",
                *changes,
                "--stage1.eval-every",
                "10",
                "--stage1.augment.erase",
                "0",
                "--stage1.augment.pad",
                "0",
            )
        )
        == 0
    )
    history = [json.loads(line) for line in (tmp_path / "runs" / "run" / "history.jsonl").read_text().splitlines()]
    losses = [line["total"] for line in history if line["stage"] == "stage1" and "total" in line]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), losses


def test_jvtc_without_frame_numbers_says_so_before_training(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    folder = root / "market1501" / "bounding_box_train"
    for path in sorted(folder.iterdir())[:2]:
        path.rename(folder / f"{path.stem.split('s1')[0]}_x{path.stem[-9:-3]}.jpg")
    command = train(settings, root, tmp_path / "runs", "--stage", "1", "--method", "jvtc")
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "2 of 24 training images" in error and "frame" in error and "stage1.jvtc.temporal_from" in error
    assert main([*command, "--overwrite", "--stage1.jvtc.temporal-from", "4"]) == 0  # of 3 epochs


def test_one_cluster_is_explained(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    command = train(settings, root, tmp_path / "runs", "--stage", "1", "--method", "jvtc", "--stage1.jvtc.cluster.eps", "1.0")
    assert main(command) == 1
    assert "one cluster" in capsys.readouterr().err


# camera-styled images


def test_camstyle_images_are_found_and_shown(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    add_camstyle(root)
    records = load_dataset("market1501", root).train
    styled = with_camstyle(records, root)
    assert styled.num_styled == 48 and styled.count.tolist() == [2] * 24
    for row, record in enumerate(styled.records[24:], start=24):
        original = records[styled.owner[row]]
        assert record.path.name.startswith(original.path.stem + f"_fake_{original.camera + 1}to{record.camera + 1}")
    assert with_camstyle(records, root, use=False).records == records
    for flags in (["--dry-run"], []):
        assert main([*train(settings, root, tmp_path / "runs", "--stage", "1", "--method", "mlc"), *flags]) == 0
        assert re.findall(r".*camera-styled.*", capsys.readouterr().out) == ["48 camera-styled images"]
    plan = load_checkpoint(tmp_path / "runs" / "run" / "stage1" / "last.pt")
    assert plan["extra"]["bank"].shape[0] == 24  # a row an image, not a copy


def test_views_are_versions_of_their_image(tmp_path):
    root = write_toy_world(tmp_path / "data")
    records = load_dataset("market1501", root).train
    add_camstyle(root, only={r.path.stem for r in records[:12]})
    styled = with_camstyle(records, root)
    images, rng = np.array([0, 3, 3, 20]), np.random.default_rng(0)
    seen = {i: set() for i in range(4)}
    for _ in range(50):
        chosen = one_view(styled, images, rng)
        assert styled.owner[chosen].tolist() == images.tolist()
        for i, row in enumerate(chosen.tolist()):
            seen[i].add(row)
        several = several_views(styled, images, 4, rng)
        assert (styled.owner[several] == images[:, None]).all()
        assert [len(set(row)) for row in several.tolist()] == [3, 3, 3, 1]
        assert all(len(set(row[:3])) == 3 for row in several[:3].tolist())  # no repetition while there are others
    assert [len(seen[i]) for i in range(4)] == [3, 3, 3, 1]
    twice = several_views(styled, images[:3], 6, rng)
    assert all(Counter(row).most_common()[0][1] == 2 for row in twice.tolist())  # none a third time before all came twice


def test_msmt17_names_and_wrong_names(tmp_path):
    folder = tmp_path / "msmt17" / "MSMT17_V1"
    (folder / "train" / "0001").mkdir(parents=True)
    styled_folder = folder / "bounding_box_train_camstyle"
    styled_folder.mkdir()
    name = "0001_000_02_0303noon_0606_2"
    for camera in (1, 2, 5, 10):
        (styled_folder / f"{name}_fake_{camera}.jpg").touch()
    records = [Record(folder / "train" / "0001" / f"{name}.jpg", 0, 1, 606)]
    styled = with_camstyle(records, tmp_path)
    assert [r.camera for r in styled.records[1:]] == [0, 4, 9]  # its own camera's is no other style
    (styled_folder / "odd.jpg").touch()
    with pytest.raises(ValueError, match=r"odd\.jpg.*_fake_"):
        with_camstyle(records, tmp_path)
    assert with_camstyle(records, folder / "train").records == records  # nothing is looked for above the data set


def test_broken_camstyle_images_are_named(tmp_path, settings, capsys):
    root = write_toy_world(tmp_path / "data")
    victim = sorted(add_camstyle(root).iterdir())[5]
    victim.write_bytes(b"no picture")
    assert main(train(settings, root, tmp_path / "runs", "--stage", "1", "--method", "jvtc")) == 1
    assert victim.name in capsys.readouterr().err
