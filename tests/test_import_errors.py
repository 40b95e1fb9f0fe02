"""Bad estimates and images without one: named, left out or given the mean body."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.meshes import open_mesh_source
from gcl_fast.meshes.importing.estimates import read_estimates
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.ops.camera import turn
from gcl_fast.records import Record, ReIDData
from tests.estimate_cases import FACES, STEM, VERTICES, H, W, pixels, smpl_in, some, unmeshed_world
from tests.test_convert import MakesFolder
from tests.toy_world import SIZE


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return unmeshed_world(tmp_path)


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory) -> Path:
    return smpl_in(tmp_path_factory.mktemp("smpl"))


def test_images_without_a_mesh_are_listed_left_out_or_given_the_mean(world, tmp_path):
    folder = some(world, tmp_path / "out", 3)
    np.savez(folder / "nobody.npz", vertices=VERTICES, faces=FACES, camera=np.array([1.0, 0, 0]))
    with pytest.raises(FileNotFoundError, match=r"9 images without a mesh: 0002_c1s1"):
        import_meshes(load_dataset("market1501", world), [folder], image_size=SIZE)
    done: list[tuple[int, int]] = []
    report = import_meshes(
        load_dataset("market1501", world), [folder], image_size=SIZE, missing="leave-out", progress=lambda *now: done.append(now)
    )
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert len(report.written) == 3 and len(report.missing) == 9 and len(report.unknown) == 1 and "nobody" in str(report)
    report = import_meshes(load_dataset("market1501", world), [folder], image_size=SIZE, missing="mean")
    assert len(report.mean) == 9 and not report.missing
    data = load_dataset("market1501", world)
    for split, records in (("train", data.train), ("test", data.query)):
        source = open_mesh_source(world / "mesh", "market1501", split, SIZE)
        assert not source.missing(records)
        views = [source.render(r, [0, 45]) for r in records]
        assert all((v > 0).float().mean((1, 2)).min() > 0.2 for v in views)


def test_the_mean_body_of_turned_ones_is_that_body_in_the_mean_box():
    body = VERTICES + 0.1 * np.sin(5 * VERTICES[:, :1]) * [1, 0, 0] + 0.05 * (VERTICES[:, [2]] > 0) * [0, 0, 1]
    angles = [0.0, 40.0, 130.0, 260.0]
    turned = turn(torch.from_numpy(body.astype(np.float32)), angles).numpy()
    mean = mean_body([Mesh(v, np.array([0.8 + 0.1 * i, 0, 0], np.float32), FACES) for i, v in enumerate(turned)], SIZE)
    sizes = np.ptp(mean.vertices, 0)
    best = min(
        np.abs(
            turn(torch.from_numpy(mean.vertices), [a])[0].numpy() - (turned[0] - (turned[0].min(0) + turned[0].max(0)) / 2)
        ).max()
        for a in np.arange(0, 360, 0.5)
    )
    assert best < 0.02 and sizes[1] == pytest.approx(np.ptp(body[:, 1]), rel=1e-5)
    height = np.ptp(pixels(mean)[:, 1])
    assert height == pytest.approx(np.mean([np.ptp(body[:, 1]) * (0.8 + 0.1 * i) * H / 2 for i in range(4)]), rel=1e-5)
    with pytest.raises(ValueError, match="no mean"):
        mean_body([Mesh(VERTICES, np.ones(3), FACES), Mesh(VERTICES[:-1], np.ones(3), FACES)], SIZE)
    with pytest.raises(ValueError, match="at least one"):
        mean_body([], SIZE)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"theta": np.zeros(84)}, {}, r"theta must be \[N, 85\], got \[84\]"),
        ({"theta": np.full(85, np.nan)}, {}, "theta must be finite"),
        ({"theta": np.ones(85)}, {}, "name the SMPL model"),
        ({"theta": np.zeros(85)}, {"smpl": True}, "scale must be positive"),
        ({"theta": np.ones((2, 85))}, {"smpl": True}, "2 people without the names"),
        ({"pred_vertices": VERTICES, "pred_cam_t": np.zeros(3)}, {}, "focal_length is missing"),
        ({"pred_vertices": VERTICES, "pred_cam_t": np.zeros(3), "focal_length": np.float64(3)}, {}, "no triangles"),
        ({"vertices": VERTICES, "faces": FACES, "cam_t": np.zeros(3), "focal": np.float64(9)}, {}, "behind the camera"),
        (
            {"vertices": VERTICES, "faces": FACES, "cam_t": np.full(3, 9.0), "focal": np.float64(-9)},
            {},
            "a focal length f above 0",
        ),
        ({"vertices": VERTICES, "faces": FACES, "camera": np.array([-1.0, 0, 0])}, {}, "camera must have a scale s above 0"),
        ({"vertices": VERTICES, "faces": FACES + 7, "camera": np.ones(3)}, {}, "below V=80, got 7 to 86"),
        ({"vertices": VERTICES, "faces": FACES + np.int64(2**32), "camera": np.ones(3)}, {}, r"faces must be .* below 2\^31"),
        ({"vertices": VERTICES, "faces": FACES + 0.5, "camera": np.ones(3)}, {}, "faces must be int32"),
        ({"vertices": VERTICES, "faces": FACES, "camera": np.full(3, 1e300)}, {}, "camera must be finite in float32"),
        ({"vertices": VERTICES, "faces": FACES, "camera": np.ones(4)}, {}, "3 or 6 numbers"),
        (
            {"vertices": VERTICES, "faces": FACES, "camera": np.ones((2, 3))},
            {},
            "camera must hold 1 people as the other keys, got 2",
        ),
        (
            {"vertices": VERTICES, "faces": FACES, "cam": np.ones(3), "img_size": np.zeros(2)},
            {},
            "img_size must be the image's width",
        ),
        (
            {"vertices": VERTICES, "faces": FACES, "cam": np.ones(3), "img_size": np.array([-40, 80])},
            {},
            "img_size must be .*-40",
        ),
        (
            {"vertices": VERTICES, "faces": FACES, "cam": np.ones(3), "img_size": np.array([np.nan, 80])},
            {},
            "img_size must be .*nan",
        ),
        (
            {"vertices": VERTICES, "faces": FACES, "cam_t": np.ones(3), "focal": np.ones(3)},
            {},
            r"focal must be a number, got \[3\]",
        ),
        ({"something": np.ones(3), "n": np.float64(2)}, {}, "(no estimator known here writes the keys|something)"),
        ({"theta": np.ones(85)}, {"format": "cliff"}, "expected the keys of cliff, got those of hmr"),
    ],
)
def test_bad_estimates_are_named(world, tmp_path, smpl_file, content, options, message):
    np.savez(tmp_path / f"{STEM}.npz", **content)
    options = options | ({"smpl": smpl_file} if options.get("smpl") else {})
    with pytest.raises(ValueError, match=rf"{STEM}.*{message}"):
        import_meshes(load_dataset("market1501", world), [tmp_path / f"{STEM}.npz"], image_size=SIZE, **options)


@pytest.mark.parametrize("suffix", ["npy", "npz", "pkl", "pt"])
def test_malicious_and_truncated_estimates(tmp_path, suffix):
    mark, path = tmp_path / "executed", tmp_path / f"evil.{suffix}"
    for content in ({"theta": MakesFolder(mark)}, {"theta": np.ones(85)}):
        if suffix == "npy":
            np.save(path, np.array([content], object))
        elif suffix == "npz":
            np.savez(path, theta=np.array([content["theta"]], object if isinstance(content["theta"], MakesFolder) else None))
        elif suffix == "pkl":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        if isinstance(content["theta"], np.ndarray):
            path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(ValueError, match=path.name):
            read_estimates(path)
    assert not mark.exists()


def test_images_of_one_name_need_their_folder(tmp_path):
    from PIL import Image

    records = []
    for folder in ("train", "test"):
        path = tmp_path / "msmt17" / folder / "0007" / "0007_000_01_0303noon_0606_2.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (W, H)).save(path)
        records.append(Record(path, 7, 0))
    data = ReIDData("msmt17", tmp_path, records[:1], records[1:], [])
    content = {"vertices": VERTICES, "faces": FACES, "camera": np.array([1.0, 0, 0])}
    loose, placed = (
        tmp_path / records[0].path.with_suffix(".npz").name,
        tmp_path / "out" / "test" / "0007" / "0007_000_01_0303noon_0606_2.npz",
    )
    placed.parent.mkdir(parents=True)
    np.savez(loose, **content)
    np.savez(placed, **content)
    with pytest.raises(ValueError, match="may be of 2 images"):
        import_meshes(data, [loose], image_size=SIZE)
    report = import_meshes(data, [tmp_path / "out"], image_size=SIZE, missing="leave-out")
    assert report.written == [records[1].path] and report.missing == [records[0].path]
