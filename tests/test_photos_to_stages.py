"""The whole way on photos alone: pose model, bodies, three stages. The only tests that need the pose model's weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl_fast.cli.main import main
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import ProgramError
from gcl_fast.estimation import BlazePose, pose_weights
from gcl_fast.images import load_photo, pillow
from gcl_fast.meshes import open_mesh_source
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import read_mesh
from gcl_fast.ops import render_mesh
from tests.toy_world import SETTINGS, SIZE

pytest.importorskip("anny", reason="bodies are anny's")


@pytest.fixture(scope="module")
def weights() -> Path:
    """Fetched once into the user's cache."""
    try:
        return pose_weights("download")
    except ProgramError as error:
        pytest.skip(f"no network to fetch the pose model from: {error}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic photos with their true meshes and true views beside."""
    root = tmp_path_factory.mktemp("photos") / "data"
    sizes = ["--train-ids", "4", "--test-ids", "2", "--images-per-id", "4", "--height", "128", "--width", "64", "--seed", "5"]
    assert main(["synth", str(root), *sizes]) == 0
    (root / "mesh").rename(root / "true_mesh")
    return root


@pytest.fixture(scope="module")
def estimated(world: Path, weights: Path) -> Path:
    flags = ["--weights", str(weights), "--height", str(SIZE[0]), "--width", str(SIZE[1])]
    assert main(["estimate-meshes", "--root", str(world), *flags, "--preview", str(world / "sheet.png")]) == 0
    return world


def test_a_photo_and_its_mirror_image_agree(world: Path, weights: Path) -> None:
    photos = [load_photo(record.path) for record in load_dataset("market1501", world).train[:4]]
    pose = BlazePose(weights, mirror=True)
    seen, mirrored = pose.estimate(photos), pose.estimate([np.ascontiguousarray(photo[:, ::-1]) for photo in photos])
    assert seen.score.min() > 0.9 and seen.masks is not None and seen.masks[0].shape == (128, 64)
    left, right = [11, 23, 25, 27], [12, 24, 26, 28]
    back = mirrored.points[:, right] * torch.tensor((-1.0, 1.0))
    assert (seen.points[:, left] - back).abs().max() < 1e-4
    alone = pose.estimate(photos[:1])
    torch.testing.assert_close(alone.points, seen.points[:1], atol=1e-4, rtol=1e-4)


def test_estimated_bodies_are_nearer_the_true_ones_than_a_mean_body(estimated: Path) -> None:
    data = load_dataset("market1501", estimated)
    true = open_mesh_source(estimated / "true_mesh", "market1501", "train", SIZE)
    own = open_mesh_source(estimated / "mesh", "market1501", "train", SIZE)
    folder = estimated / "true_mesh" / "market" / "train" / "vertices"
    mean = mean_body([read_mesh(folder / f"{record.path.stem}.npz") for record in data.train], SIZE)
    verts, camera = torch.from_numpy(mean.vertices)[None], torch.from_numpy(mean.camera)[None]
    flat = render_mesh(verts, true.body(data.train[0])[1], camera, [0, 90], SIZE)[0, :, 0] > 0  # type: ignore[union-attr]

    def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a & b).sum((1, 2)) / (a | b).sum((1, 2))

    pairs = [(true.render(record, [0, 90]) > 0, own.render(record, [0, 90]) > 0) for record in data.train]
    ours = torch.stack([overlap(a, b) for a, b in pairs]).mean(0)
    means = torch.stack([overlap(a, flat) for a, _ in pairs]).mean(0)
    assert (ours > means + 0.08).all(), (ours, means)
    with pillow().open(estimated / "sheet.png") as sheet:
        assert sheet.width > 8 * SIZE[1]


def test_all_stages_train_on_photos_alone(estimated: Path, tmp_path: Path) -> None:
    """Views made with estimated bodies come nearly as near to the truth as with true ones (bench/estimate.py --views: by how
    much, on more people)."""
    config = tmp_path / "c.yaml"
    config.write_text(SETTINGS + f"root: {estimated}\nruns: {tmp_path / 'runs'}\n")
    flags = ["train", "--config", str(config), "--model.guide", "texture", "--stage1.epochs", "1", "--stage3.epochs", "1"]
    flags += ["--stage2.loss.foreground", "1", "--stage3.loss.foreground", "1"]
    assert main([*flags, "--name", "photos"]) == 0
    run = tmp_path / "runs" / "photos"
    stage1 = ["--init", str(run / "stage1" / "last.pt"), "--stage", "2"]
    assert main([*flags, *stage1, "--name", "truth", "--mesh-root", str(estimated / "true_mesh")]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"stage1", "stage3"} <= set(metrics)
    true = json.loads((run.parent / "truth" / "metrics.json").read_text())["stage2"]["novel_view_psnr"]
    assert true > 8
    for stage in ("stage2", "stage3"):
        assert metrics[stage]["novel_view_psnr"] > true - 2, (stage, metrics[stage], true)
    for stage in (1, 2, 3):
        assert (run / f"stage{stage}" / "last.pt").is_file()
    for picture in ("stage2_train.png", "stage3_test.png"):  # views drawn with the estimated bodies
        assert (run / "pictures" / picture).is_file()
