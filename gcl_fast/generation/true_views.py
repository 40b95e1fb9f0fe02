"""True views of held-out people: their list, and the mean training image, a guess that needs no generator."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.generation.inputs import load_units

COLUMNS = ("source", "yaw", "image", "background")


@dataclass(frozen=True)
class TrueView:
    """One row of truth/index.csv: the dataset photo, the angle, its true picture, the background without the person."""

    source: Path
    yaw: float
    image: Path
    background: Path


def read_truth(truth_dir: str | os.PathLike[str]) -> list[TrueView]:
    """The rows of `<world>/truth/index.csv`; its paths are relative to the world's root.

    Errors: MissingFileError for the list or a picture it names; InputError naming file and line for a bad row.
    """
    index = Path(truth_dir) / "index.csv"
    if not index.is_file():
        expected = f"expected the list of true views here (columns {', '.join(COLUMNS)}), found nothing"
        raise MissingFileError(f"{index}: {expected}")
    with index.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lacking = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
        if lacking:
            raise InputError(f"{index}: expected columns {', '.join(COLUMNS)}, lacking {', '.join(lacking)}")
        views = [_true_view(row, index, reader.line_num) for row in reader]
    if not views:
        raise InputError(f"{index}: expected at least one true view, found none")
    return views


def _true_view(row: dict[str, str | None], index: Path, line: int) -> TrueView:
    try:
        yaw = float(row["yaw"] or "")
    except ValueError:
        yaw = math.nan
    if not math.isfinite(yaw):
        raise InputError(f"{index}, line {line}: yaw: expected degrees, got {row['yaw']!r}")
    paths = {column: index.parent.parent / (row[column] or "") for column in ("source", "image", "background")}
    for column, path in paths.items():
        if not path.is_file():
            raise MissingFileError(f"{path}: named as {column} in {index}, line {line}, but not found")
    return TrueView(yaw=yaw, **paths)


def by_source(views: Iterable[TrueView]) -> dict[Path, list[TrueView]]:
    """The true views of each photo."""
    groups: dict[Path, list[TrueView]] = {}
    for view in views:
        groups.setdefault(view.source, []).append(view)
    return groups


def mean_training_image(paths: Sequence[str | os.PathLike[str]], image_size: tuple[int, int]) -> Tensor:
    """The pixelwise mean of image files (the training images): RGB [3, H, W] float32 in [0, 1]."""
    if not len(paths):
        raise ValueError("paths: expected at least one image, got none")
    total = torch.zeros(3, *image_size, dtype=torch.float64)
    for path in paths:
        total += load_units([path], image_size)[0]
    return (total / len(paths)).float()
