"""Files that are not what their names say, or claim more than they hold: one line each, before the memory is taken."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from gcl_fast.archives import read_npz
from gcl_fast.data.datasets.readable import why_broken
from gcl_fast.errors import FileError, InputError
from gcl_fast.images import MAX_PIXELS, load_uint8
from gcl_fast.meshes.importing.estimate_files import read_estimate_file
from gcl_fast.meshes.importing.mesh_formats import read_surface
from gcl_fast.meshes.mesh_files import read_faces, read_mesh
from gcl_fast.meshes.plain_pickle import read_plain_pickle
from gcl_fast.meshes.smpl import SMPL
from gcl_fast.models.weights import load_weights

SIZE = (16, 8)


def one_line(error: pytest.ExceptionInfo[BaseException], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def png(width: int, height: int) -> bytes:
    """A picture of one row, whose header claims more."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [50_000, 10_000])
def test_a_huge_picture_is_refused_by_its_header(tmp_path, side):
    path = tmp_path / "huge.png"
    path.write_bytes(png(side, side))
    with pytest.raises(FileError) as error:
        load_uint8(path, SIZE)
    one_line(error, str(path), "pixels", str(MAX_PIXELS))
    assert "pixels" in why_broken(path)


def test_a_program_named_as_a_picture_starts_no_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: pytest.fail("Ghostscript was started"))
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # Pillow alone goes by the content
    with pytest.raises(FileError) as error:
        load_uint8(path, SIZE)
    one_line(error, str(path), "a PostScript program", "JPEG")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\xff\xd8\xff", "damaged"),
    ],
)
def test_what_is_no_picture_is_told_by_its_content(tmp_path, content, words):
    path = tmp_path / "0001_c1.jpg"
    path.write_bytes(content)
    assert words in why_broken(path)
    with pytest.raises(FileError) as error:
        load_uint8(path, SIZE)
    one_line(error, str(path))


@pytest.mark.timeout(60)
def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_a_pipe_named_as_a_picture_is_not_waited_for(tmp_path):
    for name, make in (("pipe.jpg", os.mkfifo), ("folder.jpg", os.mkdir)):
        make(tmp_path / name)
        with pytest.raises(FileError, match="it is no file") as error:
            load_uint8(tmp_path / name, SIZE)
        one_line(error, str(tmp_path / name))
        assert "it is no file" in why_broken(tmp_path / name)


