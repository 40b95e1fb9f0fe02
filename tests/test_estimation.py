"""Photos -> landmarks -> bodies -> mesh files; the pose model itself is in test_photos_to_stages.py."""

from __future__ import annotations

import hashlib
import math
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
from torch import Tensor

from gcl_fast.cli.main import main
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import FileError, InputError, MissingFileError, ProgramError
from gcl_fast.estimation import EstimatedBodies, Landmarks, estimate_meshes, pose_weights
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


@pytest.fixture(scope="module")
def body():
    pytest.importorskip("anny", reason="bodies are anny's")
    from gcl_fast.estimation.posable_body import posable_body

    return posable_body()


def test_the_body_bends_as_annys_own(body) -> None:
    from gcl_fast.estimation.posable_body import AVERAGE
    from gcl_fast.estimation.posture import number, usual
    from gcl_fast.meshes.anny_body import AnnyBody

    angles = torch.zeros(1, len(usual()[0]))
    for name, value in (("yaw", 0.7), ("lean", 0.1), ("thigh.L", -0.5), ("knee.L", 0.8), ("arm.R", 0.4), ("twist", 0.2)):
        angles[0, number(name)] = value
    place, turned, rest = body.skeleton(angles, torch.zeros(1, 4))
    ours = body.vertices(place, turned, rest, torch.zeros(1, 4))
    c, s = np.cos(0.7), np.sin(0.7)
    cl, sl = np.cos(0.1), np.sin(0.1)
    root = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, cl, -sl], [0, sl, cl]])
    pose = {"upperleg01.L": [-0.5, 0, 0], "lowerleg01.L": [0.8, 0, 0], "upperarm01.R": [0.4, 0, 0], "spine03": [0, 0.2, 0]}
    theirs = AnnyBody().vertices(AVERAGE, {"root": root, **pose})
    assert (ours - theirs).abs().max() < 5e-4  # half a millimetre: float32 here, float64 there; a pixel is 7 mm


def test_a_body_is_found_again_from_its_own_landmarks(body) -> None:
    from gcl_fast.estimation.landmark_fit import Fit, fit_landmarks, perspective, seen
    from gcl_fast.estimation.posture import number
    from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

    # walking: left heel strikes, left foot pushes off, long stride with the right leg swinging, standing
    angles = usual_angles(torch.tensor([[0.9, 0.0], [-0.7, -0.5], [-0.3, 1.0], [0.1, 0.0]]), COEFFICIENTS)
    angles[:, number("yaw")] = torch.tensor([0.3, 1.9, -2.6, -1.0])
    camera = torch.tensor([[-0.7, 0.01, 0.05]]).expand(4, -1)
    true = Fit(angles, torch.zeros(4, 4), camera, torch.full((4,), 0.3))
    place, turned, rest = body.skeleton(true.angles, true.shape)
    points = torch.zeros(4, 33, 2)
    world, visible = torch.zeros(4, 33, 3), torch.zeros(4, 33)
    metres = body.landmark_positions(place, turned)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, true.camera, true.elevation), metres
    visible[:, body.landmarks] = 1.0
    fit, off = fit_landmarks(body, Landmarks(points, world, visible, torch.ones(4)))
    away = (fit.angles - true.angles)[:, number("yaw")]
    assert torch.atan2(away.sin(), away.cos()).abs().max() < np.deg2rad(8)
    assert off.max() < 0.012  # a hundredth of the image's height
    found = body.vertices(*body.skeleton(fit.angles, fit.shape), fit.shape)
    pixels = project(found, perspective(fit), (256, 128))[..., :2]
    wanted = project(body.vertices(place, turned, rest, true.shape), perspective(true), (256, 128))[..., :2]
    assert (pixels - wanted).norm(dim=-1).mean() < 4


