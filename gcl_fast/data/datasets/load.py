"""The door to every dataset: `load_dataset(name, root)`."""

from __future__ import annotations

import os

from gcl_fast.constants import DATASETS
from gcl_fast.data.datasets.csv_data import read_csv_dataset
from gcl_fast.data.datasets.market import read_market
from gcl_fast.data.datasets.msmt17 import read_msmt17
from gcl_fast.data.datasets.photo_folder import read_photo_folder
from gcl_fast.errors import InputError
from gcl_fast.records import ReIDData


def load_dataset(name: str, root: str | os.PathLike[str]) -> ReIDData:
    """Read the lists of a dataset; no image is opened (see `require_readable`).

    Arguments:
        name: "market1501", "dukemtmc", "msmt17", "csv" or "folder".
        root: the folder that holds `market1501/`, `dukemtmc-reid/` or `msmt17/` in any published root style, or that
            dataset's own folder; for "csv" the folder of `train.csv`; for "folder" a folder of photos.

    Returns: records in the order of file names or list lines, the same on every machine.
    Errors: MissingFileError or InputError saying what was expected where and what was found.
    """
    if name in ("market1501", "dukemtmc"):
        return read_market(name, root)
    if name == "msmt17":
        return read_msmt17(root)
    if name == "csv":
        return read_csv_dataset(root)
    if name == "folder":
        return read_photo_folder(root)
    raise InputError(f"load_dataset: name must be one of {', '.join(DATASETS)}, got {name!r}")
