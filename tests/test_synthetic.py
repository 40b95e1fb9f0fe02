"""The synthetic world: repeatable, readable in every layout, and its meshes, pictures and true novel views fit together."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("anny", reason="the synthetic people are anny bodies")

import itertools

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.errors import InputError
from gcl_fast.meshes import open_mesh_source
from gcl_fast.ops import render_mesh
from gcl_fast.synthetic import WorldConfig, write_world
from gcl_fast.synthetic.cameras import develop, make_cameras
from gcl_fast.synthetic.gait import HANDS, joint_angles
from gcl_fast.synthetic.garments import dress, wardrobe
from gcl_fast.synthetic.people import make_person
from gcl_fast.synthetic.plan import DISTRACTOR, JUNK, make_plan
from gcl_fast.synthetic.renderer import crop_lens, pose_figures, render_layers, turn_axis, turned
from gcl_fast.synthetic.schedule import Shot, travel_frames, walk
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_folder import MARKER

SIZE = (64, 32)
SMALL = {"num_train_ids": 4, "num_test_ids": 2, "images_per_id": 6, "image_size": SIZE}


def small_world(folder: Path, **changes) -> Path:
    write_world(folder, **(SMALL | changes))
    return folder


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("worlds") / "market")


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def truth_rows(root: Path) -> list[dict[str, str]]:
    with open(root / "truth" / "index.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float64) / 255


def test_same_seed_same_bytes_and_another_seed_another_world(market: Path, tmp_path: Path) -> None:
    again = small_world(tmp_path / "again")
    assert digest(again) == digest(market)
    other = digest(small_world(tmp_path / "other", seed=1, novel_views=False))
    shared = {k for k, v in digest(market).items() if k.endswith(".jpg") and other.get(k) == v}
    assert not shared


def test_market_is_read_and_counts_agree(market: Path) -> None:
    data = load_dataset("market1501", market)
    assert len(data.train) == 4 * 6 and {r.pid for r in data.train} == {0, 1, 2, 3}
    assert {r.camera for r in data.train} <= set(range(4)) and len({r.camera for r in data.train + data.gallery}) == 4
    test_pids = {r.pid for r in data.query}
    assert len(test_pids) == 2 and test_pids <= {r.pid for r in data.gallery}
    assert sum(r.pid in test_pids for r in data.query + data.gallery) == 2 * 6
    assert any(r.pid == DISTRACTOR for r in data.gallery)
    assert list((market / "market1501" / "bounding_box_test").glob("-1_*.jpg"))
    queries = [(r.pid, r.camera) for r in data.query]
    assert len(queries) == len(set(queries)), "one query a person and camera"
    for pid, camera in queries:
        assert any(r.pid == pid and r.camera != camera for r in data.gallery)
    assert all(Image.open(r.path).size == SIZE[::-1] for r in data.train)
    names = {int(r.path.name[:4]) for r in data.train} & test_pids
    assert not names, "test people are never trained on"


@pytest.mark.parametrize("layout", ["dukemtmc", "msmt17"])
def test_other_layouts_are_read_and_every_image_has_its_mesh(layout: str, tmp_path: Path) -> None:
    root = small_world(tmp_path / "w", layout=layout, images_per_id=3, novel_views=False, num_cameras=6)
    data = load_dataset(layout, root)
    assert len(data.train) == 4 * 3 and data.query and len(data.gallery) > len(data.query) - 1
    for split, records in (("train", data.train), ("test", data.query + data.gallery)):
        assert open_mesh_source(root / "mesh", layout, split, SIZE).missing(records) == []
    assert min(r.frame for r in data.train) > 0


def test_bodies_are_refused_for_pictures_of_another_shape(market: Path) -> None:
    height, width = SIZE
    assert open_mesh_source(market / "mesh", "market1501", "train", (2 * height, 2 * width)).image_size == (2 * height, 2 * width)
    with pytest.raises(InputError, match=f"bodies for images of {height}x{width} pixels, stretched otherwise"):
        open_mesh_source(market / "mesh", "market1501", "train", (height, width + 4))


def test_mesh_files_draw_the_person_in_the_crop(market: Path) -> None:
    """Where the picture differs from the empty place, there the mesh of the file is, in every true view."""
    source = open_mesh_source(market / "mesh", "market1501", "test", SIZE)
    records = {r.path.name: r for r in (lambda d: d.query + d.gallery)(load_dataset("market1501", market))}
    overlaps = []
    for row in truth_rows(market):
        guide = source.render(records[Path(row["source"]).name], [float(row["yaw"])])[0].numpy() > 0
        person = np.abs(picture(market / row["image"]) - picture(market / row["background"])).max(-1) > 0.08
        overlaps.append((guide & person).sum() / (guide | person).sum())
        assert (guide & person).sum() > 0.7 * guide.sum()
    assert np.mean(overlaps) > 0.6  # clothes, hair, bags and the shadow on the ground are not in the mesh


@pytest.mark.parametrize("yaw", [0.0, 90.0, 225.0])
def test_dressed_silhouette_covers_the_naked_one(yaw: float) -> None:
    config = WorldConfig(bad_crop_probability=0.0)
    cameras, people = make_cameras(3, 4, config), [make_person(3, n, config) for n in range(4)]
    shots = [Shot(n, n, 1, 0, 50.0 * n, (0.2, 6.0), 0.3 * n % 1, False, HANDS[n], 0.0, 0.0) for n in range(4)]
    figures = pose_figures(shots, people, dress(people), cameras)
    figures = [replace(f, lens=crop_lens(f, stream(3, "crop", i), config, 0.5)[0]) for i, f in enumerate(figures)]
    layers = render_layers(figures, cameras, SIZE, [yaw] * 4)
    faces = torch.from_numpy(wardrobe().template.faces)
    for figure, layer in zip(figures, layers, strict=True):
        naked, lens = torch.from_numpy(figure.naked.astype(np.float32))[None], torch.from_numpy(figure.lens)[None]
        guide = render_mesh(naked, faces, lens, [yaw], (2 * SIZE[0], 2 * SIZE[1]))[0, 0, 0].numpy() > 0
        assert (guide & layer.cover).sum() > 0.97 * guide.sum()
        assert guide.sum() > 0.5 * layer.cover.sum()
        assert np.isfinite(layer.linear).all() and layer.linear.min() >= 0


def test_truth_at_yaw_zero_is_the_dataset_image_before_noise(market: Path) -> None:
    rows = truth_rows(market)
    assert {int(r["yaw"]) for r in rows} == set(range(0, 360, 45))
    for row in rows:
        clean, taken = picture(market / row["image"]), picture(market / row["source"])
        error = np.sqrt(((clean - taken) ** 2).mean())
        if int(row["yaw"]) == 0:
            assert Path(row["image"]).name == "source.png" and error < 0.06
        else:
            source = picture(market / Path(row["image"]).with_name("source.png"))
            assert np.abs(source - clean).max() > 0.15, "a turned person looks different"
            empty = picture(market / row["background"])
            assert np.abs(clean[0] - empty[0]).mean() < 0.05, "the same place"


def test_turn_is_that_of_render_mesh() -> None:
    from gcl_fast.meshes import turn

    verts = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    for yaw in (0.0, 45.0, 180.0, 310.0):
        expected = turn(torch.from_numpy(verts)[None], [yaw])[0, 0].numpy()
        np.testing.assert_allclose(turned(verts, yaw, turn_axis(verts)), expected, atol=1e-6)


def test_frames_say_how_far_cameras_are_apart() -> None:
    config = WorldConfig()
    cameras = make_cameras(0, 5, config)
    travel = travel_frames(0, 5, config)
    ratios = []
    for person in range(30):
        shots = walk(0, person, 12, cameras, travel, 10_000, config)
        assert [s.index for s in shots] == list(range(12))
        for a, b in itertools.pairwise(shots):
            assert b.frame > a.frame
            if a.camera == b.camera:
                assert b.frame - a.frame < 100
            else:
                ratios.append((b.frame - a.frame) / travel[a.camera, b.camera])
    assert 0.8 < np.mean(ratios) < 1.2 and min(ratios) > 0.4
    assert np.allclose(travel, travel.T) and travel.min() > 0


def test_plan_keeps_train_and_test_people_apart_whatever_the_numbers() -> None:
    config = WorldConfig()
    cameras = make_cameras(0, 4, config)
    for train_ids, test_ids, images in ((1, 1, 2), (5, 3, 7), (30, 10, 16)):
        plan = make_plan(0, train_ids, test_ids, images, cameras, True, config)
        persons = {s: {e.shot.person for e in plan.entries if e.split == s and e.pid > 0} for s in ("train", "query", "gallery")}
        assert persons["train"] == set(range(train_ids)) and persons["query"] == set(range(train_ids, train_ids + test_ids))
        assert not persons["train"] & persons["gallery"]
        pids = {e.shot.person: e.pid for e in plan.entries if e.pid > 0}
        assert len(set(pids.values())) == len(pids) == train_ids + test_ids
        strays = {e.shot.person for e in plan.entries if e.pid == DISTRACTOR}
        assert strays and min(strays) >= train_ids + test_ids
        assert all(e.split == "gallery" for e in plan.entries if e.pid in (DISTRACTOR, JUNK))


def test_cameras_differ_in_every_way_the_world_promises() -> None:
    cameras = make_cameras(0, 6, WorldConfig())
    for field in ("walk_yaw", "height", "exposure", "blur", "noise"):
        values = sorted(getattr(c, field) for c in cameras)
        assert min(np.diff(values)) > 0
    assert len({c.jpeg for c in cameras}) >= 4
    grey = np.full((8, 8, 3), 0.3)
    colors = [develop(c, grey, 0.0).mean((0, 1)) for c in cameras]
    for i, a in enumerate(colors):
        assert all(np.abs(a - b).max() > 0.01 for b in colors[:i])


def test_walking_is_a_cycle_whose_halves_mirror_left_and_right() -> None:
    stride = make_person(0, 0, WorldConfig()).stride
    start, end, half = (joint_angles(stride, p) for p in (0.1, 1.1, 0.6))
    for bone, turns in start.items():
        assert [d for _, d in end[bone]] == pytest.approx([d for _, d in turns])
    for bone in ("upperleg01", "lowerleg01", "foot", "upperarm01"):
        for (axis, left), (_, right) in zip(start[f"{bone}.L"], half[f"{bone}.R"], strict=True):
            assert right == pytest.approx(left if axis == "x" else -left)


def test_people_stand_on_the_ground_and_share_one_topology() -> None:
    config = WorldConfig()
    people = [make_person(1, n, config) for n in range(6)]
    clothes = dress(people)
    faces = wardrobe().faces
    assert all(len(d.verts) == faces.max() + 1 for d in clothes)
    cameras = make_cameras(0, 4, config)
    shots = [Shot(n, 0, 1, 0, 30.0, (0.0, 6.0), n / 6, n == 5, "swing", 0.0, 0.0) for n in range(6)]
    for figure in pose_figures(shots, people, clothes, cameras):
        assert figure.verts[:, 1].max() + figure.lens[1] == pytest.approx(cameras[0].height, abs=1e-4)
        assert 0.9 < np.ptp(figure.naked[:, 1].astype(np.float32)) < 2.3
        lengths = np.linalg.norm(figure.normals, axis=1)[: len(figure.naked)]
        assert lengths.min() > 0.3 and lengths.max() < 1 + 1e-4  # blends of unit normals


def test_rendered_mesh_folders_hold_what_the_meshes_show(tmp_path: Path) -> None:
    root = small_world(tmp_path / "w", num_train_ids=1, num_test_ids=1, images_per_id=2, novel_views=False, rendered_meshes=True)
    data = load_dataset("market1501", root)
    drawn = open_mesh_source(root / "mesh", "market1501", "train", SIZE, kind="rendered")
    live = open_mesh_source(root / "mesh", "market1501", "train", SIZE, kind="vertices")
    for record in data.train:
        assert (drawn.render(record, [0, 45, 315]) - live.render(record, [0, 45, 315])).abs().mean() < 0.02


def test_a_finished_world_is_kept_and_another_is_refused(market: Path) -> None:
    before = digest(market)
    summary = write_world(market, **SMALL)
    assert not summary.created and summary.train_images == 24 and "already in" in str(summary)
    with pytest.raises(FileExistsError, match=r"seed=0 \(wanted 5\)"):
        write_world(market, **(SMALL | {"seed": 5}))
    assert digest(market) == before


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "w"
    tiny = SMALL | {"num_train_ids": 1, "num_test_ids": 1, "images_per_id": 2, "novel_views": False}
    with pytest.raises(KeyboardInterrupt):
        write_world(out, **tiny, progress=stop)
    assert not out.exists()
    seen: list[tuple[int, int]] = []
    assert write_world(out, **tiny, progress=lambda done, total: seen.append((done, total))).created
    assert seen[-1][0] == seen[-1][1] and (out / MARKER).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w"]


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="world.json"):
        write_world(tmp_path / "mine", **SMALL)
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="new.partial"):
        write_world(tmp_path / "new", **SMALL)
    assert (tmp_path / "new.partial" / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "market"}, "layout must be one of"),
        ({"num_train_ids": 0}, "num_train_ids"),
        ({"num_test_ids": 1.5}, "num_test_ids"),
        ({"images_per_id": 1}, "images_per_id"),
        ({"num_cameras": 3}, "num_cameras must be an integer from 4 to 9"),
        ({"num_cameras": 10}, "num_cameras"),
        ({"image_size": (128,)}, "image_size"),
        ({"image_size": (8, 64)}, "image_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_world(tmp_path / "w", **(SMALL | change))
    assert not list(tmp_path.iterdir())


def test_bad_difficulty_is_named() -> None:
    with pytest.raises(ValueError, match="bag_probability"):
        WorldConfig(bag_probability=1.5)
    with pytest.raises(ValueError, match="jpeg_quality"):
        WorldConfig(jpeg_quality=(90, 60))
