"""Poses: a walking cycle from joint angles, a few standing poses, and linear blend skinning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcl_fast.synthetic.template import Template


@dataclass(frozen=True)
class Stride:
    """How a person walks: `length` scales all swings (0 stands, 1 walks briskly), `arms` the arm swing, `sway` the trunk,
    `lean` forward in degrees, `elbow` extra bend in degrees, `toes` outward in degrees."""

    length: float
    arms: float
    sway: float
    lean: float
    elbow: float
    toes: float


HANDS = ("swing", "phone", "pockets", "strap")


def joint_angles(stride: Stride, phase: float, hands: str = "swing") -> dict[str, list[tuple[str, float]]]:
    """Bone -> turns (axis, degrees) applied in order in the rest pose's body axes. phase in turns [0, 1).

    Legs follow the usual shape of gait curves: hip a cosine, knee two bumps (a small one under load, a large one in swing).
    About +x a hanging limb goes backwards, about +z the lowered left arm goes towards the body.
    """
    angles: dict[str, list[tuple[str, float]]] = {}
    turn = 2 * np.pi * phase
    swing = stride.length
    for side, sign, angle in (("L", 1.0, turn), ("R", -1.0, turn + np.pi)):
        hip = 4 * swing + 23 * swing * np.cos(angle)
        knee = 5 + swing * (50 * max(0.0, -np.sin(angle - 0.35)) ** 2 + 9 * max(0.0, np.sin(angle + 0.3)) ** 2)
        ankle = -hip + knee - swing * 20 * max(0.0, np.cos(angle - np.pi + 0.6)) ** 3  # foot near level, toes push off
        angles[f"upperleg01.{side}"] = [("z", sign * 4.5), ("x", -hip), ("y", -sign * stride.toes)]
        angles[f"lowerleg01.{side}"] = [("x", knee)]
        angles[f"foot.{side}"] = [("x", -0.7 * ankle), ("z", -sign * 3.5)]
        arm = -4 - stride.arms * swing * 21 * np.cos(angle)  # opposite to the leg of the same side
        bend = -31 + stride.elbow + 0.5 * max(0.0, arm)  # the rest pose has 42 degrees
        lower, forward, inward = 33.0, arm, 0.0
        if hands == "phone" and side == "R":
            forward, bend, inward = 22.0, 62.0, 18.0
        elif hands == "pockets":
            lower, forward, bend = 28.0, -16.0, -4.0
        elif hands == "strap" and side == "L":
            forward, bend, inward = 12.0, 95.0, 10.0
        angles[f"upperarm01.{side}"] = [("z", sign * lower), ("y", sign * inward), ("x", -forward)]
        angles[f"lowerarm01.{side}"] = [(f"elbow.{side}", bend)]
    twist = 6 * stride.sway * swing * np.cos(turn)
    angles["root"] = [("y", twist), ("x", -stride.lean), ("z", 1.5 * stride.sway * swing * np.sin(turn))]
    angles["spine03"] = [("y", -1.2 * twist)]
    angles["spine01"] = [("y", -0.8 * twist), ("x", 0.5 * stride.lean)]
    angles["neck02"] = [("y", 0.9 * twist), ("x", 0.4 * stride.lean)]
    return angles


def bone_transforms(template: Template, joints: np.ndarray, poses: list[dict[str, list[tuple[str, float]]]]) -> np.ndarray:
    """Forward kinematics: joints [B, J, 3] and one set of angles a body -> [B, J, 3, 4] float32, rest pose to posed."""
    batch, bones = joints.shape[:2]
    local = np.tile(np.eye(3), (batch, bones, 1, 1))
    for b, angles in enumerate(poses):
        for name, turns in angles.items():
            bone = template.bone(name)
            for axis, degrees in turns:
                local[b, bone] = _rotation(_axis(template, joints[b], axis), degrees) @ local[b, bone]
    out = np.zeros((batch, bones, 3, 4))
    for j, parent in enumerate(template.parents):
        head = joints[:, j].astype(np.float64)  # [B, 3]
        shift = head - np.einsum("bik,bk->bi", local[:, j], head)  # the turn is about the bone's own start
        if parent < 0:
            out[:, j, :, :3], out[:, j, :, 3] = local[:, j], shift
        else:
            out[:, j, :, :3] = out[:, parent, :, :3] @ local[:, j]
            out[:, j, :, 3] = np.einsum("bik,bk->bi", out[:, parent, :, :3], shift) + out[:, parent, :, 3]
    return out.astype(np.float32)


def skin(
    transforms: np.ndarray, weights: np.ndarray, naked: np.ndarray, verts: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear blend skinning of one person, float32: transforms [J, 3, 4], weights [V, J], verts and normals [V, 3], and
    naked [Vb, 3], other positions of the first Vb vertices -> the three posed, in the order of the arguments."""
    blended = (weights @ transforms.reshape(len(transforms), 12)).reshape(-1, 3, 4)  # [V, 3, 4]
    turned, moved = blended[:, :, :3], blended[:, :, 3]
    body = len(naked)
    out = [np.einsum("vik,vk->vi", turned[:body], naked) + moved[:body]]
    out.append(np.einsum("vik,vk->vi", turned, verts) + moved)
    out.append(np.einsum("vik,vk->vi", turned, normals))  # not unit length; the pixels normalise what they interpolate
    return out[0], out[1], out[2]


def _axis(template: Template, joints: np.ndarray, axis: str) -> np.ndarray:
    if axis in ("x", "y", "z"):
        return np.eye(3)["xyz".index(axis)]
    side = axis[-1]  # the elbow's hinge: across the upper arm, so that a positive angle bends the forearm forwards
    upper = joints[template.bone(f"lowerarm01.{side}")] - joints[template.bone(f"upperarm01.{side}")]
    hinge = np.cross(upper, (0.0, 0.0, -1.0))
    return hinge / np.linalg.norm(hinge)


def _rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    x, y, z = axis
    angle = np.deg2rad(degrees)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew
