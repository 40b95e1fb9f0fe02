"""True novel views of people never trained on: the same person, pose, camera, light and crop, the body turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gcl_fast.constants import ALL_YAWS
from gcl_fast.files import write_whole
from gcl_fast.images import pillow
from gcl_fast.synthetic.cameras import Camera, develop, to_bytes
from gcl_fast.synthetic.renderer import Figure, compose, place_behind, render_layers, shrink
from gcl_fast.synthetic.schedule import Shot


def write_truth(
    root: Path, image: str, shot: Shot, figure: Figure, camera: Camera, size: tuple[int, int]
) -> list[dict[str, str]]:
    """Write <root>/truth/<stem>/: source.png (yaw 0), yaw_045.png ..., background.png. Lossless, without occluder or noise.

    image: the dataset image, relative to root. The body turns as ops.render_mesh turns the mesh of that image.
    Returns the rows of truth/index.csv: source, yaw, image, background; paths relative to root.
    """
    folder = root / "truth" / Path(image).stem

    def save(name: str, linear: np.ndarray) -> str:
        picture = pillow().fromarray(to_bytes(develop(camera, linear, shot.stops)))
        write_whole(folder / name, lambda file: picture.save(file, format="PNG"), flush=False)
        return (folder / name).relative_to(root).as_posix()

    empty = save("background.png", shrink(place_behind(camera, figure, shot.stretch, size, shadow=False)))
    place = place_behind(camera, figure, shot.stretch, size)
    layers = render_layers([figure] * len(ALL_YAWS), [camera] * len(ALL_YAWS), size, list(map(float, ALL_YAWS)))
    rows = []
    for yaw, layer in zip(ALL_YAWS, layers, strict=True):
        path = save("source.png" if yaw == 0 else f"yaw_{yaw:03d}.png", compose(layer, place))
        rows.append({"source": image, "yaw": str(yaw), "image": path, "background": empty})
    return rows
