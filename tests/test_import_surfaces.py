"""OBJ and PLY files: vertices and triangles in the file's order; what is damaged is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gcl_fast.errors import InputError, MissingPackageError
from gcl_fast.meshes.importing.mesh_formats import read_surface
from tests.estimate_cases import FACES, VERTICES, obj


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
        ("a.obj", "v 1 2\nv 3 4\nv 5 6\nf 1 2 2\n", "damaged or no OBJ"),
        ("a.obj", SQUARE + "v 1e39 2 3\n", "must hold finite vertices"),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_an_obj_in_any_encoding(tmp_path, encoding):
    (tmp_path / "a.obj").write_bytes(("# café\n" + SQUARE + "f 1 2 3\n").encode(encoding))
    vertices, faces = read_surface(tmp_path / "a.obj")
    assert len(vertices) == 4 and faces.tolist() == [[0, 1, 2]]
