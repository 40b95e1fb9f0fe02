"""SMPL bodies and the pickles they come in: equal to a plain rendering of the paper, and nothing executed."""

from __future__ import annotations

import collections
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix, csr_matrix
from scipy.spatial.transform import Rotation

from gcl_fast.meshes.plain_pickle import read_plain_pickle
from gcl_fast.meshes.smpl import SMPL, rotations
from tests.test_convert import MakesFolder
from tests.tiny_smpl import PARENTS, tiny_smpl, write_python2_pickle


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[dict[str, np.ndarray], SMPL]:
    path = tmp_path_factory.mktemp("smpl") / "model.npz"
    np.savez(path, **tiny_smpl())
    return tiny_smpl(), SMPL.load(path)


def posed(model: dict[str, np.ndarray], pose: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The paper's equations vertex by vertex, with 4x4 matrices."""
    matrices = [Rotation.from_rotvec(pose[3 * k : 3 * k + 3]).as_matrix() for k in range(24)]
    body = model["v_template"] + sum(model["shapedirs"][:, :, i] * b for i, b in enumerate(shape))
    joints = model["J_regressor"] @ body
    feature = np.concatenate([(m - np.eye(3)).ravel() for m in matrices[1:]])
    bent = body + sum(model["posedirs"][:, :, i] * f for i, f in enumerate(feature))
    world = []
    for k, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = matrices[k], joints[k] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    rest = [
        w @ np.block([[np.eye(3), -j[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]) for w, j in zip(world, joints, strict=True)
    ]
    return np.array(
        [
            sum(w * (g @ np.append(v, 1))[:3] for w, g in zip(weights, rest, strict=True))
            for v, weights in zip(bent, model["weights"], strict=True)
        ]
    )


def test_bodies_equal_the_paper(model):
    arrays, smpl = model
    rng = np.random.default_rng(3)
    pose, shape = rng.normal(0, 0.6, (3, 72)), rng.standard_normal((3, 10))
    got = smpl.vertices(pose, shape)
    assert got.shape == (3, 80, 3) and got.dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(got[i], posed(arrays, pose[i], shape[i]), atol=1e-6)
    np.testing.assert_array_equal(smpl.vertices(rotations(pose.reshape(3, 24, 3)), shape), got)
    np.testing.assert_allclose(smpl.vertices(pose[:1], shape[:1, :4])[0], posed(arrays, pose[0], shape[0, :4]), atol=1e-6)
    np.testing.assert_allclose(smpl.vertices(np.zeros((1, 72)), np.zeros((1, 10)))[0], arrays["v_template"], atol=1e-6)
    assert smpl.vertices(np.zeros((0, 72)), np.zeros((0, 10))).shape == (0, 80, 3)


def test_bodies_equal_smplx(model):
    lbs = pytest.importorskip("smplx.lbs", reason="smplx is not installed").lbs
    arrays, smpl = model
    rng = np.random.default_rng(4)
    pose, shape = rng.normal(0, 0.6, (2, 72)), rng.standard_normal((2, 10))
    a = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in arrays.items()}
    theirs = lbs(
        torch.from_numpy(shape),
        torch.from_numpy(pose),
        a["v_template"],
        a["shapedirs"],
        a["posedirs"].reshape(-1, 207).T,
        a["J_regressor"],
        torch.tensor(PARENTS),
        a["weights"],
    )[0]
    np.testing.assert_allclose(smpl.vertices(pose, shape), theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-6, 1e-3, 1.0, np.pi, 7.0])
def test_rotations(size):
    vector = np.array([[0.6, -0.48, 0.64], [0, 0, 1]]) * size
    np.testing.assert_allclose(rotations(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


def test_the_published_pickle_is_the_same_model(model, tmp_path):
    write_python2_pickle(tmp_path / "model.pkl", model[0])
    loaded = SMPL.load(tmp_path / "model.pkl")
    for name in ("template", "shape_dirs", "pose_dirs", "weights", "parents", "faces"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model[1], name), err_msg=name)
    np.testing.assert_allclose(loaded.regressor, model[1].regressor, rtol=1e-12)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_content_comes_back(protocol, tmp_path):
    content = {
        "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "none": None,
        "big": np.arange(3, dtype=">i2"),
        "empty": np.zeros((0, 3)),
        "zero": np.array(2.5),
        "text": np.array(["a", "bc"]),
        "bytes": b"\xff\x00",
        "scalar": np.float64(1.5),
        "list": [1, (2.0, "x")],
        "ordered": collections.OrderedDict(a=np.ones(2)),
        "objects": np.array([{"a": np.ones(2)}, None], object),
        "csc": csc_matrix(np.eye(3)),
        "csr": csr_matrix(np.eye(2, 3)),
        "tensor": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(2, dtype=torch.float16),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    got = read_plain_pickle(path)
    assert got.keys() == content.keys()
    for key in ("f4", "fortran", "big", "empty", "zero", "text"):
        np.testing.assert_array_equal(got[key], content[key])
        assert got[key].dtype == content[key].dtype
    assert got["scalar"] == 1.5 and got["list"] == [1, (2.0, "x")] and got["bytes"] == b"\xff\x00" and got["none"] is None
    assert got["ordered"]["a"].sum() == 2 and got["objects"][0]["a"].sum() == 2 and got["objects"][1] is None
    np.testing.assert_array_equal(got["csc"], np.eye(3))
    np.testing.assert_array_equal(got["csr"], np.eye(2, 3))
    np.testing.assert_array_equal(got["tensor"], np.arange(6.0).reshape(2, 3).T)
    assert got["half"].dtype == np.float16


class Calls:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_executed(protocol, tmp_path):
    mark = tmp_path / "executed"
    for content in (
        MakesFolder(mark),
        {"v_template": np.ones(3), "x": MakesFolder(mark)},
        [Calls(eval, "1")],
        Calls(getattr, dict, "x"),
        np.load,
        Rotation,
        Calls(np.ones, 3),
        np.array([MakesFolder(mark)], object),
    ):
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(ValueError, match=r"evil\.pkl was refused: it holds \S+"):
            read_plain_pickle(path)
        with pytest.raises(ValueError, match=r"evil\.pkl"):
            SMPL.load(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(MakesFolder(mark)))
    assert mark.exists()


def test_a_malicious_tensor_inside_a_pickle(tmp_path):
    import io

    import torch.storage

    inner = io.BytesIO()
    torch.save(MakesFolder(tmp_path / "executed"), inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Calls(torch.storage._load_from_bytes, inner.getvalue())))
    with pytest.raises(ValueError, match=r"evil\.pkl"):
        read_plain_pickle(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_pickles_and_self_containing_ones(tmp_path, model):
    path = tmp_path / "x.pkl"
    write_python2_pickle(path, model[0])
    whole = path.read_bytes()
    for share in (0, 1, 50, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:share])
        with pytest.raises(ValueError, match=r"x\.pkl"):
            read_plain_pickle(path)
    loop: list = []
    loop.append(loop)
    path.write_bytes(pickle.dumps(loop))
    with pytest.raises(ValueError, match="holds itself"):
        read_plain_pickle(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_plain_pickle(tmp_path / "nowhere.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": None}, "no array posedirs"),
        ({"weights": np.ones((79, 24))}, r"weights must be \[80, 24\], got \[79, 24\]|must be"),
        ({"shapedirs": np.ones((80, 3))}, r"shapedirs must be \[80, 3, S\]"),
        ({"f": np.array([[0, 1, 80]])}, "below 80"),
        ({"v_template": np.full((80, 3), np.nan)}, "v_template must be finite"),
        ({"kintree_table": np.array([PARENTS[::-1], range(24)])}, "parent before its children"),
    ],
)
def test_models_that_do_not_fit_name_file_and_key(change, message, tmp_path: Path):
    np.savez(tmp_path / "bad.npz", **{k: v for k, v in (tiny_smpl() | change).items() if v is not None})
    with pytest.raises(ValueError, match=rf"bad\.npz.*({message})"):
        SMPL.load(tmp_path / "bad.npz")


def test_bad_poses(model):
    with pytest.raises(ValueError, match=r"pose must be \[B, 72\].*\[1, 71\]"):
        model[1].vertices(np.zeros((1, 71)), np.zeros((1, 10)))
    with pytest.raises(ValueError, match=r"shape must be \[1, at most 10\], got \[1, 11\]"):
        model[1].vertices(np.zeros((1, 72)), np.zeros((1, 11)))
    assert replace(model[1], parents=model[1].parents).vertices(np.zeros((1, 72)), np.zeros((1, 0))).shape == (1, 80, 3)
