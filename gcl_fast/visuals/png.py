"""Pictures on disk: PNG files with their captions beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from gcl_fast.files import write_whole
from gcl_fast.images import pillow


def check_picture(picture: np.ndarray, name: str) -> np.ndarray:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        raise TypeError(f"{name}: expected a uint8 array, got {getattr(picture, 'dtype', type(picture).__name__)}")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"{name}: expected shape [H, W, 3], got {list(picture.shape)}")
    return picture


def save_png(path: str | os.PathLike[str], picture: np.ndarray, caption: str | None = None) -> Path:
    """Write a picture so that a reader never meets half a file; folders are made.

    Arguments:
        path: the PNG file.
        picture: [H, W, 3] uint8.
        caption: kept in `captions.json` beside the file ({file name: caption}), where the report finds it.

    Returns: the path.
    Errors: FileError that names the file and the reason, MissingPackageError without Pillow.
    """
    path = Path(path)
    image = pillow().fromarray(check_picture(picture, "picture"))
    write_whole(path, lambda file: image.save(file, format="PNG"))
    if caption is not None:
        captions_file = path.parent / "captions.json"
        captions = json.loads(captions_file.read_text(encoding="utf-8")) if captions_file.exists() else {}
        captions[path.name] = caption
        write_whole(captions_file, json.dumps(captions, indent=1, ensure_ascii=False) + "\n")
    return path
