"""Outputs of body estimators, one `Estimate` a person, told apart by their keys.

    hmr          theta [N, 85] = camera (s, tx, ty), pose 72, shape 10; or verts [N, V, 3] with cams [N, 3]; proc_param optional
    4d-humans    pred_cam, pred_vertices or pred_smpl_params, pred_cam_t with focal_length (of the crop), box_center, box_size,
                 img_size; TokenHMR alike; pred_cam_t_full with scaled_focal_length (of the image) come first where given
    cliff        pose [N, 72], shape [N, 10], global_t [N, 3], focal_l [N], imgname, detection_all
    sam-3d-body  pred_vertices, pred_cam_t, focal_length (pixels of the image), bbox; a list of one dict a person
    vertices     vertices, with camera ([3] or [6], as the mesh files here have) | cam | cam_t and focal (pixels)

Names of images come from imgname, img_name, img_path, image_path, imgpath, image or name, else the file's own name is the
image's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gcl_fast.errors import InputError
from gcl_fast.meshes.importing.estimate_files import read_estimate_file
from gcl_fast.meshes.importing.estimator_cameras import perspective_in_box, perspective_of_image, weak_in_box, whole_box
from gcl_fast.meshes.mesh_files import problem_of_faces, whole

FORMATS = ("hmr", "4d-humans", "cliff", "sam-3d-body", "vertices")
NAMES = ("imgname", "img_name", "img_path", "image_path", "imgpath", "image", "name")
CROP = 256  # side of the crop whose pixels 4D-Humans' and TokenHMR's focal length counts


@dataclass(frozen=True)
class Estimate:
    """One person.

    name       the image as the estimator names it
    vertices   [V, 3], or pose ([72] or [24, 3, 3]) and shape [S] of an SMPL body
    camera     "weak": (s, tx, ty) of the crop | "crop": (tx, ty, tz, focal) of the crop | "image": (tx, ty, tz, focal in pixels)
               | "ours": as in a mesh file | None
    box        (centre x, centre y, side) of the crop; size: (height, width) of the image that the estimator saw; None: unknown
    bounds     (left, top, right, bottom) of the person, pixels of the image, to choose among several people; None: unknown
    problem    why the person cannot be used; nothing where it can
    """

    name: str
    format: str
    camera: tuple[str, np.ndarray] | None
    vertices: np.ndarray | None = None
    pose: np.ndarray | None = None
    shape: np.ndarray | None = None
    faces: np.ndarray | None = None
    box: tuple[float, float, float] | None = None
    size: tuple[int, int] | None = None
    bounds: tuple[float, float, float, float] | None = None
    problem: str = ""

    def camera_of(self, size: tuple[int, int]) -> np.ndarray | None:
        """The camera of the image, [3] or [6]; size (height, width) of the image where the file does not tell it."""
        if self.camera is None:
            return None
        kind, values = self.camera
        size = self.size or size
        box = self.box or whole_box(size)
        if kind == "weak":
            return weak_in_box(values, box, size)
        if kind == "crop":
            return perspective_in_box(values[:3], values[3], CROP, box, size)
        if kind == "image":
            return perspective_of_image(values[:3], values[3], size)
        with np.errstate(over="ignore"):  # infinite, it is refused by whoever reads it
            return np.asarray(values, np.float32)


def read_estimates(path: str | os.PathLike[str], format: str = "auto", *, strict: bool = True) -> list[Estimate]:
    """The people in an estimator's file.

    Arguments:
        path: one of the files that `read_estimate_file` reads.
        format: "auto", or the one of FORMATS that it must have.
        strict: numbers that are not finite are an error of the file; else of the person, who has a `problem`.

    Errors: MissingFileError; InputError naming the file and what is wrong with it.
    """
    content = read_estimate_file(path)
    try:
        people = [_judged(person) for person in _people(content, Path(path).stem, format)]
        problem = next((person.problem for person in people if person.problem), "")
        if problem and strict:
            raise ValueError(problem)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"estimates {path}: {error}") from error
    if not people:
        raise InputError(f"estimates {path}: no person in it")
    return people


def _judged(person: Estimate) -> Estimate:
    """The person, with a `problem` where a number is not finite."""
    camera = None if person.camera is None else person.camera[1]
    for key, array in zip(KEYS_OF[person.format], (person.vertices, person.pose, person.shape, camera, person.box), strict=True):
        if array is not None and not np.isfinite(array).all():
            return replace(person, problem=f"{key} must be finite, got NaN or infinity")
    return person


def _people(content: Any, name: str, format: str) -> Iterator[Estimate]:
    if isinstance(content, (list, tuple)):
        for person in content:
            yield from _people(person, name, format)
    elif isinstance(content, np.ndarray):
        key = "theta" if content.shape[-1:] == (85,) else "vertices"
        yield from _people({key: content}, name, format)
    elif isinstance(content, dict):
        kind = _format(content)
        if kind is None and content and all(_is_person(v) for v in content.values()):
            for image, persons in content.items():  # image -> its people
                yield from _people(persons, str(image), format)
            return
        if kind is None:
            raise ValueError(
                f"no estimator known here writes the keys {', '.join(map(str, content)) or 'none'}; a file has the keys of one "
                f"of {', '.join(FORMATS)}, or a key for each image, which is its name, above that person's keys"
            )
        if format not in ("auto", kind):
            raise ValueError(f"expected the keys of {format}, got those of {kind}")
        yield from READERS[kind](content, name)
    else:
        raise ValueError(f"expected named arrays, got {type(content).__name__}")


def _is_person(value: Any) -> bool:
    """Whether a value below an image's name may be its people: not just some array below an unknown key."""
    return isinstance(value, (dict, list, tuple)) or (isinstance(value, np.ndarray) and value.shape[-1:] == (85,))