def test_an_array_header_of_terabytes(tmp_path):
    claims = header((10**12, 3))
    npy, npz = tmp_path / "photo.npy", tmp_path / "photo.npz"
    npy.write_bytes(claims)
    with zipfile.ZipFile(npz, "w") as archive:
        for key in ("vertices", "camera", "v_template"):
            archive.writestr(f"{key}.npy", claims)
    for read, path in (
        *((read_estimate_file, npy), (read_estimate_file, npz), (read_faces, npy), (read_mesh, npz), (SMPL.load, npz)),
    ):
        with pytest.raises(InputError) as error:
            read(path)
        one_line(error, str(path), "12,000,000,000,000")
    npy.write_bytes(header((2**40, 2**40)))  # 2^82 bytes: no 64-bit number counts them
    with pytest.raises(InputError):
        read_faces(npy)
    npy.write_bytes(header((-1, 3)))
    with pytest.raises(InputError):
        read_faces(npy)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    """A zip of some hundred kilobytes that honestly unpacks to some hundred megabytes of zeros."""
    path = tmp_path_factory.mktemp("bomb") / "photo.npz"
    count = 50 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("vertices.npy", "w") as file:
        file.write(header((count // 3, 3)))
        for _ in range(count * 4 >> 20):
            file.write(bytes(1 << 20))
    return path


def test_a_zip_bomb_is_not_unpacked(bomb, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args, **kwargs: pytest.fail("an entry was unpacked"))
    for read in (read_estimate_file, read_mesh, SMPL.load):
        with pytest.raises(InputError) as error:
            read(bomb)
        one_line(error, str(bomb), "claims to unpack")
    weights = tmp_path / "encoder.pt"
    weights.write_bytes(bomb.read_bytes())
    with pytest.raises(InputError) as error:
        load_weights(weights)
    one_line(error, str(weights), "claims to unpack")


def test_damaged_arrays_are_an_error_of_their_file(tmp_path):
    mesh, faces = tmp_path / "mesh.npz", tmp_path / "faces.npy"
    np.savez_compressed(mesh, vertices=np.random.default_rng(0).normal(size=(80, 3)), camera=np.ones(3))
    np.save(faces, np.zeros((4, 3), np.int32))
    whole, header = mesh.read_bytes(), faces.read_bytes()
    places = {"deflated": whole.index(b"vertices.npy") + 60, "version": whole.index(b"PK\x01\x02") + 6}
    for at in places.values():
        mesh.write_bytes(whole[:at] + b"\xff" * 2 + whole[at + 2 :])
        with pytest.raises(InputError) as error:
            read_mesh(mesh)
        one_line(error, str(mesh))
    faces.write_bytes(header.replace(b"(4, 3), }", b"(4, 3(, }"))
    with pytest.raises(InputError) as error:
        read_faces(faces)
    one_line(error, str(faces))


def test_honest_archives_are_read(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.asfortranarray(np.eye(3)), "c": np.zeros((0, 4)), "d": np.float32(3)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        content = read_npz(tmp_path / "x.npz")
        assert list(content) == list(arrays)
        for key, array in arrays.items():
            assert np.array_equal(content[key], array) and content[key].dtype == array.dtype and content[key].flags.writeable
    assert read_npz(tmp_path / "x.npz", keys=("a",))["b"] is None


def laughs(depth: int) -> list:
    """Lists that hold each other ten times: 10^depth items in some hundred bytes."""
    value: list = [0.0]
    for _ in range(depth):
        value = [value] * 10
    return value


def test_containers_that_hold_each_other_a_billion_times(tmp_path):
    path = tmp_path / "photo.pkl"
    path.write_bytes(pickle.dumps({"vertices": laughs(9)}))
    for read in (read_plain_pickle, read_estimate_file):
        with pytest.raises(InputError) as error:
            read(path)
        one_line(error, str(path), "hold each other")
    nested = np.empty(1, object)
    for _ in range(9):
        outer = np.empty(10, object)
        outer[:] = [nested] * 10
        nested = outer
    path.write_bytes(pickle.dumps(nested))
    with pytest.raises(InputError, match="hold each other"):
        read_plain_pickle(path)
    torch.save({"vertices": laughs(9)}, tmp_path / "photo.pt")
    with pytest.raises(InputError, match="hold each other"):
        read_estimate_file(tmp_path / "photo.pt")
    path.write_bytes(pickle.dumps(laughs(3)))
    assert read_plain_pickle(path) == laughs(3)  # what is shared honestly is read
    itself: list = []
    itself.append(itself)
    path.write_bytes(pickle.dumps(itself))
    with pytest.raises(InputError, match="holds itself"):
        read_plain_pickle(path)


def test_a_tensor_or_matrix_larger_than_its_content(tmp_path):
    torch.save({"vertices": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "photo.pt")
    with pytest.raises(InputError, match="larger than its content"):
        read_estimate_file(tmp_path / "photo.pt")
    scipy = pytest.importorskip("scipy.sparse")
    matrix = scipy.csc_matrix((1, 10))
    matrix._shape = (10**6, 10**6)
    matrix.indptr = np.zeros(10**6 + 1, np.int32)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"J_regressor": matrix}))
    with pytest.raises(InputError, match="sparse matrix of 1000000 x 1000000"):
        read_plain_pickle(tmp_path / "model.pkl")


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
def test_a_ply_that_claims_a_trillion_vertices(tmp_path, kind):
    path = tmp_path / "photo.ply"
    properties = "property float x\nproperty float y\nproperty float z\n"
    faces = "element face 1000000000000\nproperty list uchar int vertex_indices\n"
    path.write_text(f"ply\nformat {kind} 1.0\nelement vertex 1000000000000\n{properties}{faces}end_header\n0 0 0\n")
    with pytest.raises(InputError) as error:
        read_surface(path)
    one_line(error, str(path))
