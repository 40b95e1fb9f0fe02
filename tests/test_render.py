"""Rendering a dataset's meshes into the authors' folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcl_fast.constants import ALL_YAWS
from gcl_fast.data import load_dataset
from gcl_fast.meshes import RenderedFolders, VertexMeshes, open_mesh_source, write_faces, write_mesh
from gcl_fast.meshes.render_folders import render_dataset
from gcl_fast.records import Record, ReIDData

SIZE = (24, 12)
FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]], np.int32)
FOLDERS = {"market1501": "market", "msmt17": "msmt17"}


def world(tmp_path, name="market1501"):
    """Three images with meshes (two train, one query), without the images: only their names matter."""
    sub = "0007/" if name == "msmt17" else ""
    records = [Record(tmp_path / "images" / f"{sub}{stem}.jpg", 0, 0) for stem in ("a", "b", "c")]
    rng = np.random.default_rng(0)
    for record, split in zip(records, ("train", "train", "test"), strict=True):
        folder = tmp_path / "mesh" / FOLDERS[name] / split / "vertices"
        verts = rng.uniform(-0.8, 0.8, (4, 3)).astype(np.float32)
        write_mesh(folder / sub / f"{record.path.stem}.npz", verts, np.array([1, 0, 0], np.float32))
        write_faces(folder, FACES)
    return ReIDData(name, tmp_path, records[:2], records[2:], [])


@pytest.mark.parametrize("name", ["market1501", "msmt17"])
def test_the_authors_folders_show_what_the_vertices_show(tmp_path, name):
    data, seen = world(tmp_path, name), []
    report = render_dataset(data, None, tmp_path / "out", image_size=SIZE, progress=lambda *n: seen.append(n))
    assert (report.written, report.skipped, report.folder) == (24, 0, tmp_path / "out" / FOLDERS[name])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for split, records in (("train", data.train), ("test", data.query)):
        vertices = open_mesh_source(tmp_path / "mesh", name, split, SIZE)
        pictures = open_mesh_source(tmp_path / "out", name, split, SIZE)
        assert isinstance(vertices, VertexMeshes) and isinstance(pictures, RenderedFolders)
        assert pictures.missing(records) == []
        for record in records:
            want, got = (source.render(record, ALL_YAWS) for source in (vertices, pictures))
            assert want.amax((1, 2)).min() > 0.2
            assert (want - got).abs().mean() < 0.05  # JPEG
            closest = (want[:, None] - got[None]).abs().mean((2, 3)).argmin(1)
            assert torch.equal(closest, torch.arange(len(ALL_YAWS)))
    names = sorted(p.name for p in (tmp_path / "out" / FOLDERS[name] / "train").iterdir())
    assert names == sorted(["render", *(f"render_{a}" for a in ALL_YAWS[1:])])


def test_only_what_is_missing_is_written_unless_asked(tmp_path):
    data = world(tmp_path)
    render_dataset(data, None, tmp_path / "out", [0, 30], SIZE)
    view = tmp_path / "out" / "market" / "train" / "render_30"
    (view / "a.jpg").unlink()
    (view / "b.jpg").write_bytes(b"kept")
    report = render_dataset(data, None, tmp_path / "out", [0, 30, -330], SIZE)
    assert (report.written, report.skipped) == (1, 5) and (view / "b.jpg").read_bytes() == b"kept"
    whole = (view / "a.jpg").read_bytes()
    report = render_dataset(data, None, tmp_path / "out", [30], SIZE, overwrite=True, splits=["train"])
    assert (report.written, report.skipped) == (2, 0)
    assert (view / "a.jpg").read_bytes() == whole and (view / "b.jpg").read_bytes() != b"kept"
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_nothing_is_written_when_a_mesh_is_missing(tmp_path):
    data = world(tmp_path)
    data.gallery = [Record(tmp_path / "images" / "d.jpg", 0, 0)]
    with pytest.raises(FileNotFoundError, match=r"1 of 2 test images have no mesh in .*vertices: d\.npz"):
        render_dataset(data, None, tmp_path / "out", [0], SIZE)
    with pytest.raises(FileNotFoundError, match=r"elsewhere.*market"):
        render_dataset(data, tmp_path / "elsewhere", tmp_path / "out", [0], SIZE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("angles", "words"), [([], "angles"), ([22.5], "whole number"), ([float("nan")], "whole number")])
def test_bad_angles(tmp_path, angles, words):
    with pytest.raises(ValueError, match=words):
        render_dataset(world(tmp_path), None, tmp_path / "out", angles, SIZE)


def test_a_dataset_on_disk_is_read(tmp_path):
    from PIL import Image

    data = world(tmp_path)
    root = tmp_path / "market1501"
    names = {
        "bounding_box_train": "0001_c1s1_000001_00",
        "query": "0002_c1s1_000001_00",
        "bounding_box_test": "0002_c2s1_000001_00",
    }
    for folder, stem in names.items():
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (4, 8)).save(root / folder / f"{stem}.jpg")
        split = "train" if folder == "bounding_box_train" else "test"
        old = tmp_path / "mesh" / "market" / "train" / "vertices" / f"{data.train[0].path.stem}.npz"
        new = tmp_path / "mesh" / "market" / split / "vertices" / f"{stem}.npz"
        new.write_bytes(old.read_bytes())
    report = render_dataset(load_dataset("market1501", tmp_path), None, tmp_path / "mesh", [0], SIZE)
    assert report.written == 3
    assert (tmp_path / "mesh" / "market" / "test" / "render" / f"{names['query']}.jpg").is_file()