def _format(content: dict[str, Any]) -> str | None:
    keys = set(content)
    if "theta" in keys or {"verts", "cams"} <= keys:
        return "hmr"
    if {"pose", "shape", "global_t"} <= keys:
        return "cliff"
    if "pred_vertices" in keys or "pred_smpl_params" in keys:
        return "4d-humans" if keys & {"pred_cam", "pred_cam_t_full", "pred_smpl_params"} else "sam-3d-body"
    return "vertices" if "vertices" in keys else None


def _rows(content: dict[str, Any], key: str, tail: tuple[int | None, ...], count: int | None = None) -> np.ndarray | None:
    """The array at `key` as [N, *tail] float64, a single person's given an N of 1; None where there is none."""
    if content.get(key) is None:
        return None
    array = np.asarray(content[key], np.float64)
    if array.ndim == len(tail):
        array = array[None]
    fits = array.ndim == len(tail) + 1 and all(t in (None, n) for t, n in zip(tail, array.shape[1:], strict=True))
    if not fits:
        shape = ["N", *("any" if t is None else t for t in tail)]
        raise ValueError(f"{key} must be {shape}, got {list(np.shape(content[key]))}".replace("'", ""))
    if count is not None and len(array) == 1:
        array = np.repeat(array, count, 0)
    if count is not None and len(array) != count:
        raise ValueError(f"{key} must hold {count} people as the other keys, got {len(array)}")
    return array


def _need(array: np.ndarray | None, key: str) -> np.ndarray:
    if array is None:
        raise ValueError(f"{key} is missing")
    return array


def _names(content: dict[str, Any], name: str, count: int) -> list[str]:
    for key in NAMES:
        if key in content:
            given = [os.fsdecode(v) if isinstance(v, bytes) else str(v) for v in np.asarray(content[key]).ravel().tolist()]
            if len(given) not in (1, count):
                raise ValueError(f"{key} must name {count} images as the other keys do, got {len(given)}")
            return given * (count if len(given) == 1 else 1)
    if count > 1 and "personid" not in content and "bbox" not in content:
        raise ValueError(f"{count} people without the names of their images ({', '.join(NAMES)})")
    return [name] * count


def _scalars(content: dict[str, Any], key: str, count: int) -> np.ndarray | None:
    """[count] from a number, [N], [N, 1] or the first column of [N, 2] (one focal length for x, one for y)."""
    if content.get(key) is None:
        return None
    array = np.asarray(content[key], np.float64)
    array = array[..., 0] if array.ndim == 2 or (array.ndim == 1 and len(array) == 2 and count == 1) else array
    if array.size not in (1, count):
        raise ValueError(f"{key} must be a number{f', or {count}' if count > 1 else ''}, got {list(np.shape(content[key]))}")
    return np.broadcast_to(array.reshape(-1), count)


