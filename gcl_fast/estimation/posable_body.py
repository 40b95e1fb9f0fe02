"""Anny's body reduced to what is fitted to photos: few bones, a linear shape, differentiable and batched on any device."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gcl_fast.estimation.posture import ANGLES
from gcl_fast.meshes.anny_body import AnnyBody

BONES = (
    "root",
    "upperleg01.L",
    "lowerleg01.L",
    "foot.L",
    "upperleg01.R",
    "lowerleg01.R",
    "foot.R",
    "spine03",
    "spine01",
    "upperarm01.L",
    "lowerarm01.L",
    "wrist.L",
    "upperarm01.R",
    "lowerarm01.R",
    "wrist.R",
    "neck02",
    "head",
)
# Phenotypes of the average adult, and the directions in which the shape may differ from it
AVERAGE = {"gender": 0.5, "age": 0.62, "muscle": 0.5, "weight": 0.5, "height": 0.46, "proportions": 0.5}
DIRECTIONS = (("gender", 0.45), ("height", 0.25), ("proportions", 0.4), ("weight", 0.45))
TOGETHER = 8  # bodies whose vertices the CPU poses at a time: what passes between operations fits its caches
# BlazePose landmark: (its number, bone whose start it is near, bone it moves with, offset in metres on the left side).
# Offsets: where the model shows them, set on three synthetic worlds (docs/body_fit.md).
LANDMARKS: dict[str, tuple[int, str, str, tuple[float, float, float]]] = {
    "nose": (0, "head", "head", (0.0, -0.028, -0.102)),
    "ear": (7, "head", "head", (0.059, -0.046, -0.017)),
    "shoulder": (11, "upperarm01", "spine01", (0.0, -0.039, 0.003)),
    "elbow": (13, "lowerarm01", "upperarm01", (-0.012, -0.022, -0.007)),
    "wrist": (15, "wrist", "lowerarm01", (-0.002, 0.004, -0.016)),
    "hip": (23, "upperleg01", "root", (-0.02, 0.019, -0.01)),
    "knee": (25, "lowerleg01", "upperleg01", (-0.014, 0.011, 0.004)),
    "ankle": (27, "foot", "lowerleg01", (-0.013, -0.044, -0.003)),
    "heel": (29, "foot", "foot", (-0.01, 0.017, 0.043)),
    "toes": (31, "foot", "foot", (0.001, 0.045, -0.156)),
}


def taken(x: Tensor, index: Tensor) -> Tensor:
    """x[:, index], quicker on a CPU; on CUDA the gradient of `index_select` would be summed in any order."""
    return x[:, index] if x.is_cuda else x.index_select(1, index)


class PosableBody:
    """The average adult of Anny with the bones of BONES and the angles of `posture.ANGLES`.

    faces      [F, 3] int32
    landmarks  numbers of BlazePose's landmarks that `landmark_positions` gives, in its order
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        body = AnnyBody()
        rest, joints = body.vertices_and_joints(_phenotypes(body))
        bones = [body.bone_names.index(bone) for bone in BONES]
        owners = [_owner(body, bone) for bone in range(len(body.bone_names))]
        self.device = torch.device(device)
        self.faces = body.faces.to(device)
        self.parents = [-1] + [owners[body.bone_parents[bone]] for bone in bones[1:]]
        self.weights = _weights(body, owners).to(device)  # [V, K]
        self.rest = rest.to(device)  # [1 + 2 S, V, 3]: average, then each direction down and up
        self.joints = joints[:, bones].to(device)  # [1 + 2 S, K, 3]
        levels = _levels(self.parents)
        self._levels = [[self._numbers(part) for part in level] for level in levels]
        self._skews = self._turns()
        self._squares = self._skews @ self._skews
        order = [0, *(bone for bones, *_ in levels for bone in bones)]
        self._order = self._numbers([order.index(bone) for bone in range(len(BONES))])
        self._layers = [self._numbers(layer) for layer in _layers([BONES.index(angle.bone) for angle in ANGLES])]
        self.landmarks, self._near, self._with, self._offsets = self._landmarks()

    def _turns(self) -> Tensor:
        """Cross-product matrices of the angles' axes [A, 3, 3]."""
        rest = self.joints[0].cpu()
        skews = []
        for angle in ANGLES:
            if angle.axis in ("x", "y", "z"):
                axis = torch.eye(3)["xyz".index(angle.axis)]
            else:
                side = angle.bone[-1]
                upper = rest[BONES.index(f"lowerarm01.{side}")] - rest[BONES.index(f"upperarm01.{side}")]
                # the elbow's hinge lies across the upper arm, so that a positive angle brings the forearm forwards
                axis = upper if angle.axis == "along" else torch.linalg.cross(upper, torch.tensor((0.0, 0.0, -1.0)))
                axis = axis / axis.norm()
            x, y, z = axis.tolist()
            skews.append([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        return torch.tensor(skews, device=self.device)

    def _landmarks(self) -> tuple[list[int], Tensor, Tensor, Tensor]:
        numbers, near, moved, offsets = [], [], [], []
        for start, near_bone, with_bone, offset in LANDMARKS.values():
            for i, side in enumerate("L" if start == 0 else "LR"):

                def bone(name: str, side: str = side) -> int:
                    return BONES.index(name if name in BONES else f"{name}.{side}")

                numbers.append(start + i)
                near.append(bone(near_bone))
                moved.append(bone(with_bone))
                offsets.append((-offset[0] if i else offset[0], *offset[1:]))
        return numbers, self._numbers(near), self._numbers(moved), torch.tensor(offsets, device=self.device)

    def _numbers(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.device)

    def shaped(self, shape: Tensor, table: Tensor) -> Tensor:
        """Rest positions [B, N, 3] of a shape [B, S] in [-1, 1], linear; table [1 + 2 S, N, 3] as `rest` and `joints`."""
        return table[0] + torch.einsum("bs,snc->bnc", shape, (table[2::2] - table[1::2]) / 2)

    def skeleton(self, angles: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Angles [B, A] in radians -> where bones start [B, K, 3], their rotations [B, K, 3, 3], where they start at rest.

        The bones of a level together: of small batches the number of operations is what takes the time.
        """
        rest = self.shaped(shape, self.joints)
        still = torch.eye(3, device=angles.device)
        # Rodrigues' formula
        turns = still + angles.sin()[..., None, None] * self._skews + (1 - angles.cos())[..., None, None] * self._squares
        turns = torch.cat((turns, still.expand(len(turns), 1, 3, 3)), 1)  # the last: no turn
        local = taken(turns, self._layers[0])
        for layer in self._layers[1:]:
            local = taken(turns, layer) @ local
        turn, place = [local[:, :1]], [rest[:, :1]]
        for bones, parents, rows in self._levels:
            step = (taken(rest, bones) - taken(rest, parents)).unsqueeze(-1)
            above = taken(turn[-1], rows)
            place.append(taken(place[-1], rows) + (above @ step).squeeze(-1))
            turn.append(above @ taken(local, bones))
        return taken(torch.cat(place, 1), self._order), taken(torch.cat(turn, 1), self._order), rest

    def landmark_positions(self, place: Tensor, turn: Tensor) -> Tensor:
        """[B, L, 3] from what `skeleton` gives."""
        moved = taken(turn, self._with) @ self._offsets[..., None]
        return taken(place, self._near) + moved.squeeze(-1)

    def vertices(self, place: Tensor, turn: Tensor, rest: Tensor, shape: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Linear blend skinning: [B, V, 3], of the chosen vertices only where given."""
        weights, table = (self.weights, self.rest) if chosen is None else (self.weights[chosen], self.rest[:, chosen])
        shift = place - (turn @ rest[..., None]).squeeze(-1)  # [B, K, 3]
        moves = torch.cat((turn, shift[..., None]), 3)  # [B, K, 3, 4]
        parts = zip(*(x.split(TOGETHER if x.device.type == "cpu" else len(x) or 1) for x in (moves, shape)), strict=True)
        return torch.cat([self._skinned(weights, move, self.shaped(own, table)) for move, own in parts])

    @staticmethod
    def _skinned(weights: Tensor, moves: Tensor, rest: Tensor) -> Tensor:
        """weights [V, K], moves [B, K, 3, 4], rest [B, V, 3] -> [B, V, 3]."""
        blended = (weights @ moves.flatten(2)).unflatten(2, (3, 4))  # [B, V, 3, 4]
        x, y, z = (rest[..., i : i + 1] for i in range(3))
        return blended[..., 0] * x + blended[..., 1] * y + blended[..., 2] * z + blended[..., 3]


@functools.lru_cache(maxsize=4)
def posable_body(device: str = "cpu") -> PosableBody:
    """The body, made once a process and device (making it takes some seconds)."""
    return PosableBody(device)


def _phenotypes(body: AnnyBody) -> Tensor:
    table = torch.tensor([[AVERAGE[name] for name in body.phenotype_names]]).repeat(1 + 2 * len(DIRECTIONS), 1)
    for s, (name, step) in enumerate(DIRECTIONS):
        column = body.phenotype_names.index(name)
        table[1 + 2 * s, column] -= step
        table[2 + 2 * s, column] += step
    return table


def _owner(body: AnnyBody, bone: int) -> int:
    """The bone of BONES that a bone of Anny moves with."""
    while body.bone_names[bone] not in BONES:
        bone = body.bone_parents[bone]
    return BONES.index(body.bone_names[bone])


def _weights(body: AnnyBody, owners: list[int]) -> Tensor:
    weights = torch.zeros(len(body.vertex_bone), len(BONES))
    indices, values = body.blend_weights
    return weights.scatter_add(1, torch.tensor(owners)[indices], values)


def _layers(slots: list[int]) -> list[list[int]]:
    """The first angle of each bone, then the second, and so on; the number of angles where a bone has none (any more)."""
    of_bone = [[a for a, bone in enumerate(slots) if bone == k] for k in range(len(BONES))]
    return [[(own[depth : depth + 1] or [len(slots)])[0] for own in of_bone] for depth in range(max(map(len, of_bone)))]


def _levels(parents: list[int]) -> list[tuple[list[int], list[int], list[int]]]:
    """Below the root, level by level: the bones, their parents, and the parents' places in the level above."""
    levels, above = [], [0]
    while bones := [bone for bone, parent in enumerate(parents) if parent in above]:
        own = [parents[bone] for bone in bones]
        levels.append((bones, own, [above.index(parent) for parent in own]))
        above = bones
    return levels
