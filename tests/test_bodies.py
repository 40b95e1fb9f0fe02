"""Mesh files, mesh sources, and the parametric body."""

from __future__ import annotations

import pickle
import threading
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gcl_fast import ops
from gcl_fast.meshes import (
    RenderedFolders,
    VertexMeshes,
    mesh_key,
    open_mesh_source,
    project,
    read_mesh,
    turn,
    write_faces,
    write_mesh,
)
from gcl_fast.meshes.foreground import read_people
from gcl_fast.meshes.mesh_files import read_mask, write_image_size

SIZE = (16, 8)
VERTS = np.array([[-0.3, -0.8, 0.1], [0.3, -0.8, 0.0], [0.2, 0.8, 0.05], [-0.2, 0.8, -0.1]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
CAMERA = np.array([1.0, 0.0, 0.0], np.float32)
EYE = np.array([0.0, 0.0, 4.0, 2.0, 0.0, 0.0], np.float32)


def record(path: str) -> SimpleNamespace:
    return SimpleNamespace(path=path)


def expected(camera: np.ndarray, yaws: list[float]) -> torch.Tensor:
    verts, faces, camera = (torch.from_numpy(a) for a in (VERTS, FACES, camera))
    return ops.render_mesh(verts[None], faces, camera[None], yaws, SIZE)[0, :, 0]


# --- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("camera", [CAMERA, EYE])
def test_a_mesh_comes_back_as_written(tmp_path, dtype, camera):
    path = tmp_path / "deep" / "0001_c1s1_000001_00.npz"
    write_mesh(path, VERTS.astype(dtype), camera, FACES)
    mesh = read_mesh(path)
    assert np.array_equal(mesh.vertices, VERTS.astype(dtype).astype(np.float32)) and mesh.vertices.dtype == np.float32
    assert np.array_equal(mesh.camera, camera) and np.array_equal(mesh.faces, FACES) and mesh.faces.dtype == np.int32
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    first = path.read_bytes()
    write_mesh(path, VERTS.astype(dtype), camera, FACES)
    assert path.read_bytes() == first
    with np.load(path) as archive:  # also what plain numpy reads
        assert sorted(archive.files) == ["camera", "faces", "vertices"]
        assert archive["vertices"].dtype == (np.float16 if dtype is np.float16 else np.float32)  # half the bytes stay so
    with zipfile.ZipFile(path) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # no time of day


def test_files_of_numpys_own_are_read(tmp_path):
    wide = {"vertices": VERTS.astype(np.float64), "camera": CAMERA.astype(np.float64)}
    np.savez_compressed(tmp_path / "m.npz", **wide, something_else=np.zeros(2))
    mesh = read_mesh(tmp_path / "m.npz")
    assert np.array_equal(mesh.vertices, VERTS) and mesh.faces is None
    assert mesh.vertices.dtype == mesh.camera.dtype == np.float32


def test_a_mask_is_grey_levels_of_a_picture(tmp_path):
    path = tmp_path / "a.npz"
    for mask in (np.zeros((4, 4), np.float32), np.zeros((4, 4, 1), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"mask must be uint8 \[h, w\], got"):
            write_mesh(path, VERTS, CAMERA, mask=mask)
        assert not path.exists()
        np.savez(path, vertices=VERTS, camera=CAMERA, mask=mask)
        with pytest.raises(ValueError, match=r"a\.npz: mask must be uint8 \[h, w\], got"):
            read_mask(path)
        path.unlink()
    write_mesh(path, VERTS, CAMERA, mask=np.full((2, 3), 7, np.uint8))
    assert read_mask(path).tolist() == [[7, 7, 7]] * 2


def test_bodies_stretched_for_images_of_another_shape_are_refused(tmp_path):
    write_mesh(tmp_path / "a.npz", VERTS, CAMERA, FACES)
    write_image_size(tmp_path, (32, 16))
    for fits in (SIZE, (32, 16), (256, 128)):
        assert VertexMeshes(tmp_path, "market1501", fits).image_size == fits
    for other in ((8, 16), (16, 9), (256, 256)):
        with pytest.raises(ValueError, match=f"for images of 32x16 pixels, stretched otherwise than the {other[0]}x{other[1]}"):
            VertexMeshes(tmp_path, "market1501", other)
    (tmp_path / "image_size.json").write_text("{}")
    with pytest.raises(ValueError, match=r"image_size\.json: expected"):
        VertexMeshes(tmp_path, "market1501", SIZE)


def test_bad_mesh_files_are_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "bad.npz"
    with pytest.raises(FileNotFoundError, match=r"bad\.npz"):
        read_mesh(path)
    for content, words in (
        ({"vertices": VERTS}, "camera"),
        ({"camera": CAMERA}, "vertices"),
        ({"vertices": VERTS[:, :2], "camera": CAMERA}, r"vertices .*\[V, 3\].*\[4, 2\]"),
        ({"vertices": VERTS, "camera": CAMERA[:2]}, r"camera .*\[3\].*\[2\]"),
        ({"vertices": VERTS * np.nan, "camera": CAMERA}, "vertices must be finite"),
        ({"vertices": VERTS, "camera": np.full(3, np.inf, np.float32)}, "camera must be finite"),
        ({"vertices": VERTS.astype(np.float64) * 1e300, "camera": CAMERA}, "vertices must be finite in float32"),
        ({"vertices": VERTS, "camera": CAMERA.astype(np.float64) * 1e300}, "camera must be finite in float32"),
        ({"vertices": VERTS, "camera": np.float32([-0.5, 0, 0])}, r"camera must have a scale s above 0, got \[-0\.5"),
        ({"vertices": VERTS, "camera": np.float32([0, 0, 8, 0, 0, 0])}, "camera must have a focal length f above 0, got"),
        ({"vertices": VERTS, "camera": CAMERA, "faces": FACES + 2}, "faces must be .*below V=4"),
        ({"vertices": VERTS, "camera": CAMERA, "faces": FACES.astype(np.float32)}, "faces must be int32"),
        ({"vertices": np.array([object()]), "camera": CAMERA}, "keys vertices and camera"),
    ):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=words) as error:
            read_mesh(path)
        assert str(path) in str(error.value)
    write_mesh(path, VERTS, CAMERA)
    whole = path.read_bytes()
    for broken in (b"", b"no zip", whole[: len(whole) // 2], pickle.dumps({"vertices": 1})):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"bad\.npz"):
            read_mesh(path)


def test_nothing_is_left_of_a_mesh_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="camera"):
        write_mesh(tmp_path / "a.npz", VERTS, CAMERA[:1])
    for faces in (FACES[:, :2], FACES - 1, FACES + 0.5, FACES + np.nan, FACES + np.int64(2**32)):
        with pytest.raises(ValueError, match="faces must be"):
            write_faces(tmp_path, faces)
        with pytest.raises(ValueError, match="faces must be"):
            write_mesh(tmp_path / "a.npz", VERTS, CAMERA, faces)
    assert not list(tmp_path.iterdir())
    np.save(tmp_path / "faces.npy", FACES + np.int64(2**32))
    with pytest.raises(ValueError, match=r"faces\.npy: faces must be at least 0 and below 2\^31"):
        VertexMeshes(tmp_path, "market1501", SIZE)


# --- sources -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder", "path", "key"),
    [
        ("market1501", "market", "bounding_box_train/0002_c1s1_000451_03.jpg", "0002_c1s1_000451_03"),
        ("dukemtmc", "dukeMTMC", "bounding_box_train/0001_c7_f0106449.jpg", "0001_c7_f0106449"),
        ("msmt17", "msmt17", "train/0367/0367_010_10_0303noon_0606_2.jpg", "0367/0367_010_10_0303noon_0606_2"),
        ("csv", "csv", "anything/me.v2.png", "me.v2"),
    ],
)
def test_vertices_are_found_and_rendered_in_every_layout(tmp_path, name, folder, path, key):
    assert mesh_key(record(path), name) == key
    base = tmp_path / folder / "train" / "vertices"
    write_mesh(base / f"{key}.npz", VERTS, EYE)
    write_faces(base, FACES)
    source = open_mesh_source(tmp_path, name, "train", SIZE)
    assert isinstance(source, VertexMeshes)
    assert torch.equal(source.render(record(path), (0, 33.5, -90)), expected(EYE, [0, 33.5, -90]))
    absent = record(path.replace(".", "x."))
    assert source.missing([record(path), absent]) == [absent]
    with pytest.raises(FileNotFoundError, match="x"):
        source.render(absent, [0])
    again = pickle.loads(pickle.dumps(source))  # as a worker process gets it
    assert torch.equal(again.render(record(path), [10]), expected(EYE, [10]))


def test_own_faces_come_before_the_folders_and_no_faces_is_an_error(tmp_path):
    base = tmp_path / "market" / "test" / "vertices"
    write_mesh(base / "a.npz", VERTS, CAMERA, FACES)
    write_mesh(base / "b.npz", VERTS, CAMERA)
    source = open_mesh_source(tmp_path, "market1501", "test", SIZE, kind="vertices")
    assert torch.equal(source.render(record("a.jpg"), [0]), expected(CAMERA, [0]))
    with pytest.raises(ValueError, match=r"b\.npz has no key faces.*faces\.npy"):
        source.render(record("b.jpg"), [0])
    write_faces(base, np.array([[0, 1, 7]], np.int32))
    source = open_mesh_source(tmp_path, "market1501", "test", SIZE)
    assert torch.equal(source.render(record("a.jpg"), [0]), expected(CAMERA, [0]))
    with pytest.raises(ValueError, match=r"b\.npz.*at least 8.*\[4, 3\]"):
        source.render(record("b.jpg"), [0])


def write_grey(path, value, size=SIZE):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def test_authors_folders(tmp_path):
    base = tmp_path / "market" / "train"
    write_grey(base / "render" / "a.jpg", 51)
    write_grey(base / "render_45" / "a.png", 102)
    write_grey(base / "render_315" / "a.jpg", 204, (32, 16))
    write_grey(base / "render" / "b.png", 255)
    source = open_mesh_source(tmp_path, "market1501", "train", SIZE)
    assert isinstance(source, RenderedFolders)
    views = source.render(record("x/a.jpg"), [0, 45, -45, 405, 720])
    assert views.shape == (5, *SIZE) and views.dtype == torch.float32
    want = torch.tensor([51, 102, 204, 102, 51]) / 255
    torch.testing.assert_close(views, want[:, None, None].expand_as(views), rtol=0, atol=1.5 / 255)
    assert source.missing([record("a.jpg"), record("b.jpg")]) == [record("b.jpg")]  # b has no turned views
    with pytest.raises(FileNotFoundError, match=r"render_45.b\.jpg"):
        source.render(record("b.jpg"), [45])
    for yaw in (90, 30, 44.5):
        with pytest.raises(ValueError, match=rf"yaw {yaw}.*render, render_45, render_315.*45 degrees"):
            source.render(record("a.jpg"), [yaw])
    write_grey(base / "render" / "c.bmp", 153)  # the image's own extension
    assert source.render(record("c.bmp"), [0]).mean() == pytest.approx(153 / 255, abs=1e-6)
    (base / "render" / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"render.a\.jpg"):
        source.render(record("a.jpg"), [0])


def test_vertices_are_preferred_and_kind_decides(tmp_path):
    write_grey(tmp_path / "csv" / "train" / "render" / "a.png", 255)
    with pytest.raises(FileNotFoundError, match="no meshes of csv train: expected .*vertices with one"):
        open_mesh_source(tmp_path, "csv", "train", SIZE, "vertices")
    assert isinstance(open_mesh_source(tmp_path, "csv", "train", SIZE), RenderedFolders)
    write_mesh(tmp_path / "csv" / "train" / "vertices" / "a.npz", VERTS, CAMERA, FACES)
    assert isinstance(open_mesh_source(tmp_path, "csv", "train", SIZE), VertexMeshes)
    assert isinstance(open_mesh_source(tmp_path, "csv", "train", SIZE, "rendered"), RenderedFolders)


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "dukeMTMC" / "wrong").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        open_mesh_source(tmp_path, "dukemtmc", "test", SIZE)
    for words in ("dukeMTMC/test/vertices", "dukeMTMC/test/render", "render_315", "dukeMTMC holds wrong"):
        assert words in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_mesh_source(tmp_path / "nowhere", "csv", "train", SIZE, "vertices")
    for arguments in (("mars", "train", SIZE), ("csv", "val", SIZE), ("csv", "train", SIZE, "smpl")):
        with pytest.raises(ValueError, match=arguments[-1] if len(arguments) > 3 else "market1501|train or test"):
            open_mesh_source(tmp_path, *arguments)


def test_two_images_of_one_name_in_own_data_are_refused(tmp_path):
    write_mesh(tmp_path / "csv" / "train" / "vertices" / "a.npz", VERTS, CAMERA, FACES)
    source = open_mesh_source(tmp_path, "csv", "train", SIZE)
    assert source.missing([record("x/a.jpg"), record("x/a.jpg")]) == []
    with pytest.raises(ValueError, match="share the mesh name 'a': rename one, or put the meshes into folders"):
        source.missing([record("x/a.jpg"), record("y/a.jpg")])
    with pytest.raises(ValueError, match="share the mesh name 'a': rename one, or move one into another folder"):
        source.missing([record("x/a.jpg"), record("x/a.png")])


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.npz"
    writers = [threading.Thread(target=write_mesh, args=(path, VERTS + i, CAMERA)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    offset = (read_mesh(path).vertices - VERTS)[0, 0]
    assert offset == pytest.approx(round(float(offset)), abs=1e-6) and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


# --- the parametric body -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def body():
    from gcl_fast.meshes.anny_body import AnnyBody

    return AnnyBody()


def bone(body, joints, name):
    return joints[0, body.bone_names.index(name)]


def test_a_person_stands_upright_and_faces_the_camera(body):
    verts, joints = body.vertices_and_joints()
    assert verts.dtype == torch.float32 and verts.shape == (1, len(body.vertex_bone), 3)
    assert body.faces.max() < verts.shape[1] and body.texture_faces.max() < len(body.texture_coordinates)
    assert body.texture_faces.shape == body.faces.shape
    low, high = verts[0].amin(0), verts[0].amax(0)
    assert 1.4 < high[1] - low[1] < 2.1  # metres, along y
    head, foot = bone(body, joints, "head"), bone(body, joints, "foot.L")
    assert head[1] < foot[1]  # y points down
    assert bone(body, joints, "eye.L")[2] < head[2] and bone(body, joints, "toe1-1.L")[2] < foot[2]  # front is -z
    assert foot[0] > 0 > bone(body, joints, "foot.R")[0]  # their left hand side is at our right
    a, b, c = verts[0].double()[body.faces.long()].unbind(1)
    assert (a * torch.linalg.cross(b, c)).sum() > 0  # faces wind outwards: positive volume in a right-handed frame


def test_poses_move_what_they_name(body):
    rest = body.vertices_and_joints()[1]
    for names, axis, check in (
        ("upperleg01.L foot.L", [-0.5, 0, 0], lambda d: d[2] < -0.2),  # a negative angle about x swings it forwards
        ("upperarm01.L wrist.L", [0, 0, 0.5], lambda d: d[0] < -0.1 and d[1] > 0),  # down, towards the body
        ("root wrist.L", [0, 0.5, 0], lambda d: d[2] < -0.1),  # as a positive yaw
    ):
        moved, watched = names.split()
        joints = body.vertices_and_joints(poses={moved: axis})[1]
        assert check(bone(body, joints, watched) - bone(body, rest, watched))
        if moved != "root":
            torch.testing.assert_close(bone(body, joints, "foot.R"), bone(body, rest, "foot.R"))


def test_root_turn_is_a_yaw(body):
    turned = body.vertices(poses={"root": [0.0, np.pi / 2, 0.0]})
    want = turn(body.vertices().double(), [90])[:, 0].float()
    shift = (turned - want).mean(1, keepdim=True)
    torch.testing.assert_close(turned - shift, want, atol=1e-5, rtol=0)


def test_batches_are_the_single_bodies(body):
    pose = body.pose({"lowerleg01.R": torch.tensor([[0.3, 0, 0], [0.6, 0, 0]]), "head": [0, 0.2, 0]})
    phenotypes = {"height": [0.2, 0.9], "gender": 0.1}
    both = body.vertices(phenotypes, pose)
    for i, height in enumerate((0.2, 0.9)):
        torch.testing.assert_close(both[i : i + 1], body.vertices({"height": height, "gender": 0.1}, pose[i : i + 1]))
    table = torch.full((2, 6), 0.5)
    table[:, body.phenotype_names.index("height")] = torch.tensor([0.2, 0.9])
    table[:, body.phenotype_names.index("gender")] = 0.1
    torch.testing.assert_close(body.vertices(table, pose), both)
    assert both[1, :, 1].amax() - both[1, :, 1].amin() > both[0, :, 1].amax() - both[0, :, 1].amin()
    assert body.vertices(torch.zeros(0, 6)).shape == (0, both.shape[1], 3)


def test_body_errors_name_the_argument(body):
    for call, words in (
        (lambda: body.pose({"tail": [0, 0, 0]}), "'tail'"),
        (lambda: body.pose({"head": [0, 0]}), "rotation_vector"),
        (lambda: body.pose({"head": np.zeros((2, 3)), "root": np.zeros((3, 3, 3))}), "batch size"),
        (lambda: body.vertices({"iq": 0.5}), "iq"),
        (lambda: body.vertices({"age": 1.5}), r"\[0, 1\]"),
        (lambda: body.vertices({"age": [0.1, 0.2], "height": [0.1, 0.2, 0.3]}), "batch size"),
        (lambda: body.vertices(None, torch.zeros(1, 3, 3)), "poses"),
        (lambda: body.vertices(torch.zeros(2, 6), torch.eye(3).expand(3, len(body.bone_names), 3, 3)), "batch size"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_its_picture_shows_head_over_feet_and_two_hands(body):
    verts = body.vertices()
    middle = (verts.amin(1) + verts.amax(1)) / 2
    camera = torch.tensor([[1.05, -middle[0, 0], -middle[0, 1]]])
    image = ops.render_mesh(verts, body.faces, camera, [0, 90], (64, 48))[0, :, 0]
    rows = (image > 0).sum(2)  # [2, 64] width of the body in each row
    assert rows[:, 6:58].all() and not rows[:, 0].any() and not rows[:, -1].any()
    assert rows[0].max() > 1.4 * rows[1].max()  # a person is wider from the front than from the side
    across = (image[0] > 0).int().diff(dim=1).abs().sum(1)  # outlines crossed in each row
    assert across[26:32].max() >= 6 and across[50] == 4  # arm, trunk, arm; two legs
    left, right = (
        project(joint[None, None], camera, (64, 48))[0, 0, 0]
        for joint in (bone(body, body.vertices_and_joints()[1], "wrist.L"), bone(body, body.vertices_and_joints()[1], "wrist.R"))
    )
    assert left > 24 > right


def test_people_are_where_the_mask_says_or_else_the_body(tmp_path) -> None:
    folder = tmp_path / "market" / "train" / "vertices"
    write_faces(folder, FACES)
    mask = np.zeros((32, 16), np.uint8)
    mask[8:24, 4:8] = 255
    write_mesh(folder / "a.npz", VERTS, CAMERA, mask=mask)
    write_mesh(folder / "b.npz", VERTS, CAMERA)
    source = open_mesh_source(tmp_path, "market1501", "train", SIZE)
    told = []
    people = read_people(source, [record("b.jpg"), record("a.jpg")], progress=lambda *counts: told.append(counts))
    assert people.dtype == torch.bool and people.shape == (2, 1, *SIZE) and told == [(1, 2), (2, 2)]
    assert torch.equal(people[0, 0], expected(CAMERA, [0])[0] > 0) and people[0].any()
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[4:12, 2:4] = True
    assert torch.equal(people[1, 0], inside)
    assert not len(read_people(source, []))
    dark = SimpleNamespace(mask=lambda record: None, render=lambda record, yaws: torch.tensor([[[0.0, 0.25]]]))
    assert read_people(dark, [record("c.jpg")]).tolist() == [[[[False, True]]]]  # a body's side that is turned away
