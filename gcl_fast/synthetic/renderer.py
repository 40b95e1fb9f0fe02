"""From a shot to pixels: posed and dressed people rasterized at twice the size, coloured, lit, and laid over the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gcl_fast.ops import rasterize
from gcl_fast.synthetic.backgrounds import background, noise
from gcl_fast.synthetic.cameras import Camera
from gcl_fast.synthetic.clothes import albedo
from gcl_fast.synthetic.gait import Stride, bone_transforms, joint_angles, skin
from gcl_fast.synthetic.garments import HAIR, SKIRT, Dressed, wardrobe
from gcl_fast.synthetic.occluders import occluder
from gcl_fast.synthetic.people import Person
from gcl_fast.synthetic.schedule import Shot
from gcl_fast.synthetic.seeds import stream
from gcl_fast.synthetic.world_config import WorldConfig

SAMPLES = 2  # a side, of each output pixel


@dataclass(frozen=True)
class Figure:
    """A posed person in front of a camera. naked [Vb, 3] float16 (what the mesh file holds), verts and normals (of any
    length) [V, 3] float32, all in body axes; lens [6] float32 = (tx, ty, tz, f, cx, cy) as in the mesh file."""

    person: Person
    dressed: Dressed
    naked: np.ndarray
    verts: np.ndarray
    normals: np.ndarray
    lens: np.ndarray


@dataclass(frozen=True)
class Layer:
    """linear [H, W, 3] light of a person, cover [H, W] in {0, 1}; both at SAMPLES times the output's size."""

    linear: np.ndarray
    cover: np.ndarray


def pose_figures(shots: list[Shot], people: list[Person], dressed: list[Dressed], cameras: list[Camera]) -> list[Figure]:
    """Figures of shots whose person and clothes are given at the same positions; the lens has no crop yet (f = 0)."""
    template = wardrobe().template
    poses = [_pose(shot, person) for shot, person in zip(shots, people, strict=True)]
    transforms = bone_transforms(template, np.stack([d.joints for d in dressed]), poses)
    figures = []
    for shot, person, clothes, bones in zip(shots, people, dressed, transforms, strict=True):
        parts = skin(bones, clothes.weights, clothes.naked, clothes.verts, clothes.normals)
        naked, verts, normals = (turned(p, shot.yaw) for p in parts)
        floor = float(verts[:, 1].max())
        lens = np.array((shot.place[0], cameras[shot.camera].height - floor, shot.place[1], 0, 0, 0), np.float32)
        figures.append(Figure(person, clothes, naked.astype(np.float16), verts, normals, lens))
    return figures


def _pose(shot: Shot, person: Person) -> dict[str, list[tuple[str, float]]]:
    stride = person.stride
    if shot.stands:
        stride = Stride(0.12, stride.arms, stride.sway, 0.3 * stride.lean, stride.elbow, stride.toes + 4)
    return joint_angles(stride, shot.phase, shot.hands)


