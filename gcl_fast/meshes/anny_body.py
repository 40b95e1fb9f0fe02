"""Anny bodies: from the freely usable parametric model Anny (Apache-2.0 code, CC0 assets), in this package's body axes.

Axes: x right, y down, z forward (away from the camera), metres; the origin is the root bone (pelvis), not the floor.
At yaw 0 the person stands upright and faces the camera, that is towards -z, so the person's left hand is at +x.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gcl_fast.packages import missing

Phenotypes = Mapping[str, Tensor | npt.ArrayLike] | Tensor | np.ndarray
Poses = Mapping[str, Tensor | npt.ArrayLike] | Tensor | np.ndarray

# Anny's frame is x right, y away, z up. ours = _AXES @ anny; a proper rotation, so faces keep their winding.
_AXES = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))


@functools.lru_cache(maxsize=1)
def _model() -> Any:
    try:
        import anny
    except ImportError as error:
        raise missing("anny", "AnnyBody", error) from error
    return anny.Anny(skinning_method="lbs").eval()  # plain torch skinning: the same result on every machine


def rotation_matrix(rotation_vector: Tensor | np.ndarray | Sequence[float]) -> Tensor:
    """Axis-angle vectors [..., 3] in radians -> rotation matrices [..., 3, 3] float64 (Rodrigues' formula)."""
    vector = torch.as_tensor(rotation_vector, dtype=torch.float64)
    if vector.shape[-1:] != (3,):
        raise ValueError(f"rotation_matrix: rotation_vector must have shape [..., 3], got {list(vector.shape)}")
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))  # [..., 3, 3]
    return torch.linalg.matrix_exp(skew)


