"""Moving pictures on disk: GIF files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gcl_fast.files import write_whole
from gcl_fast.images import pillow
from gcl_fast.visuals.png import check_picture


def save_gif(path: str | os.PathLike[str], frames: Sequence[np.ndarray], *, milliseconds: int = 100) -> Path:
    """Write frames as an animation that starts over when it ends, so that a reader never meets half a file.

    Arguments:
        path: the GIF file.
        frames: each [H, W, 3] uint8, all of one size; reduced to 256 colours, which all frames share, without dithering (noise
            that would move from frame to frame).
        milliseconds: how long each frame stays, a multiple of 10.

    Returns: the path.
    Errors: FileError that names the file and the reason, MissingPackageError without Pillow.
    """
    if not frames:
        raise ValueError("frames: expected at least one picture, got none")
    image = pillow()
    pictures = [image.fromarray(check_picture(frame, f"frames[{i}]")) for i, frame in enumerate(frames)]
    joined = image.fromarray(np.concatenate(list(frames), 1))
    palette = joined.quantize(256, method=image.Quantize.MEDIANCUT)
    first, *rest = [picture.quantize(palette=palette, dither=image.Dither.NONE) for picture in pictures]
    path = Path(path)
    animation = {"format": "GIF", "save_all": True, "append_images": rest, "duration": milliseconds, "loop": 0}
    write_whole(path, lambda file: first.save(file, optimize=False, **animation))
    return path