def _boxes(content: dict[str, Any], count: int) -> tuple[list[Any], list[Any]]:
    """(boxes, sizes) of each person where the file tells them."""
    boxes: list[Any] = [None] * count
    sizes: list[Any] = [None] * count
    centres, sides = _rows(content, "box_center", (2,), count), _scalars(content, "box_size", count)
    if centres is not None and sides is not None:
        boxes = [(c[0], c[1], float(s)) for c, s in zip(centres, sides, strict=True)]
    given = _rows(content, "box", (3,), count)
    if given is not None:
        boxes = [tuple(b) for b in given]
    process = content.get("proc_param")
    if isinstance(process, dict):  # HMR's crop: start_pt is the person's middle in the image scaled by `scale`
        scale = float(np.asarray(process["scale"]).reshape(-1)[0])
        if not 0 < scale < np.inf:
            raise ValueError(f"scale in proc_param must be above 0 and finite, got {scale}")
        middle = np.asarray(process["start_pt"], np.float64).reshape(2) / scale
        boxes = [(middle[0], middle[1], float(process.get("img_size", 224)) / scale)] * count
    seen = _rows(content, "img_size", (2,), count)
    if seen is not None:
        if not (np.isfinite(seen) & (seen >= 1)).all():
            raise ValueError(
                f"img_size must be the image's width and height in pixels, got {np.asarray(content['img_size']).tolist()}"
            )
        sizes = [(int(s[1]), int(s[0])) for s in seen]  # written as width, height
    if any(b is not None and b[2] <= 0 for b in boxes):
        raise InputError("the side of a crop's box must be positive")
    return boxes, sizes