def test_a_stride_is_a_mirror_image_half_a_cycle_later_and_vanishes_in_standing() -> None:
    from gcl_fast.estimation.posture import ANGLES, NAMES, number
    from gcl_fast.estimation.walking import COEFFICIENTS, CYCLES, usual_angles

    phases = torch.linspace(0, 2 * np.pi, 11)[:-1]
    gait = torch.stack((phases.cos(), phases.sin()), 1)
    now, later = usual_angles(gait, COEFFICIENTS), usual_angles(-gait, COEFFICIENTS)
    for i, name in enumerate(NAMES):
        other = number(f"{name[:-1]}{'LR'[name[-1] == 'L']}") if name[-2:] in (".L", ".R") else i
        sign = -1.0 if ANGLES[i].axis in ("y", "z", "along") else 1.0
        torch.testing.assert_close(later[:, other], sign * now[:, i], atol=1e-6, rtol=0, msg=name)
    still = usual_angles(torch.zeros(1, 2), COEFFICIENTS)[0]
    for name, (standing, curve) in CYCLES.items():
        assert still[number(f"{name}.L")] == still[number(f"{name}.R")] == pytest.approx(np.deg2rad(standing))
        # two harmonics follow the curve: its course within a fifth of its range, mostly nearer
        off = now[:, number(f"{name}.L")].rad2deg() - torch.tensor(curve)
        assert off.abs().max() < 0.2 * np.ptp(curve) and off.abs().mean() < 0.1 * np.ptp(curve)


def test_a_bent_elbow_and_a_stride_seen_at_two_fifths_of_its_depth_are_found(body) -> None:
    from gcl_fast.estimation.landmark_fit import fit_landmarks, seen
    from gcl_fast.estimation.posture import number
    from gcl_fast.estimation.walking import COEFFICIENTS, usual_angles

    angles = usual_angles(torch.tensor([[0.9, 0.0], [-0.9, 0.0]]), COEFFICIENTS)  # from the front, a hand at the ear
    angles[:, number("elbow.R")], angles[:, number("arm.R")] = np.deg2rad((70, -25))
    place, turned, _ = body.skeleton(angles, torch.zeros(2, 4))
    metres = body.landmark_positions(place, turned)
    points, world, visible = torch.zeros(2, 33, 2), torch.zeros(2, 33, 3), torch.zeros(2, 33)
    points[:, body.landmarks] = seen(metres, torch.tensor([[-0.7, 0.01, 0.05]]).expand(2, -1), torch.full((2,), 0.25))
    metres[..., 2] = 0.4 * metres[..., 2] + 0.15 * metres[..., 1]  # flat and pitched, as the pose model sees people
    world[:, body.landmarks], visible[:, body.landmarks] = metres, 1.0
    fit, _ = fit_landmarks(body, Landmarks(points, world, visible, torch.ones(2)))
    for name in ("elbow.R", "thigh.L", "thigh.R"):
        off = (fit.angles - angles)[:, number(name)].rad2deg().abs().max()
        assert off < (25 if name == "elbow.R" else 3), (name, off)


def test_cyclists_and_cut_off_people_are_told_from_walkers(body) -> None:
    from gcl_fast.estimation.body_estimates import bodies_from_landmarks
    from gcl_fast.estimation.landmark_fit import FitSettings, seen
    from gcl_fast.estimation.posture import number, usual

    angles = usual()[0].repeat(5, 1)
    angles[:, number("yaw")] = torch.tensor([0.0, 1.6, 1.6, 0.0, 0.4])
    for side in "LR":
        angles[2, number(f"thigh.{side}")], angles[2, number(f"knee.{side}")] = np.deg2rad(
            (-80, 100)
        )  # on a bicycle, from the side
    place, turned, _ = body.skeleton(angles, torch.zeros(5, 4))
    metres = body.landmark_positions(place, turned)
    camera = torch.tensor([[-0.7, 0.0, 0.05]]).repeat(5, 1)
    camera[3, 2] = 0.3  # the feet are below the picture
    points, world = torch.zeros(5, 33, 2), torch.zeros(5, 33, 3)
    visible = torch.zeros(5, 33)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, camera, torch.full((5,), 0.3)), metres
    visible[:, body.landmarks] = 1.0
    scrambled = points[4, body.landmarks].flip(0)
    points[4, body.landmarks] = scrambled
    found = bodies_from_landmarks(Landmarks(points, world, visible, torch.ones(5)), [(128, 64)] * 5, FitSettings(steps=20))
    assert list(found.doubts)[:4] == ["", "", "sitting or cycling", "cut off"] and found.doubts[4]


