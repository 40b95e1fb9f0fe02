"""A folder of photos as a data set: nothing but pictures, of people whom nobody has named."""

from __future__ import annotations

import os
import pathlib
import warnings

from gcl_fast.data.datasets.folders import check_folder, listing, other_kinds
from gcl_fast.errors import MissingFileError
from gcl_fast.images import IMAGE_SUFFIXES
from gcl_fast.records import Record, ReIDData

MESHES = "mesh"  # beside the photos; its pictures are of bodies
RUN = {"config.yaml", "history.jsonl"}  # a run's folder holds them; its pictures are of its own making


def photos_below(folder: str | os.PathLike[str], *, leave_out: str = "") -> list[pathlib.Path]:
    """Image files of a folder and of all folders inside, by their names; hidden ones are passed over, and folders of runs. Links
    to folders are followed, each folder is looked into once. A warning names those that may not be looked into.

    leave_out: a folder directly inside that is not looked into.
    Errors: MissingFileError that says what is there instead.
    """
    return _below(check_folder("photos", folder), leave_out)[0]


def _below(root: pathlib.Path, leave_out: str) -> tuple[list[pathlib.Path], list[str]]:
    """The photos, and the names of all other files."""
    found: list[pathlib.Path] = []
    others: list[str] = []
    seen: set[str] = set()
    waiting = [str(root)]  # then the links, so that a folder that lies here and is linked, too, goes by its own name
    while waiting:
        for place, inside, names in os.walk(waiting.pop(0), onerror=_warn):
            real = os.path.realpath(place)
            if real in seen or (set(names) >= RUN and pathlib.Path(place) != root):
                inside.clear()
                continue
            seen.add(real)
            left_out = leave_out if pathlib.Path(place) == root else ""
            inside[:] = [name for name in inside if not name.startswith(".") and name != left_out]
            waiting += [linked for name in sorted(inside) if os.path.islink(linked := os.path.join(place, name))]
            photos = [n for n in names if pathlib.Path(n).suffix.lower() in IMAGE_SUFFIXES and n[0] != "."]
            found += [pathlib.Path(place, name) for name in photos]
            others += set(names) - set(photos)
    if not found:
        kinds = "; ".join(other_kinds(others))
        raise MissingFileError(
            f"no photos in {root} or the folders inside it; it holds {listing(root)}" + (f": {kinds}" if kinds else "")
        )
    return sorted(found, key=lambda path: path.relative_to(root).as_posix()), others


def _warn(error: OSError) -> None:
    warnings.warn(f"passed over {error.filename}: {error.strerror}", stacklevel=2)


def read_photo_folder(root: str | os.PathLike[str]) -> ReIDData:
    """Every photo below `root` (but for `root/mesh`) as a training image of nobody in particular; no query, no gallery."""
    root = check_folder("--root (the folder of photos)", root)
    photos, others = _below(root, MESHES)
    train = [Record(path, pid=-1, camera=0) for path in photos]
    notes = {"train": other_kinds(others)}
    return ReIDData("folder", root, train, [], [], first_camera=None, train_cameras=False, passed_over=notes)
