"""SMPL bodies from the user's own model file: linear blend skinning as the paper defines it.

Source: Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015, equations 2 to 10. The model's files are
their authors' and for their licensees; nothing of them is here, and the package smplx is not needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gcl_fast.archives import read_npz
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.meshes.mesh_files import why_no_arrays
from gcl_fast.meshes.plain_pickle import read_plain_pickle

KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")


def rotations(vectors: np.ndarray) -> np.ndarray:
    """Axis-angle [..., 3] in radians -> rotation matrices [..., 3, 3] float64 (Rodrigues)."""
    vectors = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]  # [..., 1, 1]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    k = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).reshape(*x.shape, 3, 3)
    small = angle < 1e-6  # sin(a)/a and (1 - cos a)/a^2 by their series there
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - angle**2 / 24, 2 * np.square(np.sin(safe / 2) / safe))
    return np.eye(3) + first * k + second * (k @ k)


@dataclass(frozen=True)
class SMPL:
    """A body model: `vertices(pose, shape)`.

    template     [V, 3] mean body, metres
    shape_dirs   [V, 3, S]; pose_dirs [V, 3, 9 (K - 1)]
    regressor    [K, V] joints from vertices; weights [V, K] of skinning
    parents      [K] int64, -1 for the root, each before its children
    faces        [F, 3] int32
    """

    template: np.ndarray
    shape_dirs: np.ndarray
    pose_dirs: np.ndarray
    regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    faces: np.ndarray

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SMPL:
        """From the published .pkl (also with chumpy objects, which need no chumpy) or an .npz of the same keys.

        Nothing in the file is executed.

        Errors: MissingFileError, or InputError naming the file and the key.
        """
        path = Path(path)
        if path.suffix == ".npz":
            try:
                data = read_npz(path, keys=KEYS)
            except FileNotFoundError:
                raise MissingFileError(f"SMPL model {path} does not exist") from None
            except Exception as error:
                raise InputError(f"SMPL model {path} is truncated or no .npz of plain arrays: {why_no_arrays(error)}") from error
        else:
            data = read_plain_pickle(path)
        if not isinstance(data, dict):
            raise InputError(f"SMPL model {path} must hold named arrays, got {type(data).__name__}")
        missing = [k for k in KEYS if not isinstance(data.get(k), np.ndarray)]
        if missing:
            raise InputError(f"SMPL model {path} has no array {', '.join(missing)}; expected {', '.join(KEYS)}")
        try:
            return cls._of(data)
        except (ValueError, IndexError) as error:
            raise InputError(f"SMPL model {path}: {error}") from None

    @classmethod
    def _of(cls, data: dict[str, np.ndarray]) -> SMPL:
        template, weights, regressor = (np.asarray(data[k], np.float64) for k in ("v_template", "weights", "J_regressor"))
        if template.ndim != 2 or weights.ndim != 2:
            raise ValueError(f"v_template must be [V, 3] and weights [V, K], got {template.shape} and {weights.shape}")
        count, joints = len(template), weights.shape[1]
        expected = {
            "v_template": (count, 3),
            "weights": (count, joints),
            "J_regressor": (joints, count),
            "posedirs": (count, 3, 9 * (joints - 1)),
            "kintree_table": (2, joints),
        }
        wrong = [
            f"{k} must be {list(shape)}, got {list(data[k].shape)}" for k, shape in expected.items() if data[k].shape != shape
        ]
        shapes = data["shapedirs"].shape
        if wrong or len(shapes) != 3 or shapes[:2] != (count, 3):
            raise ValueError("; ".join(wrong) or f"shapedirs must be [{count}, 3, S], got {list(shapes)}")
        table = data["kintree_table"].astype(np.int64)  # the root's parent is 2^32 - 1
        where = {int(name): i for i, name in enumerate(table[1])}
        parents = np.array([-1] + [where.get(int(p), joints) for p in table[0, 1:]], np.int64)
        if np.any(parents >= np.arange(joints)):
            raise ValueError("kintree_table must name each parent before its children")
        faces = data["f"].astype(np.int64)
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.min(initial=0) < 0 or faces.max(initial=0) >= count:
            raise ValueError(f"f must be [F, 3] vertices below {count}, got {list(faces.shape)}")
        shape_dirs, pose_dirs = (np.asarray(data[k], np.float64) for k in ("shapedirs", "posedirs"))
        for name, array in (("v_template", template), ("shapedirs", shape_dirs), ("posedirs", pose_dirs), ("weights", weights)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        return cls(template, shape_dirs, pose_dirs, regressor, weights, parents, faces.astype(np.int32))

    def vertices(self, pose: np.ndarray, shape: np.ndarray) -> np.ndarray:
        """Posed bodies, [B, V, 3] float32, in the frame of the pose's root rotation; no translation.

        pose   [B, 3 K] axis-angle in radians, or rotation matrices [B, K, 3, 3]
        shape  [B, up to S] coefficients; fewer than the model has leave the others 0
        """
        count = len(self.parents)
        pose, shape = np.asarray(pose, np.float64), np.asarray(shape, np.float64)
        if pose.ndim == 2 and pose.shape[1] == 3 * count:
            pose = rotations(pose.reshape(-1, count, 3))
        if pose.ndim != 4 or pose.shape[1:] != (count, 3, 3):
            raise InputError(f"SMPL: pose must be [B, {3 * count}] or [B, {count}, 3, 3], got {list(pose.shape)}")
        if shape.ndim != 2 or len(shape) != len(pose) or shape.shape[1] > self.shape_dirs.shape[2]:
            most = self.shape_dirs.shape[2]
            raise InputError(f"SMPL: shape must be [{len(pose)}, at most {most}], got {list(shape.shape)}")
        return np.stack([self._posed(p, s) for p, s in zip(pose, shape, strict=True)]) if len(pose) else self._none()

    def _none(self) -> np.ndarray:
        return np.zeros((0, len(self.template), 3), np.float32)

    def _posed(self, rotation: np.ndarray, shape: np.ndarray) -> np.ndarray:  # [K, 3, 3], [S]
        shaped = self.template + self.shape_dirs[:, :, : len(shape)] @ shape  # [V, 3]
        joints = self.regressor @ shaped  # [K, 3]
        bent = shaped + self.pose_dirs @ (rotation[1:] - np.eye(3)).ravel()  # [V, 3]
        turn, place = np.zeros((len(joints), 3, 3)), np.zeros((len(joints), 3))  # of each joint, in the body's frame
        for k, parent in enumerate(self.parents):
            if parent < 0:
                turn[k], place[k] = rotation[k], joints[k]
            else:
                turn[k] = turn[parent] @ rotation[k]
                place[k] = turn[parent] @ (joints[k] - joints[parent]) + place[parent]
        shift = place - np.einsum("kij,kj->ki", turn, joints)  # the rest pose taken off
        blended = np.tensordot(self.weights, turn, 1)  # [V, 3, 3]
        return (np.einsum("vij,vj->vi", blended, bent) + self.weights @ shift).astype(np.float32)
