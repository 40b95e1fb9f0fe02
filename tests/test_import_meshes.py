"""Estimators' outputs, written here as the tools write them, become meshes that sit where the estimator saw the body."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gcl_fast.cli.main import main
from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.meshes import open_mesh_source, read_mesh
from gcl_fast.meshes.importing.estimate_files import read_estimate_file
from gcl_fast.meshes.importing.estimator_cameras import reshape_image
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.meshes.preview import overlay, preview_meshes
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.ops.camera import turn
from tests.estimate_cases import (
    BOX,
    FACES,
    STEM,
    VERTICES,
    H,
    W,
    faces_file,
    imported,
    in_crop,
    obj,
    pinhole,
    pixels,
    smpl_in,
    some,
    unmeshed_world,
)
from tests.toy_world import SETTINGS, SIZE


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return unmeshed_world(tmp_path)


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory) -> Path:
    return smpl_in(tmp_path_factory.mktemp("smpl"))


# --- each format, and the pixels its own tool would draw -----------------------------------------------------------------


def theta(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate(([0.9, 0.05, -0.1], rng.normal(0, 0.2, 72), rng.normal(0, 1, 10))).astype(np.float32)


@pytest.mark.parametrize("form", ["npz", "npy", "pkl", "json", "batch"])
def test_hmr(world, tmp_path, smpl_file, form):
    row, body = theta(), SMPL.load(smpl_file).vertices(theta()[None, 3:75], theta()[None, 75:])[0]
    path = tmp_path / f"{STEM}.{form}"
    if form == "npz":
        np.savez(path, theta=row[None])
    elif form == "npy":
        np.save(path, row)
    elif form == "json":
        path.write_text(json.dumps({"theta": [row.tolist()]}), encoding="utf-8-sig")  # as some editors save it
    elif form == "pkl":
        path.write_bytes(pickle.dumps({"theta": row[None], "joints": np.zeros((1, 19, 2))}, protocol=2))
    else:
        path = tmp_path / "all.npz"
        np.savez(path, theta=np.stack((theta(5), row)), imgname=np.array(["/data/else.jpg", f"/data/{STEM}.jpg"]))
    mesh = imported(world, [path], smpl=smpl_file)
    box = (W / 2, H / 2, max(H, W))
    np.testing.assert_allclose(pixels(mesh), in_crop(row[0] * (body[:, :2] + row[1:3]), box), atol=1e-4)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_json_in_any_encoding(tmp_path, encoding):
    path = tmp_path / "estimates.json"
    path.write_bytes(json.dumps({"imgname": ["Müller.jpg"]}, ensure_ascii=False).encode(encoding))
    assert read_estimate_file(path) == {"imgname": ["Müller.jpg"]}


def test_hmr_with_its_crop(world, tmp_path):
    scale = 224 / BOX[2]
    content = {
        "verts": VERTICES[None],
        "cams": np.array([[0.9, 0.05, -0.1]]),
        "proc_param": {"scale": scale, "start_pt": np.array(BOX[:2]) * scale, "img_size": 224},
    }
    path = tmp_path / f"{STEM}.pkl"
    path.write_bytes(pickle.dumps(content))
    mesh = imported(world, [path], faces=faces_file(tmp_path))
    np.testing.assert_allclose(pixels(mesh), in_crop(0.9 * (VERTICES[:, :2] + [0.05, -0.1]), BOX), atol=1e-4)


def hmr2(**more: object) -> dict[str, object]:
    """The model's output and the batch's crop, one person."""
    cam = np.array([0.8, 0.1, 0.05], np.float32)
    return {
        "pred_cam": torch.tensor(cam[None]),
        "pred_vertices": torch.from_numpy(VERTICES[None]),
        "personid": torch.tensor([0]),
        "pred_cam_t": torch.tensor([[cam[1], cam[2], 2 * 5000 / (256 * cam[0] + 1e-9)]]),
        "focal_length": torch.tensor([[5000.0, 5000.0]]),
        "box_center": torch.tensor([BOX[:2]]),
        "box_size": torch.tensor([BOX[2]]),
        "img_size": torch.tensor([[float(W), float(H)]]),
    } | more


@pytest.mark.parametrize("suffix", ["pt", "pkl", "npz"])
def test_4d_humans_and_tokenhmr(world, tmp_path, suffix):
    content, path = hmr2(), tmp_path / f"{STEM}.{suffix}"
    if suffix == "pt":
        torch.save(content, path)
    elif suffix == "pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        np.savez(path, **{k: v.numpy() for k, v in content.items()})
    mesh = imported(world, [path], faces=faces_file(tmp_path))
    crop = pinhole(VERTICES, content["pred_cam_t"][0].numpy(), 5000) / 128  # its own projection, crop pixels from the middle
    np.testing.assert_allclose(pixels(mesh), in_crop(crop, BOX), atol=1e-3)


def test_4d_humans_on_the_whole_image(world, tmp_path):
    """What its demo draws: the camera moved to the image, the focal length scaled with it."""
    full, focal = np.array([[0.2, -0.1, 40.0]]), 5000 / 256 * max(H, W)
    content = hmr2(pred_cam_t_full=torch.tensor(full), scaled_focal_length=torch.tensor(focal))
    for without in ((), ("box_center", "box_size")):
        torch.save({key: value for key, value in content.items() if key not in without}, tmp_path / f"{STEM}.pt")
        mesh = imported(world, [tmp_path / f"{STEM}.pt"], faces=faces_file(tmp_path))
        np.testing.assert_allclose(pixels(mesh), pinhole(VERTICES, full[0], focal) + [W / 2, H / 2], atol=1e-3)


def test_4d_humans_without_vertices(world, tmp_path, smpl_file):
    from gcl_fast.meshes.smpl import rotations

    pose, shape = np.random.default_rng(1).normal(0, 0.3, (1, 24, 3)), np.random.default_rng(2).normal(0, 1, (1, 10))
    content = hmr2()
    del content["pred_vertices"], content["focal_length"]
    matrices = torch.from_numpy(rotations(pose))
    content["pred_smpl_params"] = {
        "global_orient": matrices[:, :1],
        "body_pose": matrices[:, 1:],
        "betas": torch.from_numpy(shape),
    }
    torch.save(content, tmp_path / f"{STEM}.pt")
    mesh = imported(world, [tmp_path / f"{STEM}.pt"], smpl=smpl_file)
    body = SMPL.load(smpl_file).vertices(pose.reshape(1, 72), shape)[0]
    np.testing.assert_allclose(pixels(mesh), in_crop(0.8 * (body[:, :2] + [0.1, 0.05]), BOX), atol=1e-3)


def test_cliff(world, tmp_path, smpl_file):
    """Three detections in two images; of the two people in one, the larger is taken."""
    rng, other = np.random.default_rng(0), "0001_c2s1_000100_00"
    pose, shape = rng.normal(0, 0.2, (3, 72)), rng.normal(0, 1, (3, 10))
    place, focal = np.array([[0, 0, 9.0], [0.1, 0.0, 10], [0, 0.1, 11]]), np.full(3, np.hypot(H, W))
    boxes = np.array([[0, 0, 0, 5, 9, 1, 1, 0], [0, 5, 5, 30, 70, 1, 1, 0], [1, 0, 0, 30, 70, 1, 1, 0]], np.float32)
    np.savez(
        tmp_path / "photos_cliff_hr48.npz",
        imgname=[f"/x/{STEM}.jpg", f"/x/{other}.jpg"],
        pose=pose,
        shape=shape,
        global_t=place,
        pred_joints=np.zeros((3, 24, 3)),
        focal_l=focal,
        detection_all=boxes,
    )
    report = import_meshes(load_dataset("market1501", world), [tmp_path], image_size=SIZE, smpl=smpl_file, missing="leave-out")
    assert report.several == [STEM] and len(report.written) == 2 and "several people" in str(report)
    bodies = SMPL.load(smpl_file).vertices(pose, shape)
    for stem, i in ((STEM, 1), (other, 2)):
        mesh = read_mesh(world / "mesh" / "market" / "train" / "vertices" / f"{stem}.npz")
        np.testing.assert_allclose(pixels(mesh), pinhole(bodies[i], place[i], focal[i]) + [W / 2, H / 2], atol=1e-3)


@pytest.mark.parametrize("suffix", ["npy", "pkl", "json"])
def test_sam_3d_body(world, tmp_path, suffix):
    """A list of people, as process_one_image returns it; the larger box is taken."""
    people = [
        {
            "bbox": np.array([0, 0, 9, 9.0]),
            "focal_length": np.float32(300),
            "pred_vertices": VERTICES * 0.1,
            "pred_cam_t": np.array([0, 0, 9.0]),
        },
        {
            "bbox": np.array([0, 0, 40, 80.0]),
            "focal_length": np.float32(310),
            "pred_vertices": VERTICES,
            "pred_cam_t": np.array([0.1, 0, 8.0]),
            "pred_keypoints_2d": np.zeros((70, 2)),
            "mask": None,
        },
    ]
    path = tmp_path / f"{STEM}.{suffix}"
    if suffix == "npy":
        np.save(path, np.array(people, object))
    elif suffix == "pkl":
        path.write_bytes(pickle.dumps(people))
    else:
        path.write_text(
            json.dumps(
                [
                    {k: v.tolist() if isinstance(v, np.ndarray) else float(v) for k, v in p.items() if v is not None}
                    for p in people
                ]
            )
        )
    mesh = imported(world, [path], faces=faces_file(tmp_path))
    np.testing.assert_allclose(pixels(mesh), pinhole(VERTICES, np.array([0.1, 0, 8.0]), 310) + [W / 2, H / 2], atol=1e-3)


def test_plain_vertices(world, tmp_path):
    """An .obj in front of the camera, y up, as 4D-Humans saves it; one without a camera; one with ours."""
    place, focal = np.array([0.1, 0.2, 30.0]), 1200.0
    path = obj(tmp_path / f"{STEM}.obj", (VERTICES + place) * [1, -1, -1])
    mesh = imported(world, [path], axes="y-up", focal=focal)
    np.testing.assert_allclose(pixels(mesh), pinhole(VERTICES, place, focal) + [W / 2, H / 2], atol=1e-2)
    assert abs(mesh.vertices).max() < 1  # about its own middle
    with pytest.raises(ValueError, match=rf"{STEM}.*no camera"):
        imported(world, [path])
    for bad in (0.0, -1200.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"focal must be above 0 and finite, got {bad}"):
            imported(world, [path], axes="y-up", focal=bad)
    fitted = pixels(imported(world, [obj(path)], fit=True))
    np.testing.assert_allclose([fitted[:, 1].min(), fitted[:, 1].max()], [0.025 * H, 0.975 * H], atol=1e-3)
    np.savez(tmp_path / f"{STEM}.npz", vertices=VERTICES, faces=FACES, camera=np.array([0.7, 0.1, 0.2]))
    ours = imported(world, [tmp_path / f"{STEM}.npz"])
    np.testing.assert_allclose(ours.camera, [0.7, 0.1, 0.2], rtol=1e-6)
    np.savez(tmp_path / f"{STEM}.npz", vertices=VERTICES, faces=FACES, cam_t=place, focal=focal)
    canonical = imported(world, [tmp_path / f"{STEM}.npz"])
    np.testing.assert_allclose(pixels(canonical), pinhole(VERTICES, place, focal) + [W / 2, H / 2], atol=1e-3)


def test_one_camera_of_ours_serves_all_people_of_a_file(world, tmp_path):
    """Six numbers are one perspective camera, however many people there are, not two weak ones."""
    stems, camera = [r.path.stem for r in load_dataset("market1501", world).train[:2]], np.array([0.1, 0.2, 9, 2, 0.05, -0.1])
    np.savez(tmp_path / "all.npz", vertices=np.stack([VERTICES] * 2), faces=FACES, camera=camera, imgname=np.array(stems))
    for stem in stems:
        np.testing.assert_allclose(imported(world, [tmp_path / "all.npz"], stem).camera, camera, rtol=1e-6)


def test_names_may_be_bytes(world, tmp_path):
    """As HDF5 files hold texts."""
    np.savez(tmp_path / "out.npz", vertices=VERTICES, faces=FACES, camera=np.array([0.7, 0, 0]), imgname=np.bytes_(f"{STEM}.jpg"))
    assert imported(world, [tmp_path / "out.npz"]).camera[0] == np.float32(0.7)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_a_crop_of_hmr_without_a_scale_is_named(world, tmp_path, scale):
    content = {"verts": VERTICES, "cams": np.ones(3), "faces": FACES, "proc_param": {"scale": scale, "start_pt": [1, 2]}}
    (tmp_path / f"{STEM}.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"{STEM}.*scale in proc_param must be above 0 and finite, got {scale}"):
        imported(world, [tmp_path / f"{STEM}.pkl"])


# --- resizing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [[0.9, 0.1, -0.2], [0.1, 0.2, 4.0, 1.8, 0.05, -0.1]])
def test_a_resize_that_changes_the_shape_moves_the_body_along(camera):
    camera, size, target = np.array(camera, np.float32), (100, 40), (256, 128)
    vertices, moved = reshape_image(VERTICES, camera, size, target)
    want = pixels(Mesh(VERTICES, camera, FACES), size) * [target[1] / size[1], target[0] / size[0]]
    np.testing.assert_allclose(pixels(Mesh(vertices, moved, FACES), target), want, atol=1e-3)
    same = reshape_image(VERTICES, camera, (100, 50), target)
    assert same[0] is VERTICES and same[1] is camera
    if len(camera) == 3:  # a turned view is widened alike
        a, b = (turn(torch.from_numpy(v), [70.0])[0].numpy() for v in (VERTICES, vertices))
        want = pixels(Mesh(a, camera, FACES), size) * [target[1] / size[1], target[0] / size[0]]
        np.testing.assert_allclose(pixels(Mesh(b, moved, FACES), target), want, atol=1e-3)


def test_the_folder_knows_what_shape_its_bodies_are_for_and_takes_no_others(world, tmp_path):
    path, data = tmp_path / f"{STEM}.npz", load_dataset("market1501", world)
    np.savez(path, vertices=VERTICES, faces=FACES, camera=np.array([0.7, 0.1, 0.2]))
    imported(world, [path])
    mesh = world / "mesh" / "market" / "train" / "vertices" / path.name
    before, square = mesh.read_bytes(), (SIZE[0], SIZE[0])
    with pytest.raises(ValueError, match=rf"holds bodies for images of {SIZE[0]}x{SIZE[1]} pixels, stretched otherwise"):
        open_mesh_source(world / "mesh", "market1501", "train", square)
    with pytest.raises(ValueError, match=rf"stretched otherwise than the {SIZE[0]}x{SIZE[0]} asked for"):
        import_meshes(data, [path], image_size=square, missing="leave-out")
    assert mesh.read_bytes() == before
    import_meshes(data, [path], image_size=(2 * SIZE[0], 2 * SIZE[1]), missing="leave-out")  # of the same shape


# --- seen, and trained on --------------------------------------------------------------------------------------------------


def test_the_preview_tints_the_body_and_leaves_the_rest(world, tmp_path):
    from PIL import Image

    photo, mesh = torch.full((3, 4, 4), 0.5), torch.zeros(4, 4)
    mesh[1:3, 1:3] = 1
    drawn = overlay(photo, mesh)
    assert torch.equal(drawn[:, 0], photo[:, 0]) and drawn[2, 1, 1] > 0.8 and drawn[0, 1, 1] < 0.3
    folder = some(world, tmp_path / "out", 12)
    import_meshes(load_dataset("market1501", world), [folder], image_size=SIZE)
    records = load_dataset("market1501", world).train[:3]
    source = open_mesh_source(world / "mesh", "market1501", "train", SIZE)
    path = preview_meshes(source, records, tmp_path / "p.png", SIZE, columns=2)
    assert Image.open(path).size == (2 * (W + 6) - 6, 2 * (3 * H + 8) - 6)
    with pytest.raises(ValueError, match=r"\.png"):
        preview_meshes(source, records, tmp_path / "p.jpg", SIZE)


def test_stage_2_runs_on_meshes_that_came_from_an_estimator(world, tmp_path, smpl_file, capsys):
    pytest.importorskip("tyro", reason="the command line needs tyro")
    data = load_dataset("market1501", world)
    records = [*data.train, *data.query, *data.gallery]
    rows = np.stack([theta(i) for i in range(len(records))])
    rows[:, 3:6] = 0
    names = np.array([str(r.path) for r in records])
    np.savez(tmp_path / "hmr.npz", theta=rows[1:], imgname=names[1:])  # one training image without
    command = [
        "import-meshes",
        str(tmp_path / "hmr.npz"),
        "--root",
        str(world),
        "--smpl",
        str(smpl_file),
        "--height",
        str(H),
        "--width",
        str(W),
    ]
    assert main(command) == 1
    assert f"1 image without a mesh: {records[0].path.name}" in capsys.readouterr().err
    assert main([*command, "--missing", "leave-out", "--preview", str(tmp_path / "preview.png"), "--rendered"]) == 0
    assert (tmp_path / "preview.png").stat().st_size > 1000
    assert len(list((world / "mesh" / "market" / "train" / "render_90").iterdir())) == len(data.train) - 1
    settings = tmp_path / "toy.yaml"
    settings.write_text(SETTINGS)
    from gcl_fast.models import IdentityEncoder

    encoder = IdentityEncoder("jvtc", "resnet18", width=8)
    torch.save(encoder.state_dict(), tmp_path / "id.pt")
    command = [
        "train",
        "--config",
        str(settings),
        "--root",
        str(world),
        "--runs",
        str(tmp_path),
        "--name",
        "run",
        "--stage",
        "2",
        "--init",
        str(tmp_path / "id.pt"),
        "--model.variant",
        "jvtc",
        "--model.pooling",
        "avg",
        "--stage2.batch-size",
        "3",
        "--stage2.iters",
        "1",
    ]
    assert main(command) == 1
    assert "--skip-unmeshed" in capsys.readouterr().err
    assert main([*command, "--skip-unmeshed"]) == 0
    assert (tmp_path / "run" / "stage2" / "last.pt").exists() and "left out" in capsys.readouterr().out
