"""The body that all people share: topology, blend weights, and where on the body each vertex lies.

Body axes everywhere: x right, y down, z forward (away from a camera that the person faces), metres. The person's left is +x.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gcl_fast.meshes.anny_body import AnnyBody

ARM = ("upperarm", "lowerarm")
HAND = ("wrist", "finger", "metacarpal")
LEG = ("upperleg", "lowerleg")
FOOT = ("foot", "toe")
HEAD = ("neck02", "neck03", "head", "eye")


@dataclass(frozen=True)
class Template:
    """Constants of the average body in its rest pose.

    verts     [V, 3] float32
    faces     [F, 3] int32
    weights   [V, J] float32, rows sum to 1
    joints    [J, 3] float32, where each bone starts
    names, parents   of the bones
    arm, hand, leg, foot, head   [V] float32 in [0, 1], share of the vertex that moves with these bones
    sleeve    [V] float32, 0 shoulder .. 0.5 elbow .. 1 wrist; 0 off the arms
    section   [V, 2] float32, position across the limb or trunk (right, forward), the axis at 0
    """

    verts: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    names: tuple[str, ...]
    parents: tuple[int, ...]
    arm: np.ndarray
    hand: np.ndarray
    leg: np.ndarray
    foot: np.ndarray
    head: np.ndarray
    sleeve: np.ndarray
    section: np.ndarray

    def bone(self, name: str) -> int:
        return self.names.index(name)


def rest_bodies(phenotypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Naked bodies in the rest pose, [B, V, 3] and their joints [B, J, 3], float32, for phenotypes [B, 6] in [0, 1]."""
    verts, joints = _body().vertices_and_joints(phenotypes)
    return verts.numpy(), joints.numpy()


@functools.lru_cache(maxsize=1)
def _body() -> AnnyBody:
    from gcl_fast.meshes.anny_body import AnnyBody

    return AnnyBody()


@functools.lru_cache(maxsize=1)
def load_template() -> Template:
    body = _body()
    verts, joints = rest_bodies(np.full((1, 6), 0.5))
    verts, joints, names = verts[0], joints[0], body.bone_names
    weights = _dense_weights(body, len(names))

    def share(prefixes: tuple[str, ...], side: str = "") -> np.ndarray:
        chosen = [n.startswith(prefixes) and n.endswith(side) for n in names]
        return weights[:, chosen].sum(1)

    arm, hand, leg, foot = share(ARM), share(HAND), share(LEG), share(FOOT)
    sleeve = np.zeros(len(verts), np.float32)
    section = np.stack((verts[:, 0], verts[:, 2] + 0.02), 1)  # the trunk's axis is a little in front of the pelvis
    for side in "LR":
        on_arm = share(ARM + HAND, side) > 0.5
        chain = [joints[names.index(f"{b}.{side}")] for b in ("upperarm01", "lowerarm01", "wrist")]
        sleeve[on_arm], section[on_arm] = _along_chain(verts[on_arm], chain)
        on_leg = share(LEG + FOOT, side) > 0.5
        chain = [joints[names.index(f"{b}.{side}")] for b in ("upperleg01", "lowerleg01", "foot")]
        _, section[on_leg] = _along_chain(verts[on_leg], chain)
    return Template(
        verts=verts,
        faces=body.faces.numpy().astype(np.int32),
        weights=weights,
        joints=joints,
        names=names,
        parents=body.bone_parents,
        arm=arm,
        hand=hand,
        leg=leg,
        foot=foot,
        head=share(HEAD),
        sleeve=sleeve,
        section=section.astype(np.float32),
    )


def _dense_weights(body: AnnyBody, bones: int) -> np.ndarray:
    model = body._model
    weights = np.zeros((len(body.vertex_bone), bones), np.float64)
    rows = np.arange(len(weights))
    indices, values = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    for column in range(indices.shape[1]):
        np.add.at(weights, (rows, indices[:, column]), values[:, column])
    return weights.astype(np.float32)


def _along_chain(points: np.ndarray, chain: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Position along a two-bone limb (0, 0.5, 1 at its joints; a little beyond allowed) and offset from its axis [N, 2]."""
    start, middle, end = chain
    upper, lower = middle - start, end - middle
    t1 = np.clip((points - start) @ upper / (upper @ upper), 0, 1)
    t2 = np.clip((points - middle) @ lower / (lower @ lower), 0, 1.4)
    offset = points - (start + t1[:, None] * upper + t2[:, None] * lower)
    return (0.5 * (t1 + t2)).astype(np.float32), offset[:, [0, 2]]
