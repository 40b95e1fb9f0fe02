"""Features of photos in a folder, through the loader that training uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcl_fast.data.datasets.photo_folder import photos_below
from gcl_fast.data.datasets.readable import find_broken, name_files
from gcl_fast.data.loaders.torch_loader import TorchLoader
from gcl_fast.errors import FileError, InputError, MissingFileError
from gcl_fast.evaluation import extract_features
from gcl_fast.models.identity import IdentityEncoder
from gcl_fast.progress import counted
from gcl_fast.records import Record
from gcl_fast.runs.networks import encoder_of, find_encoder, tell_taken


@dataclass(frozen=True)
class PhotoFeatures:
    """Photos, as paths, and their L2-normalised features [N, D] float32, where the encoder ran."""

    paths: list[Path]
    features: Tensor


@dataclass(frozen=True)
class Reading:
    """How photos are read: image_size (H, W), images at once, processes that read ahead, whether broken ones are passed over."""

    image_size: tuple[int, int]
    device: torch.device
    batch_size: int = 64
    workers: int = 4
    skip_broken: bool = False


def encoder_and_size(weights: Path, height: int | None, width: int | None) -> tuple[IdentityEncoder, tuple[int, int]]:
    """The identity encoder of a run or a weight file, and the size of its images: the one given, else the one it tells."""
    path = find_encoder(weights)
    encoder, size = encoder_of(path)
    tell_taken(weights, path)
    return encoder, (height or size[0], width or size[1])


def photos_at(place: Path, *, written: Path | None = None) -> list[Path]:
    """A photo, or all photos of a folder and of the folders inside, but for a picture that the command writes: it may lie there
    from an earlier call. Errors: MissingFileError."""
    if place.is_dir():
        photos = photos_below(place)
        if written is None:
            return photos
        own = os.path.realpath(written)
        others = [photo for photo in photos if os.path.realpath(photo) != own]
        if not others:
            raise MissingFileError(f"no photo in {place} but {written}, which this command writes")
        return others
    if not place.is_file():
        raise MissingFileError(f"no photo and no folder at {place}")
    return [place]


def photo_features(
    paths: Sequence[Path], encoder: IdentityEncoder, reading: Reading, progress: Callable[[int, int], None] | None = None
) -> PhotoFeatures:
    """Features of photos in their order.

    Errors: FileError that names a photo that cannot be read, unless such are passed over: then they are named on stdout, and it
        is an error only where none is left.
    """
    paths = list(paths)
    if reading.skip_broken:
        broken = find_broken([Record(path, -1, 0) for path in paths], workers=max(1, reading.workers))
        if broken:
            print(
                name_files(
                    f"passed over {counted(len(broken), 'photo')} that cannot be read", [f"{p}: {why}" for p, why in broken]
                )
            )
            gone = {path for path, _ in broken}
            paths = [path for path in paths if path not in gone]
        if not paths:
            raise FileError(f"no photo is left: {counted(len(broken), 'photo')} cannot be read")
    workers = reading.workers if len(paths) > 2 * reading.batch_size else 0  # processes take longer to start than a few photos
    records = [Record(path, -1, 0) for path in paths]
    loader = TorchLoader(records, reading.image_size, workers=workers)
    try:
        features = extract_features(
            encoder.to(reading.device),
            loader,
            len(records),
            batch_size=reading.batch_size,
            device=reading.device,
            progress=progress,
        )
    except (FileError, MissingFileError, InputError) as error:
        others = "; --skip-broken goes on without photos that cannot be read" if len(paths) > 1 else ""
        raise FileError(f"{error}{others}") from error
    finally:
        loader.close()
    return PhotoFeatures(paths, features)