def _faces(content: dict[str, Any]) -> np.ndarray | None:
    if content.get("faces") is None:
        return None
    faces = whole(content["faces"])
    problem = problem_of_faces(faces)
    if problem:
        raise ValueError(f"faces {problem}")
    return faces.astype(np.int32)


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) as plain numbers."""
    left, top, right, bottom = (float(n) for n in box)
    return left, top, right, bottom


def _square(box: tuple[float, float, float] | None) -> tuple[float, float, float, float] | None:
    """The corners of (centre x, centre y, side)."""
    if box is None:
        return None
    return box[0] - box[2] / 2, box[1] - box[2] / 2, box[0] + box[2] / 2, box[1] + box[2] / 2


def _hmr(content: dict[str, Any], name: str) -> Iterator[Estimate]:
    theta = _rows(content, "theta", (85,))
    vertices = _rows(content, "verts", (None, 3))
    count = len(_need(theta if theta is not None else vertices, "theta"))
    cameras = theta[:, :3] if theta is not None else _need(_rows(content, "cams", (3,), count), "cams")
    boxes, sizes = _boxes(content, count)
    for i, image in enumerate(_names(content, name, count)):
        person = Estimate(image, "hmr", ("weak", cameras[i]), box=boxes[i], size=sizes[i], faces=_faces(content))
        if vertices is not None:
            yield replace(person, vertices=vertices[i])
        elif theta is not None:
            yield replace(person, pose=theta[i, 3:75], shape=theta[i, 75:])


def _four_d_humans(content: dict[str, Any], name: str) -> Iterator[Estimate]:
    vertices, bodies = _rows(content, "pred_vertices", (None, 3)), []
    if vertices is not None:
        bodies = [{"vertices": v} for v in vertices]
    else:
        smpl = content["pred_smpl_params"]
        root, rest = _rows(smpl, "global_orient", (1, 3, 3)), _rows(smpl, "body_pose", (23, 3, 3))
        shapes = _need(_rows(smpl, "betas", (None,)), "betas")
        poses = np.concatenate((_need(root, "global_orient"), _need(rest, "body_pose")), 1)  # [N, 24, 3, 3]
        bodies = [{"pose": p, "shape": s} for p, s in zip(poses, shapes, strict=True)]
    count = len(bodies)
    boxes, sizes = _boxes(content, count)
    full, crop, weak = (_rows(content, k, (3,), count) for k in ("pred_cam_t_full", "pred_cam_t", "pred_cam"))
    full_focal, focal = (_scalars(content, k, count) for k in ("scaled_focal_length", "focal_length"))
    for i, image in enumerate(_names(content, name, count)):
        if full is not None and full_focal is not None:
            camera = ("image", np.append(full[i], full_focal[i]))
        elif crop is not None and focal is not None:
            camera = ("crop", np.append(crop[i], focal[i]))
        else:
            camera = ("weak", _need(weak, "pred_cam, or pred_cam_t with focal_length,")[i])
        yield Estimate(
            image, "4d-humans", camera, box=boxes[i], size=sizes[i], bounds=_square(boxes[i]), faces=_faces(content), **bodies[i]
        )


def _cliff(content: dict[str, Any], name: str) -> Iterator[Estimate]:
    poses = _need(_rows(content, "pose", (72,)), "pose")
    count = len(poses)
    shapes = _need(_rows(content, "shape", (None,), count), "shape")
    places = _need(_rows(content, "global_t", (3,), count), "global_t")
    focals, detections = _scalars(content, "focal_l", count), _rows(content, "detection_all", (None,), count)
    if focals is None:
        raise ValueError("focal_l is missing")
    names = content.get("imgname")
    if detections is not None and names is not None and np.size(names) != count:  # one name an image, its row in column 0
        listed = np.asarray(names).ravel()
        content = {**content, "imgname": [str(listed[int(row)]) for row in detections[:, 0]]}
    _, sizes = _boxes(content, count)
    for i, image in enumerate(_names(content, name, count)):
        bounds = None if detections is None else _corners(detections[i, 1:5])
        camera = ("image", np.append(places[i], focals[i]))
        yield Estimate(image, "cliff", camera, pose=poses[i], shape=shapes[i], size=sizes[i], bounds=bounds)


def _sam(content: dict[str, Any], name: str) -> Iterator[Estimate]:
    vertices = _need(_rows(content, "pred_vertices", (None, 3)), "pred_vertices")
    places = _need(_rows(content, "pred_cam_t", (3,), len(vertices)), "pred_cam_t")
    focals, person_boxes = _scalars(content, "focal_length", len(vertices)), _rows(content, "bbox", (4,), len(vertices))
    if focals is None:
        raise ValueError("focal_length is missing")
    _, sizes = _boxes(content, len(vertices))
    for i, image in enumerate(_names(content, name, len(vertices))):
        bounds = None if person_boxes is None else _corners(person_boxes[i])
        camera = ("image", np.append(places[i], focals[i]))
        yield Estimate(image, "sam-3d-body", camera, vertices=vertices[i], size=sizes[i], bounds=bounds, faces=_faces(content))


def _vertices(content: dict[str, Any], name: str) -> Iterator[Estimate]:
    vertices = _need(_rows(content, "vertices", (None, 3)), "vertices")
    count = len(vertices)
    boxes, sizes = _boxes(content, count)
    places, focals = _rows(content, "cam_t", (3,), count), _scalars(content, "focal", count)
    weak, ours = _rows(content, "cam", (3,), count), _rows(content, "camera", (None,), count)
    if ours is not None and ours.shape[1] not in (3, 6):
        raise ValueError(f"camera must have 3 or 6 numbers, got {ours.shape[1]}")
    for i, image in enumerate(_names(content, name, count)):
        camera: tuple[str, np.ndarray] | None = None
        if ours is not None:
            camera = ("ours", ours[i])
        elif places is not None and focals is not None:
            camera = ("image", np.append(places[i], focals[i]))
        elif weak is not None:
            camera = ("weak", weak[i])
        yield Estimate(image, "vertices", camera, vertices=vertices[i], faces=_faces(content), box=boxes[i], size=sizes[i])


KEYS_OF = {  # of vertices, pose, shape, camera and box in each format, for errors
    "hmr": ("verts", "theta", "theta", "theta", "the crop"),
    "4d-humans": ("pred_vertices", "pred_smpl_params", "betas", "the camera", "box_center"),
    "cliff": ("vertices", "pose", "shape", "global_t", "box_center"),
    "sam-3d-body": ("pred_vertices", "pose", "shape", "pred_cam_t", "bbox"),
    "vertices": ("vertices", "pose", "shape", "the camera", "box"),
}
READERS = {"hmr": _hmr, "4d-humans": _four_d_humans, "cliff": _cliff, "sam-3d-body": _sam, "vertices": _vertices}
