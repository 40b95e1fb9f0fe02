"""Each example runs as a user runs it, on input that takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.toy_world import ellipsoid, write_toy_world

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
Image = pytest.importorskip("PIL.Image", reason="photos are read by Pillow")


def run(example: str, *arguments: object, cwd: Path) -> str:
    path = os.pathsep.join(filter(None, [str(EXAMPLES.parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'run("{example.name}"' in text, example.name
        source = example.read_text()
        assert source.startswith('"""') and f"python examples/{example.name}" in source  # a command line to copy


def test_training_on_photos_then_their_features(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="the backbones need torchvision")
    pytest.importorskip("yaml", reason="a run writes its settings as YAML")
    photos = write_toy_world(tmp_path / "world") / "market1501/bounding_box_train"
    printed = run("train_on_my_photos.py", photos, "--out", "runs/mine", "--small", cwd=tmp_path)
    assert "features of 24 photos" in printed and (tmp_path / "runs/mine/stage1/last.pt").is_file()
    trained = np.load(tmp_path / "runs/mine/features.npz")
    printed = run("extract_features.py", "runs/mine", photos, "--neighbors", 2, "--device", "cpu", cwd=tmp_path)
    assert "24 photos, 64 numbers each: features.npz" in printed
    extracted = np.load(tmp_path / "features.npz")
    assert extracted["features"].shape == (24, 64) and np.allclose(np.linalg.norm(extracted["features"], axis=1), 1, atol=1e-5)
    assert [Path(p).name for p in extracted["paths"]] == [Path(p).name for p in trained["paths"]]
    np.testing.assert_allclose(extracted["features"], trained["features"], rtol=0, atol=1e-5)  # of one encoder


def test_memory_losses_fall(tmp_path: Path) -> None:
    lines = run("memory_loss_in_your_loop.py", "--steps", 60, cwd=tmp_path).splitlines()
    first, last = ([float(part.split()[-1]) for part in line.split(": ", 1)[1].split(", ")] for line in (lines[0], lines[-2]))
    assert all(after < before for before, after in zip(first, last, strict=True))
    assert lines[-1].startswith("nearest neighbour is the same person")


def test_a_mesh_is_drawn_and_finds_back(tmp_path: Path) -> None:
    vertices, faces = ellipsoid()
    lines = [f"v {x} {-y} {-z}" for x, y, z in vertices] + ["f " + " ".join(str(i + 1) for i in face) for face in faces]
    (tmp_path / "body.obj").write_text("\n".join(lines) + "\n")
    printed = run("rasterize_a_mesh.py", "--mesh", "body.obj", "--size", 64, 48, "--out", "body.png", cwd=tmp_path).splitlines()
    errors = [float(line.split("error ")[1].split(",")[0]) for line in printed[-2:]]
    assert errors[1] < errors[0] / 100
    picture = np.array(Image.open(tmp_path / "body.png"))
    assert picture.shape == (64, 5 * 48, 3) and picture.max() > 128 and picture[0, 0].max() == 0
