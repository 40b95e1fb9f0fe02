"""Folders of a dataset below the one that a user names, and a helpful error when they are not there."""

from __future__ import annotations

import difflib
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gcl_fast.errors import MissingFileError
from gcl_fast.images import IMAGE_SUFFIXES
from gcl_fast.progress import counted

CLUTTER = ("Thumbs.db", "desktop.ini")  # what a system leaves in every folder of pictures
LISTED = 12  # entries that an error message names


@dataclass(frozen=True)
class Place:
    """A folder below the root (`.` = the root itself) and the entries it must hold to be the dataset."""

    folder: str
    needs: tuple[str, ...]


def listing(folder: pathlib.Path) -> str:
    """What a folder holds, in a few words for an error message."""
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def check_folder(what: str, folder: str | os.PathLike[str]) -> pathlib.Path:
    """`folder` as a path; MissingFileError that lists similar names beside it when it is no folder."""
    folder = pathlib.Path(folder).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise MissingFileError(f"{what}: {folder} is a file: give its folder {folder.parent}")
    hint = ""
    if folder.parent.is_dir():
        near = difflib.get_close_matches(folder.name, [p.name for p in folder.parent.iterdir()], n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; {folder.parent} holds {listing(folder.parent)}"
    raise MissingFileError(f"{what}: {folder} does not exist{hint}")


def find_place(dataset: str, root: str | os.PathLike[str], places: Sequence[Place]) -> tuple[pathlib.Path, Place]:
    """The first place below `root` that holds all it needs.

    Errors: MissingFileError naming every place tried and, for the nearest one, what is missing and what is there.
    """
    root = check_folder(f"{dataset}: dataset root (--root)", root)
    tried: list[tuple[int, pathlib.Path, list[str]]] = []  # (entries found, folder, entries missing)
    for place in places:
        folder = root / place.folder
        missing = [n for n in place.needs if not (folder / n).exists()]
        if not missing:
            return folder, place
        tried.append((len(place.needs) - len(missing), folder, missing))
    lines = [f"{dataset}: no complete dataset below {root}. Expected one of"]
    lines += [f"  {root / p.folder}/ with {', '.join(p.needs)}" for p in places]
    there, folder, missing = max(tried, key=lambda t: t[0])
    if there:
        lines.append(f"Nearest is {folder}, which lacks {', '.join(missing)}; it holds {listing(folder)}")
    else:
        wanted = {part.lower(): part for p in places for part in pathlib.PurePath(p.folder).parts}
        near = {}
        for below in sorted(p.name for p in root.iterdir()):
            for match in difflib.get_close_matches(below.lower(), wanted, n=1, cutoff=0.7):
                near[below] = wanted[match]
        lines.append(f"{root} holds {listing(root)}")
        # a right name here means the folder is there and its content is not
        renames = [f"{a} (expected name: {b})" for a, b in near.items() if a != b]
        if renames:
            lines.append("Similar names: " + ", ".join(renames))
        lines += [f"{root / a} holds {listing(root / a)}" for a, b in near.items() if a == b and (root / a).is_dir()]
        if not near and any(p.suffix.lower() in IMAGE_SUFFIXES for p in root.rglob("*")):
            lines.append(f"For the photos in {root} alone, of people whom nobody has named: --dataset folder")
    raise MissingFileError("\n".join(lines))


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Image files of a folder by name; hidden files and others (Thumbs.db) are passed over."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(images, key=lambda p: p.name)


def passed_over(folder: pathlib.Path) -> tuple[str, ...]:
    """What `image_files` leaves out of a folder, by kind, in words for the table of the data set."""
    strange, deeper, folders = [], 0, 0
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            inside = sum(p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") for p in path.rglob("*"))
            deeper, folders = deeper + inside, folders + bool(inside)
        else:
            strange.append(path.name)
    words = list(other_kinds(strange))
    if deeper:
        words.append(f"{counted(deeper, 'image')} in {counted(folders, 'folder')} inside (the layout has none: move them up)")
    return tuple(words)


def other_kinds(names: Iterable[str]) -> tuple[str, ...]:
    """How many files of which kinds are not read, in words; nothing where all are images, hidden or a system's clutter."""
    suffixes = [pathlib.Path(name).suffix.lower() for name in names if not name.startswith(".") and name not in CLUTTER]
    strange = Counter(suffix or "without an extension" for suffix in suffixes if suffix not in IMAGE_SUFFIXES)
    if not strange:
        return ()
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(strange.items()))
    return (f"{counted(strange.total(), 'file')} of kinds that are not read ({kinds})",)
