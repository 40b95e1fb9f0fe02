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
from gcl_fast.errors import InputError, MissingPackageError
from gcl_fast.meshes import open_mesh_source, project, read_mesh
from gcl_fast.meshes.importing.estimates import read_estimates
from gcl_fast.meshes.importing.estimator_cameras import reshape_image
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.mean_body import mean_body
from gcl_fast.meshes.mesh_files import Mesh
from gcl_fast.meshes.preview import overlay, preview_meshes
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.ops.camera import turn
from gcl_fast.records import Record, ReIDData
from tests.test_convert import MakesFolder
from tests.tiny_smpl import tiny_smpl, write_python2_pickle
from tests.toy_world import SETTINGS, SIZE, ellipsoid, write_toy_world

STEM = "0001_c1s1_000000_00"
VERTICES, FACES = ellipsoid()
BOX = (18.0, 44.0, 90.0)  # centre x, y and side of a crop that is not the whole image
H, W = SIZE


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Images with no mesh yet."""
    import shutil

    root = write_toy_world(tmp_path / "data", people=2, images=3)
    shutil.rmtree(root / "mesh")
    return root


@pytest.fixture(scope="module")
def smpl_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("smpl") / "SMPL_NEUTRAL.pkl"
    write_python2_pickle(path, tiny_smpl())
    return path


def imported(root: Path, files: list[Path], stem: str = STEM, **options: object) -> Mesh:
    import_meshes(load_dataset("market1501", root), files, image_size=SIZE, missing="leave-out", **options)
    return read_mesh(root / "mesh" / "market" / "train" / "vertices" / f"{stem}.npz")


def pixels(mesh: Mesh, size: tuple[int, int] = SIZE) -> np.ndarray:
    return project(torch.from_numpy(mesh.vertices).double(), torch.from_numpy(mesh.camera).double(), size)[:, :2].numpy()


def in_crop(points: np.ndarray, box: tuple[float, float, float]) -> np.ndarray:
    """Crop coordinates in [-1, 1] -> pixels of the image."""
    return np.array(box[:2]) + box[2] / 2 * points


def pinhole(vertices: np.ndarray, translation: np.ndarray, focal: float) -> np.ndarray:
    p = vertices + translation
    return focal * p[:, :2] / p[:, 2:]


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
        path.write_text(json.dumps({"theta": [row.tolist()]}))
    elif form == "pkl":
        path.write_bytes(pickle.dumps({"theta": row[None], "joints": np.zeros((1, 19, 2))}, protocol=2))
    else:
        path = tmp_path / "all.npz"
        np.savez(path, theta=np.stack((theta(5), row)), imgname=np.array(["/data/else.jpg", f"/data/{STEM}.jpg"]))
    mesh = imported(world, [path], smpl=smpl_file)
    box = (W / 2, H / 2, max(H, W))
    np.testing.assert_allclose(pixels(mesh), in_crop(row[0] * (body[:, :2] + row[1:3]), box), atol=1e-4)


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


def faces_file(folder: Path) -> Path:
    np.save(folder / "triangles.npy", FACES)
    return folder / "triangles.npy"


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
    torch.save(hmr2(pred_cam_t_full=torch.tensor(full), scaled_focal_length=torch.tensor(focal)), tmp_path / f"{STEM}.pt")
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


def obj(path: Path, vertices: np.ndarray = VERTICES, faces: np.ndarray = FACES) -> Path:
    lines = [
        "# a mesh",
        *(f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in vertices),
        *("f " + " ".join(f"{i + 1}//{i + 1}" for i in f) for f in faces),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def ply(path: Path, form: str) -> Path:
    head = (
        f"ply\nformat {form} 1.0\ncomment x\nelement vertex {len(VERTICES)}\nproperty float x\nproperty float y\n"
        f"property float z\nproperty uchar red\nelement face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    if form == "ascii":
        body = "".join(f"{x} {y} {z} 7\n" for x, y, z in VERTICES) + "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)
        path.write_bytes((head + body).encode())
    else:
        end = "<" if "little" in form else ">"
        vertices = np.zeros(len(VERTICES), [("p", end + "f4", 3), ("c", "u1")])
        vertices["p"] = VERTICES
        faces = np.zeros(len(FACES), [("n", "u1"), ("i", end + "i4", 3)])
        faces["n"], faces["i"] = 3, FACES
        path.write_bytes(head.encode() + vertices.tobytes() + faces.tobytes())
    return path


@pytest.mark.parametrize("form", ["obj", "ascii", "binary_little_endian", "binary_big_endian"])
def test_surfaces(tmp_path, form):
    path = obj(tmp_path / "a.obj") if form == "obj" else ply(tmp_path / "a.ply", form)
    vertices, faces = read_surface(path)
    np.testing.assert_allclose(vertices, VERTICES, atol=1e-6)
    np.testing.assert_array_equal(faces, FACES)
    path.write_bytes(path.read_bytes()[:-12] if form != "obj" else b"v 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 9\n")
    with pytest.raises(ValueError, match=path.name):
        read_surface(path)


def test_quads_and_relative_indices(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\nf -4 -3 -2 -1\n")
    np.testing.assert_array_equal(read_surface(tmp_path / "a.obj")[1], [[0, 1, 2], [0, 2, 3]])


SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def test_an_objs_own_ways(tmp_path):
    """A byte-order mark, comments, texture seams, materials, and relative indices between the vertices."""
    path = tmp_path / "a.obj"
    faces = "usemtl a\nf 1/1 2/1 3/1 # one\nusemtl b\nf 1/2/1 3/2/1 4/2/1\nv 9 9 9\nf -2 -1 1\n"
    text = f"mtllib gone.mtl\n{SQUARE}vt 0 0\nvt 1 1\n{faces}"
    path.write_bytes(b"\xef\xbb\xbf# caf\xe9\n" + text.encode())
    vertices, faces = read_surface(path)
    assert vertices.shape == (5, 3) and vertices.dtype == np.float32 and faces.dtype == np.int32
    np.testing.assert_array_equal(faces, [[0, 1, 2], [0, 2, 3], [3, 4, 0]])


def flat_ply(corners: str, count: int = 1, vertices: str = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n") -> str:
    head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    return f"{head}element face {count}\nproperty list uchar int vertex_index\nend_header\n{vertices}{corners}"


def test_polygons_of_ply_files(tmp_path):
    path = tmp_path / "a.ply"
    path.write_text(flat_ply("4 0 1 2 3\n"))
    np.testing.assert_array_equal(read_surface(path)[1], [[0, 1, 2], [0, 2, 3]])
    path.write_text(flat_ply("3 3 2 1\n4 0 1 2 3\n3 0 1 3\n", 3))
    np.testing.assert_array_equal(read_surface(path)[1], [[3, 2, 1], [0, 1, 2], [0, 2, 3], [0, 1, 3]])
    path.write_text(flat_ply("", 0))
    assert read_surface(path)[1].shape == (0, 3)
    head, points = flat_ply("", 2).replace("ascii", "binary_little_endian").split("0 0 0\n", 1)[0], np.zeros((4, 3), "<f4")
    rows = b"".join(bytes([len(r)]) + np.array(r, "<i4").tobytes() for r in ([0, 1, 2, 3], [3, 2, 1, 0]))
    path.write_bytes(head.encode() + points.tobytes() + rows)
    np.testing.assert_array_equal(read_surface(path)[1], [[0, 1, 2], [0, 2, 3], [3, 2, 1], [3, 1, 0]])
    for rows in (b"\x04" + bytes(16) + b"\x03" + bytes(12), b"\x04" + bytes(16) + b"\x03" + bytes(16)):
        path.write_bytes(head.encode() + points.tobytes() + rows)
        with pytest.raises(ValueError, match=r"a\.ply is damaged or no PLY: "):
            read_surface(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.obj", SQUARE + "f 0 1 2\n", "indices count from 1, got 0"),
        ("a.obj", SQUARE + "f 1 2 -9\n", "faces must name vertices below 4"),
        ("a.obj", SQUARE + "f 1 2 x\n", "damaged or no OBJ"),
        ("a.obj", SQUARE + "v 1 two 3\n", "damaged or no OBJ"),
        ("a.obj", SQUARE + "v 1 2\n", "damaged or no OBJ"),
        ("a.obj", SQUARE + "v nan 0 0\n", "finite vertices, got NaN or infinity"),
        ("a.obj", "f 1 2 3\n", "finite vertices, got none"),
        ("a.obj", b"\x00\xff\x80" * 50, "finite vertices, got none"),
        ("a.ply", b"", "no PLY header"),
        ("a.ply", "plyx\n" + flat_ply("3 0 1 2\n")[4:], "no PLY header"),
        ("a.ply", flat_ply("3 0 1 2\n").partition("end_header")[0], "damaged or no PLY"),
        ("a.ply", flat_ply("3 0 1 2\n").replace("float y", "float32_t y"), "damaged or no PLY"),
        ("a.ply", flat_ply("3 0 1 2\n").replace("float y", "float w"), "damaged or no PLY"),
        ("a.ply", flat_ply("3 0 1 2\n", 2), "a row of face must have 1 numbers, got 0"),
        ("a.ply", flat_ply("3 0 1 2\n4 0 1 2\n", 2), "a row of face must have 5 numbers, got 4"),
        ("a.ply", flat_ply("4 0 1 2\n"), "a row of face must have 5 numbers, got 4"),
        ("a.ply", flat_ply("3 0 1 x\n"), "damaged or no PLY"),
        ("a.ply", flat_ply("3 0 1 4\n"), "faces must name vertices below 4, got 0 to 4"),
        ("a.ply", flat_ply("3 0 1 -1\n"), "faces must name vertices below 4, got -1 to 1"),
        ("a.ply", flat_ply("3 0 1 2\n", vertices="0 0 0\n1 nan 0\n1 1 0\n0 1 0\n"), "finite vertices, got NaN"),
    ],
)
def test_damaged_surfaces_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError, match=rf"{name}.*{words}"):
        read_surface(tmp_path / name)


def test_a_missing_surface_and_a_missing_trimesh_are_said(tmp_path, monkeypatch):
    import sys

    with pytest.raises(FileNotFoundError, match=r"gone\.obj does not exist"):
        read_surface(tmp_path / "gone.obj")
    monkeypatch.setitem(sys.modules, "trimesh.exchange.ply", None)
    (tmp_path / "a.ply").write_text(flat_ply("3 0 1 2\n"))
    with pytest.raises(MissingPackageError, match="pip install trimesh"):
        read_surface(tmp_path / "a.ply")
    np.testing.assert_array_equal(read_surface(obj(tmp_path / "a.obj"))[1], FACES)  # needs none


def test_no_file_beside_a_surface_is_opened(tmp_path):
    """Materials and textures are named in files that others wrote."""
    import os

    (tmp_path / "m.mtl").mkdir()  # reading it would fail
    (tmp_path / "a.obj").write_text(f"mtllib m.mtl\n{SQUARE}usemtl a\nf 1 2 3\n")
    text = flat_ply("3 0 1 2\n").replace("element vertex", "comment TextureFile secret.png\nelement vertex", 1)
    (tmp_path / "a.ply").write_text(text)
    opened: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(os.path.basename(str(arguments[0])))

    read_surface(tmp_path / "a.ply")  # trimesh is imported
    watching = True
    import sys

    sys.addaudithook(watch)
    try:
        read_surface(tmp_path / "a.obj"), read_surface(tmp_path / "a.ply")
    finally:
        watching = False
    assert [name for name in opened if name.startswith(("a.", "m.", "secret"))] == ["a.obj", "a.ply"]


def test_plain_vertices(world, tmp_path):
    """An .obj in front of the camera, y up, as 4D-Humans saves it; one without a camera; one with ours."""
    place, focal = np.array([0.1, 0.2, 30.0]), 1200.0
    path = obj(tmp_path / f"{STEM}.obj", (VERTICES + place) * [1, -1, -1])
    mesh = imported(world, [path], axes="y-up", focal=focal)
    np.testing.assert_allclose(pixels(mesh), pinhole(VERTICES, place, focal) + [W / 2, H / 2], atol=1e-2)
    assert abs(mesh.vertices).max() < 1  # about its own middle
    with pytest.raises(ValueError, match=rf"{STEM}.*no camera"):
        imported(world, [path])
    fitted = pixels(imported(world, [obj(path)], fit=True))
    np.testing.assert_allclose([fitted[:, 1].min(), fitted[:, 1].max()], [0.025 * H, 0.975 * H], atol=1e-3)
    np.savez(tmp_path / f"{STEM}.npz", vertices=VERTICES, faces=FACES, camera=np.array([0.7, 0.1, 0.2]))
    ours = imported(world, [tmp_path / f"{STEM}.npz"])
    np.testing.assert_allclose(ours.camera, [0.7, 0.1, 0.2], rtol=1e-6)
    np.savez(tmp_path / f"{STEM}.npz", vertices=VERTICES, faces=FACES, cam_t=place, focal=focal)
    canonical = imported(world, [tmp_path / f"{STEM}.npz"])
    np.testing.assert_allclose(pixels(canonical), pinhole(VERTICES, place, focal) + [W / 2, H / 2], atol=1e-3)


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


# --- images without a mesh ------------------------------------------------------------------------------------------------


def some(world: Path, folder: Path, count: int) -> Path:
    """Plain vertices for the first images of the data set; returns the folder."""
    folder.mkdir()
    data = load_dataset("market1501", world)
    for record in [*data.train, *data.query, *data.gallery][:count]:
        np.savez(folder / f"{record.path.stem}.npz", vertices=VERTICES, faces=FACES, camera=np.array([1.0, 0, 0]))
    return folder


def test_images_without_a_mesh_are_listed_left_out_or_given_the_mean(world, tmp_path):
    folder = some(world, tmp_path / "out", 3)
    np.savez(folder / "nobody.npz", vertices=VERTICES, faces=FACES, camera=np.array([1.0, 0, 0]))
    with pytest.raises(FileNotFoundError, match=r"9 images without a mesh: 0002_c1s1"):
        import_meshes(load_dataset("market1501", world), [folder], image_size=SIZE)
    report = import_meshes(load_dataset("market1501", world), [folder], image_size=SIZE, missing="leave-out")
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


# --- what is wrong is said ------------------------------------------------------------------------------------------------


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
        ({"vertices": VERTICES, "faces": FACES + 7, "camera": np.ones(3)}, {}, "name 87 vertices, the body has 80"),
        ({"vertices": VERTICES, "faces": FACES, "camera": np.ones(4)}, {}, "3 or 6 numbers"),
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
    assert f"1 images without a mesh: {records[0].path.name}" in capsys.readouterr().err
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
        "--stage2.batch-size",
        "3",
        "--stage2.iters",
        "1",
    ]
    assert main(command) == 1
    assert "--skip-unmeshed" in capsys.readouterr().err
    assert main([*command, "--skip-unmeshed"]) == 0
    assert (tmp_path / "run" / "stage2" / "last.pt").exists() and "left out" in capsys.readouterr().out