def turned(points: np.ndarray, degrees: float, axis: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Points [N, 3] turned by `degrees` about the vertical through (x, z) = axis, in the sense of ops.render_mesh."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, z = points[:, 0] - axis[0], points[:, 2] - axis[1]
    return np.stack((c * x + s * z + axis[0], points[:, 1], c * z - s * x + axis[1]), 1).astype(np.float32)


def turn_axis(naked: np.ndarray) -> tuple[float, float]:
    """The vertical axis render_mesh turns a mesh about: the middle of its x and z extent."""
    x, z = (np.ascontiguousarray(naked[:, k]).astype(np.float32) for k in (0, 2))
    return float((x.min() + x.max()) / 2), float((z.min() + z.max()) / 2)


def crop_lens(
    figure: Figure, rng: np.random.Generator, config: WorldConfig, aspect: float, *, junk: bool = False
) -> tuple[np.ndarray, bool]:
    """A detection box around the figure -> lens [6] float32, and whether the box misses a part of the person on purpose.

    aspect = width / height of the box. Draws are the same whatever the figure, so a stream stays aligned.
    """
    x, y, z = np.ascontiguousarray((figure.verts + figure.lens[:3]).T)
    low, high = np.array(((x / z).min(), (y / z).min())), np.array(((x / z).max(), (y / z).max()))
    tall = float(high[1] - low[1])
    middle = (low + high) / 2
    scale, shift = np.exp(rng.normal(0, config.crop_scale)), rng.normal(0, config.crop_shift, 2)
    cut, cut_feet = rng.random() < config.bad_crop_probability, rng.random() < 0.6
    amount, side = rng.uniform(0.1, 0.24), rng.choice((-1, 1))
    height = 1.05 * tall * max(scale, 0.95)
    height = max(height, float(high[0] - low[0]) * 0.85 / aspect)
    centre = middle + shift * height
    if junk:
        centre = middle + tall * np.array((side * (0.22 + amount), (amount - 0.17) * 3))
        height = tall * (0.55 + 2 * amount)
    elif cut:
        height = tall * (1.05 - amount)
        centre = np.array((middle[0], low[1] - 0.03 * tall + height / 2 if cut_feet else high[1] + 0.03 * tall - height / 2))
    lens = figure.lens.copy()
    focal = 1 / height
    lens[3:] = focal, -focal * centre[0], -focal * centre[1]
    return lens, bool(junk or cut)


def render_layers(
    figures: list[Figure], cameras: list[Camera], size: tuple[int, int], yaws: list[float] | None = None
) -> list[Layer]:
    """Figures (their lens with a crop) seen by their cameras, lit, without background. yaws: one turn a figure, degrees."""
    topology = wardrobe()
    height, width = SAMPLES * size[0], SAMPLES * size[1]
    verts, normals = [f.verts for f in figures], [f.normals for f in figures]
    if yaws is not None:
        verts = [turned(f.verts, yaw, turn_axis(f.naked)) for f, yaw in zip(figures, yaws, strict=True)]
        normals = [turned(n, yaw) for n, yaw in zip(normals, yaws, strict=True)]
    pixels = np.stack([_project(v, f.lens, height, width) for v, f in zip(verts, figures, strict=True)])
    raster = rasterize(torch.from_numpy(pixels), torch.from_numpy(topology.faces), (height, width))
    face_id, bary = raster.face_id.numpy(), raster.bary.numpy()
    layers = []
    for i, (figure, camera) in enumerate(zip(figures, cameras, strict=True)):
        seen = face_id[i] >= 0
        face = face_id[i][seen]
        table = np.concatenate((figure.dressed.coords, normals[i]), 1)  # [V, 14]
        at = np.einsum("pk,pkc->pc", bary[i][seen], table[topology.faces[face]])  # [P, 14]
        linear = np.zeros((height, width, 3))
        linear[seen] = _lit_color(figure.person, camera, topology.part[face], at[:, :11], at[:, 11:])
        layers.append(Layer(linear, seen))
    return layers


def _project(verts: np.ndarray, lens: np.ndarray, height: int, width: int) -> np.ndarray:
    x, y, z = (verts + lens[:3]).T
    focal, cx, cy = lens[3:]
    columns = (width / 2 + height * (focal * x / z + cx), height / 2 + height * (focal * y / z + cy), z)
    return np.stack(columns, 1).astype(np.float32)


def _lit_color(person: Person, camera: Camera, part: np.ndarray, coords: np.ndarray, normals: np.ndarray) -> np.ndarray:
    color = albedo(person.outfit, part, coords) ** 2.2
    x, y, z = coords[:, :3].T
    folds = noise(person.number, 70 * x + 35 * z, 45 * y) + 0.6 * noise(person.number + 1, 160 * (x + z), 110 * y)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    sheet = ((part == SKIRT) | (part == HAIR)) & (normals[:, 2] > 0)  # seen from inside
    normals[sheet] *= -1
    sun = np.maximum(normals @ camera.light, 0)
    sky = 0.78 - 0.22 * normals[:, 1]
    light = camera.ambient * sky + 1.25 * (1 - camera.ambient) * sun
    return color * (light * (1 + 0.09 * folds))[:, None] * camera.tint


def compose(layer: Layer, place: np.ndarray, extras: Sequence[tuple[np.ndarray, np.ndarray]] = ()) -> np.ndarray:
    """Person over place, then each (linear, cover) of `extras` over both; averaged down to the output size [H, W, 3]."""
    picture = np.where(layer.cover[..., None], layer.linear, place)
    for linear, cover in extras:
        picture = picture + cover[..., None] * (linear - picture)
    return shrink(picture)


def shrink(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[0] // SAMPLES, picture.shape[1] // SAMPLES
    return picture.reshape(height, SAMPLES, width, SAMPLES, -1).mean((1, 3))


def lens_of(figure: Figure) -> tuple[float, float, float]:
    """(f, cx, cy) of the figure's crop."""
    focal, cx, cy = (float(n) for n in figure.lens[3:])
    return focal, cx, cy


def place_behind(camera: Camera, figure: Figure, stretch: float, size: tuple[int, int], shadow: bool = True) -> np.ndarray:
    """The background of a figure's crop at SAMPLES times `size`; stretch as in Shot."""
    ground = (float(figure.lens[0]), float(figure.lens[2]))
    axis = turn_axis(figure.naked)
    spot = (ground[0] + axis[0], ground[1] + axis[1])
    return background(camera, lens_of(figure), spot, stretch, (SAMPLES * size[0], SAMPLES * size[1]), shadow)


def occluder_for(seed: int, shot: Shot, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = stream(seed, "occluder", shot.person, shot.index)
    return occluder(rng, (SAMPLES * size[0], SAMPLES * size[1]))
