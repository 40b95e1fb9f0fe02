"""Which image an estimate belongs to, which of several people is taken, and imports that go on past bad files."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gcl_fast.data.datasets.csv_data import read_csv_dataset
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.meshes import open_mesh_source, read_mesh
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.plain_pickle import read_plain_pickle
from gcl_fast.meshes.render_folders import render_dataset
from tests.estimate_cases import FACES, STEM, VERTICES, H, W, obj, smpl_in, unmeshed_world
from tests.toy_world import SIZE


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return unmeshed_world(tmp_path)


def write(path: Path, scale: float = 1.0, across: float = 0.0) -> Path:
    """A body told by its scale, moved across the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, vertices=VERTICES, faces=FACES, camera=np.array([scale, across, 0.0]))
    return path


def own_images(root: Path, *names: str):
    """A user's own data set of these images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (W, H), (90, 90, 90)).save(root / name)
    (root / "train.csv").write_text("path\n" + "".join(f"{name}\n" for name in names))
    return read_csv_dataset(root)


def scales(data) -> list[float]:
    """By each training image in turn, the scale of its mesh: whose body it was given."""
    source = open_mesh_source(data.root / "mesh", data.name, "train", SIZE)
    assert not source.missing(data.train)
    return [round(float(read_mesh(source.path(record)).camera[0]), 3) for record in data.train]


def test_images_of_one_name_in_folders_keep_their_own_bodies(tmp_path):
    data = own_images(tmp_path, "p0/000.jpg", "p1/000.jpg", "p2/000.jpg", "p2/001.jpg")
    for n, name in enumerate(("p0/000", "p1/000", "p2/000", "p2/001")):
        write(tmp_path / "out" / f"{name}.npz", 0.5 + n / 10)
    report = import_meshes(data, [tmp_path / "out"], image_size=SIZE)
    assert len(report.written) == 4 and not report.several
    assert scales(data) == [0.5, 0.6, 0.7, 0.8]
    assert (tmp_path / "mesh/csv/train/vertices/p1/000.npz").is_file()
    assert (tmp_path / "mesh/csv/train/vertices/001.npz").is_file()  # its stem is the only one
    rendered = render_dataset(data, tmp_path / "mesh", tmp_path / "pictures", (0, 45), SIZE)
    assert rendered.written == 8
    pictures = open_mesh_source(tmp_path / "pictures", "csv", "train", SIZE)
    assert not pictures.missing(data.train)
    vertices = open_mesh_source(tmp_path / "mesh", "csv", "train", SIZE)
    for record in data.train:
        assert (pictures.render(record, [45]) - vertices.render(record, [45])).abs().mean() < 0.02


def test_images_beside_the_data_set_keep_their_own_bodies(tmp_path):
    """Listed as ../photos/p0/000.jpg: their meshes lie below the folder of meshes all the same."""
    data = own_images(tmp_path / "data", "../photos/p0/000.jpg", "../photos/p1/000.jpg")
    write(tmp_path / "out/p0/000.npz", 0.5), write(tmp_path / "out/p1/000.npz", 0.6)
    import_meshes(data, [tmp_path / "out"], image_size=SIZE)
    assert scales(data) == [0.5, 0.6]
    vertices = tmp_path / "data/mesh/csv/train/vertices"
    assert sorted(p.relative_to(vertices).as_posix() for p in vertices.rglob("*.npz")) == [
        "photos/p0/000.npz",
        "photos/p1/000.npz",
    ]
    inside = own_images(tmp_path / "data", "../photos/p0/000.jpg", "photos/p0/000.jpg")
    with pytest.raises(InputError, match="share the mesh name 'photos/p0/000'"):
        import_meshes(inside, [tmp_path / "out"], image_size=SIZE)


def test_meshes_may_lie_in_the_folders_that_the_images_lie_in(tmp_path):
    data = own_images(tmp_path, "a/b/0.jpg", "c/1.jpg", "2.jpg")
    vertices = tmp_path / "mesh/csv/train/vertices"
    write(vertices / "a/b/0.npz", 0.5), write(vertices / "c/1.npz", 0.6), write(vertices / "2.npz", 0.7)
    assert scales(data) == [0.5, 0.6, 0.7]
    write(vertices / "0.npz", 0.8), write(vertices / "b/0.npz", 0.9)  # of other images: most folders count first
    assert scales(data) == [0.5, 0.6, 0.7]


def test_one_mesh_for_two_images_is_refused(tmp_path):
    data = own_images(tmp_path, "p0/000.jpg", "p1/000.jpg")
    write(tmp_path / "mesh/csv/train/vertices/000.npz")
    with pytest.raises(InputError, match=r"p0/000\.jpg and .*p1/000\.jpg share the mesh name '000'"):
        open_mesh_source(tmp_path / "mesh", "csv", "train", SIZE).missing(data.train)
    twins = own_images(tmp_path / "twins", "p/000.jpg", "p/000.png")
    with pytest.raises(InputError, match="share the mesh name"):
        import_meshes(twins, [tmp_path / "mesh"], image_size=SIZE)


def test_a_stem_alone_gives_nobody_another_persons_body(tmp_path):
    data = own_images(tmp_path, "p0/000.jpg", "p0/001.jpg")
    out = tmp_path / "out"
    write(out / "p1/000.npz", 0.5), write(out / "p0/000.npz", 0.6), write(out / "p2/000.npz", 0.7), write(out / "p0/001.npz", 0.8)
    report = import_meshes(data, [out], image_size=SIZE)
    assert scales(data) == [0.6, 0.8] and len(report.unknown) == 2 and not report.several
    write(tmp_path / "other/x/000.npz"), write(tmp_path / "other/y/000.npz")
    with pytest.raises(InputError, match=r"x/000 and .*y/000\.npz may both be of the image"):
        import_meshes(data, [tmp_path / "other"], image_size=SIZE, missing="leave-out")


@pytest.mark.parametrize("name", ["{stem}_0.obj", "{stem}.jpg.obj", "{stem}.jpg_0.obj", "{stem}.jpg.npz"])
def test_names_that_estimators_give_their_files(world, tmp_path, name):
    path = tmp_path / "out" / name.format(stem=STEM)
    path.parent.mkdir()
    write(path) if path.suffix == ".npz" else obj(path)
    data = load_dataset("market1501", world)
    report = import_meshes(data, [path.parent], image_size=SIZE, fit=True, missing="leave-out")
    assert [p.stem for p in report.written] == [STEM]


def test_a_number_that_belongs_to_the_name_is_no_person(world, tmp_path):
    obj(tmp_path / f"{STEM[:-3]}_07.obj")  # another detection of that frame
    with pytest.raises(InputError, match="none of the estimates names an image"):
        import_meshes(load_dataset("market1501", world), [tmp_path / f"{STEM[:-3]}_07.obj"], image_size=SIZE, fit=True)


def test_of_several_people_the_one_in_the_middle_is_taken(tmp_path):
    data = own_images(tmp_path, "photo.jpg")
    for person, (scale, across) in enumerate(((1.2, 1.5), (0.7, 0.02), (0.7, -0.9))):
        write(tmp_path / "out" / f"{person}" / "photo.npz", scale, across)
    bodies = [dict(np.load(tmp_path / f"out/{n}/photo.npz")) for n in range(3)]
    people = {key: np.stack([body[key] for body in bodies]) for key in ("vertices", "camera")}
    np.savez(tmp_path / "all.npz", **people, faces=FACES, imgname=["photo.jpg"] * 3)
    report = import_meshes(data, [tmp_path / "all.npz"], image_size=SIZE)
    assert scales(data) == [0.7] and report.several == ["photo"] and "middle" in str(report)
    source = open_mesh_source(tmp_path / "mesh", "csv", "train", SIZE)
    assert abs(read_mesh(source.path(data.train[0])).camera[1]) < 0.1


def test_an_import_goes_on_past_what_cannot_be_used(world, tmp_path, smpl_path):
    data, out = load_dataset("market1501", world), tmp_path / "out"
    stems = [record.path.stem for record in data.train]
    write(out / f"{stems[0]}.npz")
    np.savez(out / f"{stems[1]}.npz", vertices=np.full_like(VERTICES, np.nan), faces=FACES, camera=np.ones(3))
    (out / f"{stems[2]}.json").write_text("[]")  # nobody detected
    (out / f"{stems[3]}.pkl").write_bytes(b"\x80\x04cut")
    (out / "args.json").write_text(json.dumps({"threshold": 0.5}))
    (out / "SMPL.pkl").write_bytes(smpl_path.read_bytes())
    (out / f"._{stems[0]}.npz").write_bytes(b"\0\5\x16\7")  # macOS' other half of a copied file
    (out / ".ipynb_checkpoints").mkdir()
    (out / ".ipynb_checkpoints" / f"{stems[0]}.npz").write_bytes(b"")
    for missing in ("leave-out", "mean"):
        report = import_meshes(data, [out], image_size=SIZE, missing=missing)
        assert [p.stem for p in report.written] == stems[:1]
        text = "\n".join(report.bad)
        assert len(report.bad) == 5 and "must be finite" in text and "no person in it" in text and "args.json" in text
        assert "SMPL.pkl" in text and "5 of the files and bodies cannot be used:" in str(report)
    assert len(report.mean) == len(data.train) + len(data.query) + len(data.gallery) - 1
    (out / "args.json").rename(tmp_path / "args.json")
    with pytest.raises(InputError, match="args.json: no estimator known here writes the keys threshold; a file has the keys of"):
        import_meshes(data, [tmp_path / "args.json"], image_size=SIZE)


@pytest.fixture(scope="module")
def smpl_path(tmp_path_factory) -> Path:
    return smpl_in(tmp_path_factory.mktemp("smpl"))


def test_one_bad_person_of_a_file_costs_no_other(world, tmp_path):
    data = load_dataset("market1501", world)
    vertices = np.stack([VERTICES, np.full_like(VERTICES, np.inf)])
    names = [record.path.name for record in data.train[:2]]
    path = tmp_path / "all.npz"
    np.savez(path, vertices=vertices, faces=FACES, camera=np.ones((2, 3)), imgname=names)
    report = import_meshes(data, [path], image_size=SIZE, missing="leave-out")
    assert [p.name for p in report.written] == names[:1] and "must be finite" in report.bad[0] and names[1] in report.bad[0]
    with pytest.raises(InputError, match=r"all\.npz: vertices must be finite"):
        import_meshes(data, [path], image_size=SIZE)
    write(tmp_path / "few" / f"{data.train[0].path.stem}.npz")
    few = tmp_path / "few" / f"{data.train[1].path.stem}.npz"
    np.savez(few, vertices=VERTICES[:-1], faces=FACES, camera=np.ones(3))  # the triangles need one more
    report = import_meshes(data, [few.parent], image_size=SIZE, missing="leave-out")
    assert [p.name for p in report.written] == names[:1] and "below V=79" in report.bad[0] and names[1] in report.bad[0]


def test_missing_bodies_name_the_flag(world, tmp_path):
    with pytest.raises(MissingFileError, match="--missing leave-out or --missing mean accepts this"):
        import_meshes(load_dataset("market1501", world), [write(tmp_path / f"{STEM}.npz")], image_size=SIZE)


class NumpyArrayWrapper:
    """joblib's name for an array inside its pickle."""


NumpyArrayWrapper.__module__ = "joblib.numpy_pickle"


def test_joblibs_files_say_how_to_save_them_again(tmp_path, monkeypatch):
    import sys
    import types

    module = types.ModuleType("joblib.numpy_pickle")
    module.NumpyArrayWrapper = NumpyArrayWrapper
    monkeypatch.setitem(sys.modules, "joblib", types.ModuleType("joblib"))
    monkeypatch.setitem(sys.modules, "joblib.numpy_pickle", module)
    path, content = tmp_path / "demo.pkl", pickle.dumps({"verts": NumpyArrayWrapper()})
    for stored in (content, zlib.compress(content)):
        path.write_bytes(stored)
        with pytest.raises(InputError, match=r"demo\.pkl was written by joblib .* pickle\.dump\(joblib\.load\("):
            read_plain_pickle(path)