def test_each_reason_to_doubt_a_body_is_told(body) -> None:
    from gcl_fast.estimation.body_estimates import NOBODY, bodies_from_landmarks
    from gcl_fast.estimation.landmark_fit import FitSettings, seen
    from gcl_fast.estimation.posable_body import LANDMARKS
    from gcl_fast.estimation.posture import usual

    metres = body.landmark_positions(*body.skeleton(usual()[0].repeat(5, 1), torch.zeros(5, 4))[:2])
    camera = torch.tensor([[-0.7, 0.0, 0.05]]).repeat(5, 1)
    camera[3, 0] = -1.4  # half as large
    points, world, visible = torch.zeros(5, 33, 2), torch.zeros(5, 33, 3), torch.zeros(5, 33)
    points[:, body.landmarks], world[:, body.landmarks] = seen(metres, camera, torch.full((5,), 0.3)), metres
    visible[:, body.landmarks] = 1.0
    visible[2, 25:29] = 0.2  # knees and ankles
    for name in ("elbow", "wrist", "hip", "knee"):  # as no body is built: half a picture's height wider
        points[4, LANDMARKS[name][0], 0] += 0.25
        points[4, LANDMARKS[name][0] + 1, 0] -= 0.25
    score = torch.tensor([0.5, 0.49, 1.0, 1.0, 1.0])  # just seen, just not
    found = bodies_from_landmarks(Landmarks(points, world, visible, score), [(128, 64)] * 5, FitSettings(steps=20))
    assert found.absent.tolist() == [False, True, False, False, False]
    assert list(found.doubts) == ["", NOBODY, "legs hidden", "small in the photo", "body does not fit the landmarks"]


def test_landmarks_that_are_not_seen_do_not_place_the_body() -> None:
    from gcl_fast.estimation.landmark_fit import _placed

    model = torch.randn(1, 12, 2, generator=torch.Generator().manual_seed(0))
    points, visible = 0.4 * model + torch.tensor([0.1, -0.2]), torch.ones(1, 12)
    points[0, 3], visible[0, 3] = torch.tensor([3.0, -3.0]), 0.0
    camera = _placed(model, points, visible)[0]
    assert camera.tolist() == pytest.approx([math.log(0.4), 0.1, -0.2], abs=0.02)


def test_the_mirror_image_of_a_photo_says_the_same() -> None:
    """Of a network that knows no left and right: places, depths and masks are turned back before they are averaged."""
    from gcl_fast.estimation.blaze_pose import MASK, BlazePose

    def network(canvas: Tensor, spans: dict[int, tuple[int, int]], _: tuple[int, int]) -> tuple[Tensor, ...]:
        left, right = spans[MASK]
        columns = canvas.mean((1, 2))  # [B, S]
        x = (columns * torch.arange(64).add(0.5)).sum(1) / columns.sum(1)  # where it is bright
        place = torch.stack((x, torch.full_like(x, 30.0), torch.zeros_like(x)), 1)
        seen = torch.tensor([[3.0, -2.0]]).expand(len(x), 2)  # visible, if it is there at all
        metres = torch.stack((x / 64 - 0.5, torch.ones_like(x), torch.ones_like(x)), 1)
        mask = canvas.mean(1, keepdim=True)[..., left:right]
        return torch.cat((place, seen), 1).repeat(1, 39), torch.ones(len(x), 1), mask, metres.repeat(1, 39)

    pose = BlazePose.__new__(BlazePose)
    pose.network, pose.device, pose.size, pose.mirror = network, torch.device("cpu"), 64, False
    photos = [np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) for shape in ((60, 30, 3), (50, 20, 3))]
    photos[0][:, 20:], photos[1][:, :8] = 255, 250
    plain = pose.estimate(photos)
    pose.mirror = True
    both = pose.estimate(photos)
    assert plain.points[0, 0, 0] > 0.01 and plain.points[1, 0, 0] < -0.01
    torch.testing.assert_close(both.points, plain.points, rtol=0, atol=1e-5)
    torch.testing.assert_close(both.world, plain.world, rtol=0, atol=1e-5)
    assert torch.allclose(both.visible, torch.tensor(-2.0).sigmoid().expand(2, 33))
    assert plain.masks is not None and both.masks is not None
    for one, other in zip(plain.masks, both.masks, strict=True):
        assert one.float().std() > 5 and (one.int() - other.int()).abs().max() <= 1


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
