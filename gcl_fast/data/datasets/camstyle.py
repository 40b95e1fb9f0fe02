"""Camera-styled copies of training images: the same photo as another camera would have taken it, made by a translation network.

Convention (Zhong et al., CamStyle, CVPR 2018; HHL, ECCV 2018): a folder `bounding_box_train_camstyle` beside the training
folder, with `<image>_fake_<own camera>to<other camera>.jpg` (Market-1501, DukeMTMC-reID) or `<image>_fake_<other camera>.jpg`
(MSMT17), cameras counted from 1.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl_fast.data.datasets.folders import image_files
from gcl_fast.errors import InputError
from gcl_fast.records import Record

FOLDER = "bounding_box_train_camstyle"
NAME = re.compile(r"(.+)_fake_(?:\d+to)?(\d+)")


@dataclass(frozen=True)
class StyledRecords:
    """Training images followed by their styled copies, and which is whose.

    records  the N images in their order, then the styled ones, in the order of their image and then of their camera
    owner    [R] int64, the image that a record shows (0 .. N-1)
    first    [N] int64, the first styled record of each image
    count    [N] int64, how many styled records it has
    """

    records: list[Record]
    owner: np.ndarray
    first: np.ndarray
    count: np.ndarray

    @property
    def num_styled(self) -> int:
        return len(self.records) - len(self.count)

    def version(self, images: np.ndarray, number: np.ndarray) -> np.ndarray:
        """The record of each image's version `number`: 0 the photo itself, 1 .. count its styled copies."""
        return np.where(number == 0, images, self.first[images] + number - 1)


def camstyle_folder(record: Record, root: pathlib.Path) -> pathlib.Path | None:
    """The folder of styled images in one of the folders above an image, up to the data set's root."""
    for folder in record.path.parents:
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
        if folder == root:
            break
    return None


def with_camstyle(records: Sequence[Record], root: str | os.PathLike[str], *, use: bool = True) -> StyledRecords:
    """Training records with the styled copies found on disk; with none, or use=False, the records alone.

    Passed over: copies of images that are not among `records` (left out as broken, say), and a copy in the style of the
    image's own camera.

    Errors: InputError where a file of the folder is not named by the convention.
    """
    folder = camstyle_folder(records[0], pathlib.Path(root).expanduser()) if use and records else None
    copies: list[list[Record]] = [[] for _ in records]
    if folder is not None:
        position = {record.path.stem: i for i, record in enumerate(records)}
        for path in sorted(p for inner in (folder, *_folders(folder)) for p in image_files(inner)):
            match = NAME.fullmatch(path.stem)
            if not match:
                raise InputError(
                    f"{path}: camera-styled images must be named <image>_fake_<camera>to<camera>.jpg or <image>_fake_<camera>.jpg"
                )
            i, camera = position.get(match[1]), int(match[2]) - 1
            if i is not None and camera != records[i].camera:
                copies[i].append(dataclasses.replace(records[i], path=path, camera=camera))
    with_copies = list(records)
    first, count = np.zeros(len(records), dtype=np.int64), np.array([len(c) for c in copies], dtype=np.int64)
    for i, styled in enumerate(copies):
        first[i] = len(with_copies)
        with_copies += sorted(styled, key=lambda r: r.camera)
    owner = np.concatenate([np.arange(len(records)), np.repeat(np.arange(len(records)), count)]).astype(np.int64)
    return StyledRecords(with_copies, owner, first, count)


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders inside (MSMT17 keeps one a person)."""
    return sorted(p for p in folder.iterdir() if p.is_dir())


def one_view(styled: StyledRecords, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each image [n] one of its versions, all alike probable: record positions [n]."""
    return styled.version(images, rng.integers(0, styled.count[images] + 1))


def several_views(styled: StyledRecords, images: np.ndarray, views: int, rng: np.random.Generator) -> np.ndarray:
    """For each image [n] `views` of its versions, without repetition while it has others: record positions [n, views]."""
    versions = styled.count[images] + 1  # [n]
    order = rng.random((len(images), int(versions.max(initial=1))))  # [n, most]
    order[np.arange(order.shape[1])[None] >= versions[:, None]] = 2.0  # not there: last
    versions_in_order = order.argsort(axis=1, kind="stable")
    turn = np.arange(views)[None] % versions[:, None]  # [n, views]
    return styled.version(images[:, None], np.take_along_axis(versions_in_order, turn, axis=1))
