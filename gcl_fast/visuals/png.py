"""Pictures on disk, written so that a reader never meets half a file."""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np


def pillow() -> Any:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError("drawing pictures needs Pillow: pip install 'pillow>=10.1'") from error
    return Image, ImageDraw, ImageFont


def check_picture(picture: np.ndarray, name: str) -> np.ndarray:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        raise TypeError(f"{name}: expected a uint8 array, got {getattr(picture, 'dtype', type(picture).__name__)}")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"{name}: expected shape [H, W, 3], got {list(picture.shape)}")
    return picture


def write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_png(path: str | Path, picture: np.ndarray, caption: str | None = None) -> Path:
    """Write a uint8 [H, W, 3] picture as PNG so that a reader never meets half a file; folders are made.

    `caption` is kept in `captions.json` beside the file ({file name: caption}), where the report finds it.
    """
    image_module, _, _ = pillow()
    path = Path(path)
    buffer = io.BytesIO()
    image_module.fromarray(check_picture(picture, "picture")).save(buffer, format="PNG", optimize=True)
    write_atomically(path, buffer.getvalue())
    if caption is not None:
        file = path.parent / "captions.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        known[path.name] = caption
        write_atomically(file, (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode())
    return path