class AnnyBody:
    """A human body: phenotype and pose in, vertices out. The model is loaded once a process.

    >>> body = AnnyBody()
    >>> pose = body.pose({"upperleg01.L": [0.4, 0.0, 0.0], "upperarm01.R": [0.0, 0.0, -0.6]})   # radians
    >>> verts = body.vertices({"gender": 0.2, "height": 0.7}, pose)                             # [1, V, 3]

    faces                [F, 3] int32
    texture_coordinates  [T, 2] float32 in [0, 1], with texture_faces [F, 3] int32 into it
    template             [V, 3] float32, the average body in the rest pose (arms lowered by 45 degrees)
    vertex_bone          [V] int64, the bone that moves a vertex most
    bone_names           104 names such as "upperleg01.L" (the person's left), "lowerarm01.R", "spine03", "head"
    bone_parents         the parent of each bone, -1 for "root"
    phenotype_names      gender, age, muscle, weight, height, proportions
    """

    def __init__(self) -> None:
        model = _model()
        self._model = model
        self._axes = torch.tensor(_AXES, dtype=torch.float64)
        self.bone_names: tuple[str, ...] = tuple(model.bone_labels)
        self.bone_parents: tuple[int, ...] = tuple(int(p) for p in model.bone_parents)
        self.phenotype_names: tuple[str, ...] = tuple(model.phenotype_labels)
        self.faces: Tensor = model.faces.to(torch.int32)
        self.texture_coordinates: Tensor = model.texture_coordinates.to(torch.float32)
        self.texture_faces: Tensor = model.face_texture_coordinate_indices.to(torch.int32)
        strongest = model.vertex_bone_weights.argmax(1, keepdim=True)
        self.vertex_bone: Tensor = model.vertex_bone_indices.gather(1, strongest).squeeze(1).to(torch.int64)

    @functools.cached_property
    def blend_weights(self) -> tuple[Tensor, Tensor]:
        """Bones [V, n] int64 that move each vertex, and by how much [V, n] float32, rows summing to 1."""
        return self._model.vertex_bone_indices.to(torch.int64), self._model.vertex_bone_weights.to(torch.float32)

    @functools.cached_property
    def template(self) -> Tensor:
        return self.vertices()[0]

    def pose(self, rotations: Mapping[str, Tensor | npt.ArrayLike]) -> Tensor:
        """Local bone rotations by name -> pose [B, J, 3, 3] float64; bones not named keep the rest pose.

        Arguments:
            rotations: bone name -> axis-angle in radians, [3] or [B, 3], or a matrix, [3, 3] or [B, 3, 3]. A plain [3, 3] is
                read as one matrix; give three axis-angle vectors as matrices (rotation_matrix).

        Axes are the body's own (x right, y down, z forward) in the rest pose, each relative to the parent bone:
        about +x a downward bone (leg, arm) swings backwards, a negative angle forwards; about +y the part turns
        as with a positive yaw; about +z the head leans to image right, and a lowered left arm moves towards the body.
        """
        matrices: dict[str, Tensor] = {}
        for name, value in rotations.items():
            if name not in self.bone_names:
                known = ", ".join(self.bone_names)
                raise ValueError(f"pose: rotations must name bones of the model, got {name!r}; bones: {known}")
            given = torch.as_tensor(np.asarray(value), dtype=torch.float64)
            if given.shape[-2:] != (3, 3):
                given = rotation_matrix(given)
            if given.dim() not in (2, 3):
                raise ValueError(
                    f"pose: rotations[{name!r}] must have shape [3], [B, 3], [3, 3] or [B, 3, 3], got {list(np.shape(value))}"
                )
            matrices[name] = given.reshape(-1, 3, 3)
        sizes = {m.shape[0] for m in matrices.values()} - {1}
        if len(sizes) > 1:
            raise ValueError(f"pose: rotations must agree in their batch size, got {sorted(sizes)}")
        batch = sizes.pop() if sizes else 1
        pose = torch.eye(3, dtype=torch.float64).expand(batch, len(self.bone_names), 3, 3).clone()  # [B, J, 3, 3]
        for name, matrix in matrices.items():
            pose[:, self.bone_names.index(name)] = matrix
        return pose

    def vertices(self, phenotypes: Phenotypes | None = None, poses: Poses | None = None) -> Tensor:
        """Posed bodies: [B, V, 3] float32, metres. Deterministic.

        Arguments:
            phenotypes: name -> value in [0, 1] or [B] of them (missing names 0.5), or [B, 6] in the order of phenotype_names.
            poses: None, what `pose` returns, [B, J, 3, 3] local rotations, or a mapping as `pose` takes. A batch of one is
                repeated to the size of the other argument.

        Gradient: none.
        Errors: ValueError naming the argument; MissingPackageError where anny is missing.
        """
        return self.vertices_and_joints(phenotypes, poses)[0]

    @torch.no_grad()
    def vertices_and_joints(self, phenotypes: Phenotypes | None = None, poses: Poses | None = None) -> tuple[Tensor, Tensor]:
        """As `vertices`, with the positions of the bones' heads: [B, V, 3] and [B, J, 3] float32."""
        shapes = self._phenotypes(phenotypes)
        if poses is None or isinstance(poses, Mapping):
            poses = self.pose(poses or {})
        poses = torch.as_tensor(poses, dtype=torch.float64)
        bones = len(self.bone_names)
        if poses.dim() != 4 or tuple(poses.shape[1:]) != (bones, 3, 3):
            raise ValueError(f"AnnyBody: poses must have shape [B, {bones}, 3, 3], got {list(poses.shape)}")
        batch = shapes.shape[0] if poses.shape[0] == 1 else poses.shape[0]
        if shapes.shape[0] not in (1, batch):
            raise ValueError(f"AnnyBody: phenotypes and poses must agree in their batch size, got {shapes.shape[0]} and {batch}")
        if batch == 0:
            return torch.zeros(0, len(self.vertex_bone), 3), torch.zeros(0, bones, 3)
        deltas = torch.eye(4, dtype=torch.float64).repeat(batch, bones, 1, 1)  # [B, J, 4, 4]
        deltas[:, :, :3, :3] = self._axes.T @ poses @ self._axes
        out = self._model(deltas, shapes.expand(batch, -1))
        verts = out["vertices"] @ self._axes.T  # [B, V, 3]
        joints = out["bone_poses"][:, :, :3, 3] @ self._axes.T  # [B, J, 3]
        return verts.float(), joints.float()

    def _phenotypes(self, phenotypes: Phenotypes | None) -> Tensor:
        names = self.phenotype_names
        if phenotypes is None or isinstance(phenotypes, Mapping):
            given = dict(phenotypes or {})
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ValueError(f"AnnyBody: phenotypes must be among {', '.join(names)}, got {', '.join(unknown)}")
            columns = [torch.as_tensor(given.get(name, 0.5), dtype=torch.float64).reshape(-1) for name in names]
            try:
                table = torch.stack(torch.broadcast_tensors(*columns), 1)  # [B, 6]
            except RuntimeError as error:
                sizes = {n: c.numel() for n, c in zip(names, columns, strict=True)}
                raise ValueError(f"AnnyBody: phenotypes must agree in their batch size, got {sizes}") from error
        else:
            table = torch.as_tensor(phenotypes, dtype=torch.float64)
        if table.dim() != 2 or table.shape[1] != len(names):
            raise ValueError(f"AnnyBody: phenotypes must have shape [B, {len(names)}], got {list(table.shape)}")
        if not bool(((table >= 0) & (table <= 1)).all()):
            raise ValueError("AnnyBody: phenotypes must lie in [0, 1]")
        return table
