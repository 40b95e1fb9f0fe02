"""Features of photos in files: written, read again, and only compared with those of the same encoder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from gcl_fast.archives import read_npz
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import write_whole
from gcl_fast.models.fingerprint import fingerprint
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.packages import missing
from gcl_fast.runs.photo_features import PhotoFeatures


@dataclass(frozen=True)
class KeptFeatures:
    """What a file of features holds: the folder that its photos lay in, and the `fingerprint` of the encoder ("": not told)."""

    photos: PhotoFeatures
    folder: Path
    encoder: str


def _base(folder: Path) -> Path:
    """The folder itself, which may be gone, or that of a photo."""
    return folder.parent if folder.is_file() else folder


def names_below(paths: Sequence[Path], folder: Path) -> list[str]:
    """Paths as they are told: below the folder where they lie in it."""
    base = _base(folder)
    return [path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path) for path in paths]


def write_features(out: Path, found: PhotoFeatures, folder: Path, encoder: str) -> Path:
    """Write paths (below `folder`), features, and the `fingerprint` of the encoder that gave them.

    .npz: arrays `paths` [N] text, `features` [N, D] float32, `folder` (absolute) and `encoder` text. .parquet: columns path and
    feature, one list of D float32 a row, folder and encoder as metadata; needs pyarrow.
    """
    names, features = names_below(found.paths, folder), found.features.cpu().numpy()
    base = os.path.abspath(_base(folder))
    if out.suffix == ".npz":
        paths, place, made_by = (np.array(text) for text in (names, base, encoder))
        return write_whole(out, lambda file: np.savez(file, paths=paths, features=features, folder=place, encoder=made_by))
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing("pyarrow", "writing .parquet", error) from error
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.reshape(-1)), features.shape[1])
    table = pyarrow.table({"path": pyarrow.array(names), "feature": column}, metadata={"folder": base, "encoder": encoder})

    def write(file: IO[bytes]) -> None:
        pyarrow.parquet.write_table(table, file)

    return write_whole(out, write)


def read_features(path: Path) -> KeptFeatures:
    """What `write_features` wrote as .npz. Errors: MissingFileError, InputError that name the file."""
    if not path.is_file():
        command = f"gcl-fast embed PHOTOS --weights RUN --out {shlex.quote(str(path))}"
        raise MissingFileError(f"{path} does not exist: {command} writes it")
    foreign = f"{path} holds no features as gcl-fast embed writes them"
    try:
        content = read_npz(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{foreign}: {error}") from error
    lacking = [name for name in ("paths", "features", "folder") if name not in content]
    if lacking:
        raise InputError(f"{foreign}: it lacks {', '.join(lacking)}; its arrays are {', '.join(content) or 'none'}")
    names, features = content["paths"], content["features"]
    if features.ndim != 2 or names.shape != features.shape[:1] or features.dtype != np.float32:
        got = f"{list(names.shape)} and {list(features.shape)} {features.dtype}"
        raise InputError(f"{path}: expected paths [N] and features [N, D] float32, got {got}")
    base = Path(str(content["folder"]))
    photos = PhotoFeatures([base / str(name) for name in names], torch.from_numpy(features))
    return KeptFeatures(photos, base, str(content.get("encoder", "")))


def check_encoder(path: Path, kept: KeptFeatures, weights: Path, encoder: IdentityEncoder, image_size: tuple[int, int]) -> None:
    """Features of two encoders, or of images of two sizes, say nothing about each other; a file that does not tell passes, with
    a note. Errors: InputError that names the file and the weights."""
    own = fingerprint(encoder, image_size)
    if not kept.encoder:
        print(f"note: {path} does not tell which encoder made it (an older file): similarities count only where it was {weights}")
    elif kept.encoder != own:
        raise InputError(
            f"{path} was made by another encoder, or from images of another size: by {kept.encoder}, while --weights {weights} "
            f"is {own}. Give the weights and the size that it was made with, or embed the folder anew"
        )
