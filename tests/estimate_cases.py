"""What the tests of estimators' outputs share: a toy world without meshes, a small SMPL model, and where a body shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from gcl_fast.data.datasets.load import load_dataset
from gcl_fast.meshes import project, read_mesh
from gcl_fast.meshes.importing.importer import import_meshes
from gcl_fast.meshes.mesh_files import Mesh
from tests.tiny_smpl import tiny_smpl, write_python2_pickle
from tests.toy_world import SIZE, ellipsoid, write_toy_world

STEM = "0001_c1s1_000000_00"
VERTICES, FACES = ellipsoid()
BOX = (18.0, 44.0, 90.0)  # centre x, y and side of a crop that is not the whole image
H, W = SIZE


def unmeshed_world(folder: Path) -> Path:
    """Images with no mesh yet."""
    root = write_toy_world(folder / "data", people=2, images=3)
    shutil.rmtree(root / "mesh")
    return root


def smpl_in(folder: Path) -> Path:
    path = folder / "SMPL_NEUTRAL.pkl"
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


def faces_file(folder: Path) -> Path:
    np.save(folder / "triangles.npy", FACES)
    return folder / "triangles.npy"


def obj(path: Path, vertices: np.ndarray = VERTICES, faces: np.ndarray = FACES) -> Path:
    lines = [
        "# a mesh",
        *(f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in vertices),
        *("f " + " ".join(f"{i + 1}//{i + 1}" for i in f) for f in faces),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def some(world: Path, folder: Path, count: int) -> Path:
    """Plain vertices for the first images of the data set; returns the folder."""
    folder.mkdir()
    data = load_dataset("market1501", world)
    for record in [*data.train, *data.query, *data.gallery][:count]:
        np.savez(folder / f"{record.path.stem}.npz", vertices=VERTICES, faces=FACES, camera=np.array([1.0, 0, 0]))
    return folder
