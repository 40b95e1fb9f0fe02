"""The shape of clothes: looseness on the body's own vertices, and extra parts (skirt, hair, bags) on one fixed topology.

Every person has every part, so that all share one face list; a part that is not worn has all its vertices in one point
inside the body, and its triangles, having no area, cover no pixel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from gcl_fast.synthetic.people import Outfit, Person
from gcl_fast.synthetic.template import Template, load_template, rest_bodies

BODY, SKIRT, HAIR, BACKPACK, SHOULDER_BAG, KNOB = range(6)  # part of a face; the knob is a hair bun or the brim of a cap
SKIRT_RINGS, SKIRT_SIDES = 12, 40
HAIR_ROWS, HAIR_SIDES = 10, 18
BLOB_RINGS, BLOB_SIDES = 11, 18
HAIRLINE = ((-0.150, -0.085, -0.055, -0.020, 0.060), (-0.765, -0.735, -0.660, -0.600, -0.570))  # template z -> y


@dataclass(frozen=True)
class Wardrobe:
    """The topology that all dressed bodies share: body vertices first, then the parts'.

    faces [F, 3] int32, part [F] int8, coords [V, 11] float32 per vertex: template x, y, z; shares of arm, hand, head; sleeve;
    shares of leg, foot; section (2).
    """

    template: Template
    faces: np.ndarray
    part: np.ndarray
    coords: np.ndarray
    spans: dict[int, slice]


@dataclass(frozen=True)
class Dressed:
    """One person in the rest pose. naked [Vb, 3]; verts, normals [V, 3]; coords [V, 11]; weights [V, J]; joints [J, 3]."""

    naked: np.ndarray
    joints: np.ndarray
    verts: np.ndarray
    normals: np.ndarray
    coords: np.ndarray
    weights: np.ndarray


@functools.lru_cache(maxsize=1)
def wardrobe() -> Wardrobe:
    template = load_template()
    grids = {
        SKIRT: _grid(SKIRT_RINGS, SKIRT_SIDES, closed=True),
        HAIR: _grid(HAIR_ROWS, HAIR_SIDES, closed=False),
        BACKPACK: _grid(BLOB_RINGS, BLOB_SIDES, closed=True),
        SHOULDER_BAG: _grid(BLOB_RINGS, BLOB_SIDES, closed=True),
        KNOB: _grid(BLOB_RINGS, BLOB_SIDES, closed=True),
    }
    sizes = {SKIRT: SKIRT_RINGS * SKIRT_SIDES, HAIR: HAIR_ROWS * HAIR_SIDES} | dict.fromkeys(
        (BACKPACK, SHOULDER_BAG, KNOB), BLOB_RINGS * BLOB_SIDES
    )
    count = len(template.verts)
    faces, part, spans = [template.faces], [np.zeros(len(template.faces), np.int8)], {BODY: slice(0, count)}
    for kind, grid in grids.items():
        faces.append(grid + count)
        part.append(np.full(len(grid), kind, np.int8))
        spans[kind] = slice(count, count + sizes[kind])
        count += sizes[kind]
    arm, leg = template.arm + template.hand, template.leg + template.foot
    shares = (arm, template.hand, template.head, template.sleeve, leg, template.foot)
    coords = np.zeros((count, 11), np.float32)
    coords[: len(template.verts)] = np.column_stack((template.verts, *shares, template.section))
    return Wardrobe(template, np.concatenate(faces).astype(np.int32), np.concatenate(part), coords, spans)


def dress(people: list[Person]) -> list[Dressed]:
    """Bodies of `people` in the rest pose with their clothes on; one call of the body model for all."""
    naked, joints = rest_bodies(np.stack([p.phenotype for p in people]))
    return [_dress_person(p.outfit, n, j) for p, n, j in zip(people, naked, joints, strict=True)]


def _dress_person(outfit: Outfit, naked: np.ndarray, joints: np.ndarray) -> Dressed:
    shared = wardrobe()
    template = shared.template
    count = len(shared.coords)
    verts = np.zeros((count, 3), np.float32)
    weights = np.zeros((count, len(template.names)), np.float32)
    weights[:, 0] = 1
    coords = shared.coords.copy()
    body = shared.spans[BODY]
    weights[body] = template.weights
    verts[body] = naked + looseness(template, outfit)[:, None] * vertex_normals(naked, template.faces)
    verts[body.stop :] = joints[0]
    if outfit.bottom_kind == "skirt" or outfit.hem > 0.3:
        _skirt(shared, outfit, verts, weights, coords)
    if outfit.hair_style in ("bob", "long"):
        _hair(shared, outfit, verts, weights, coords)
    if outfit.hair_style in ("bun", "cap"):
        _knob(shared, outfit, verts, weights, coords)
    if outfit.bag_kind == "backpack":
        _backpack(shared, outfit, verts, weights, coords)
    if outfit.bag_kind == "shoulder":
        _shoulder_bag(shared, outfit, verts, weights, coords)
    return Dressed(naked, joints, verts, vertex_normals(verts, shared.faces), coords, weights)


def looseness(template: Template, outfit: Outfit) -> np.ndarray:
    """How far clothes and hair stand off the skin, metres [V]."""
    y, z = template.verts[:, 1], template.verts[:, 2]
    limb_arm, limb_leg = template.arm + template.hand > 0.5, template.leg + template.foot > 0.5
    out = np.zeros(len(y), np.float32)
    trunk = ~limb_arm & (template.head < 0.5)
    out[trunk & (y < outfit.hem) & (y > -0.53)] = outfit.loose
    out[limb_arm & (template.sleeve < outfit.sleeve) & (template.hand < 0.5)] = 1.2 * outfit.loose
    below = trunk & (y >= outfit.hem) & (y < outfit.bottom_end)
    slope = np.clip((y + 0.02) / max(outfit.bottom_end, 0.1), 0, 1)
    if outfit.bottom_kind == "skirt":
        out[below] = 0.0
    else:
        out[below] = (0.004 + outfit.flare * slope * (0.6 if outfit.bottom_kind == "trousers" else 1.0))[below]
    out[limb_leg & (y > outfit.boot)] = 0.007
    if outfit.hair_style != "bald":
        volume = {"short": 0.012, "bob": 0.018, "long": 0.016, "bun": 0.010, "cap": 0.014}[outfit.hair_style]
        depth = np.interp(z, *HAIRLINE) - y  # > 0 above the hairline
        out = np.where(template.head > 0.5, volume * np.clip(depth / 0.03, 0, 1), out)
    return out.astype(np.float32)


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]; outward, given that the body's triangles are ordered so."""
    a, b, c = (verts[faces[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)  # [F, 3]
    corners = faces.T.reshape(-1)  # [3F]
    out = np.stack([np.bincount(corners, np.tile(normal[:, k], 3), len(verts)) for k in range(3)], 1)
    return (out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _grid(rows: int, sides: int, *, closed: bool) -> np.ndarray:
    """Triangles [F, 3] of rows x sides vertices; closed joins the last side to the first."""
    steps = sides if closed else sides - 1
    r, s = (g.reshape(-1) for g in np.meshgrid(np.arange(rows - 1), np.arange(steps), indexing="ij"))
    a, b = r * sides + s, r * sides + (s + 1) % sides
    return np.concatenate((np.stack((a, b, a + sides), 1), np.stack((b, b + sides, a + sides), 1)))


def _trunk_slab(template: Template, y: float, half: float) -> np.ndarray:
    keep = (np.abs(template.verts[:, 1] - y) < half) & (template.arm + template.hand < 0.3)
    return np.flatnonzero(keep)


def _skirt(shared: Wardrobe, outfit: Outfit, verts: np.ndarray, weights: np.ndarray, coords: np.ndarray) -> None:
    template, span = shared.template, shared.spans[SKIRT]
    end = outfit.bottom_end if outfit.bottom_kind == "skirt" else outfit.hem
    margin, widening = (0.010, outfit.flare) if outfit.bottom_kind == "skirt" else (outfit.loose, 0.035)
    angle = np.arange(SKIRT_SIDES) * 2 * np.pi / SKIRT_SIDES
    rows, rx, front, back = [], 0.0, 0.0, 0.0
    for t in np.linspace(0, 1, SKIRT_RINGS):
        y = -0.10 + t * (end + 0.10)
        slab = _trunk_slab(template, min(y, 0.05 + 0.5 * max(0.0, y - 0.05)), 0.035)  # do not follow the spread feet
        ring = verts[slab]
        here = (np.abs(ring[:, 0]).max(), -ring[:, 2].min(), ring[:, 2].max())
        rx, front, back = (max(old, new) for old, new in zip((rx, front, back), here, strict=True)) if t > 0 else here
        grow = margin + widening * t
        person_y = verts[_trunk_slab(template, y, 0.035), 1].mean()
        depth = np.where(np.cos(angle) > 0, front + grow, back + grow)
        rows.append(np.stack((np.sin(angle) * (rx + grow), np.full_like(angle, person_y), -np.cos(angle) * depth), 1))
        coords[span][:, 1].reshape(SKIRT_RINGS, -1)[len(rows) - 1] = y
    ring_verts = np.concatenate(rows)
    verts[span] = ring_verts
    coords[span, 0], coords[span, 2] = ring_verts[:, 0], ring_verts[:, 2]
    coords[span, 9], coords[span, 10] = ring_verts[:, 0], ring_verts[:, 2]
    follow = np.clip(coords[span, 1] / 0.25, 0, 1) * 0.85
    left = _smooth((ring_verts[:, 0] + 0.10) / 0.20)
    weights[span] = 0
    weights[span, 0] = 1 - follow
    weights[span, template.bone("upperleg02.L")] = follow * left
    weights[span, template.bone("upperleg02.R")] = follow * (1 - left)


def _head_map(shared: Wardrobe, verts: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points given around the template's head -> around this person's head, by the heads' bounding boxes."""
    template = shared.template
    on_head = template.head > 0.9
    old, new = template.verts[on_head], verts[: len(template.verts)][on_head]
    scale = np.ptp(new, axis=0) / np.ptp(old, axis=0)
    return new.min(0) + (points - old.min(0)) * scale


def _hair(shared: Wardrobe, outfit: Outfit, verts: np.ndarray, weights: np.ndarray, coords: np.ndarray) -> None:
    template, span = shared.template, shared.spans[HAIR]
    end = -0.56 if outfit.hair_style == "bob" else -0.40
    y = np.linspace(-0.800, end, HAIR_ROWS)[:, None]
    half_turn = np.interp(y, (-0.80, -0.72, -0.58, -0.50), (105, 112, 112, 62)) * np.pi / 180
    angle = np.linspace(-1, 1, HAIR_SIDES)[None] * half_turn  # 0 is straight back
    rx = np.interp(y, (-0.80, -0.77, -0.70, -0.60, -0.40), (0.055, 0.080, 0.092, 0.094, 0.125))
    rz = np.interp(y, (-0.80, -0.77, -0.70, -0.60, -0.50, -0.40), (0.065, 0.105, 0.118, 0.116, 0.122, 0.142))
    points = np.stack((np.sin(angle) * rx, np.broadcast_to(y, angle.shape), -0.045 + np.cos(angle) * rz), -1).reshape(-1, 3)
    verts[span] = _head_map(shared, verts, points)
    coords[span, :3] = points
    stay = _smooth((-0.44 - points[:, 1]) / 0.14)  # near the head all head, on the shoulders half the back
    weights[span] = 0
    weights[span, template.bone("head")] = 0.4 + 0.6 * stay
    weights[span, template.bone("spine01")] = 0.6 - 0.6 * stay


def _knob(shared: Wardrobe, outfit: Outfit, verts: np.ndarray, weights: np.ndarray, coords: np.ndarray) -> None:
    bun = outfit.hair_style == "bun"
    centre, radii = ((0, -0.76, 0.07), (0.042, 0.04, 0.04)) if bun else ((0, -0.742, -0.165), (0.072, 0.007, 0.062))
    span = shared.spans[KNOB]
    points = np.array(centre) + _blob(1.0 if bun else 0.7) * np.array(radii)
    verts[span] = _head_map(shared, verts, points)
    coords[span, :3] = points
    weights[span] = 0
    weights[span, shared.template.bone("head")] = 1


def _backpack(shared: Wardrobe, outfit: Outfit, verts: np.ndarray, weights: np.ndarray, coords: np.ndarray) -> None:
    template, span = shared.template, shared.spans[BACKPACK]
    slab = _trunk_slab(template, -0.32, 0.12)
    slab = slab[np.abs(template.verts[slab, 0]) < 0.11]
    half = np.array((0.135, 0.19, 0.075)) * outfit.bag_size
    local = _blob(0.45)
    centre = np.array((0, verts[slab, 1].mean() + 0.02, np.quantile(verts[slab, 2], 0.9) + 0.75 * half[2]))
    verts[span] = centre + local * half
    coords[span, :3] = local
    weights[span] = 0
    weights[span, template.bone("spine01")] = weights[span, template.bone("spine02")] = 0.5


def _shoulder_bag(shared: Wardrobe, outfit: Outfit, verts: np.ndarray, weights: np.ndarray, coords: np.ndarray) -> None:
    template, span = shared.template, shared.spans[SHOULDER_BAG]
    slab = _trunk_slab(template, 0.06, 0.08)
    half = np.array((0.045, 0.11, 0.145)) * outfit.bag_size
    local = _blob(0.4)
    x = outfit.bag_side * (np.abs(verts[slab, 0]).max() + 0.7 * half[0])
    verts[span] = np.array((x, verts[slab, 1].mean(), 0.045)) + local * half
    coords[span, :3] = local
    weights[span] = 0
    weights[span, 0] = 1


@functools.lru_cache(maxsize=8)
def _blob(power: float) -> np.ndarray:
    """A superellipsoid in [-1, 1]^3, [BLOB_RINGS * BLOB_SIDES, 3]: 1 a ball, towards 0 a box."""
    v, u = np.linspace(-np.pi / 2, np.pi / 2, BLOB_RINGS)[:, None], np.arange(BLOB_SIDES)[None] * 2 * np.pi / BLOB_SIDES
    bend = lambda t: np.sign(t) * np.abs(t) ** power  # noqa: E731
    cos_v = np.maximum(np.cos(v), 0)
    x, y, z = bend(cos_v) * bend(np.sin(u)), bend(np.sin(v)) + 0 * u, bend(cos_v) * bend(np.cos(u))
    return np.stack((x, y, z), -1).reshape(-1, 3)


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
