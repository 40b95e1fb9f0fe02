"""Images that cannot be decoded, found before training starts."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from gcl_fast.errors import FileError, InputError
from gcl_fast.images import open_image, pillow, to_mode
from gcl_fast.progress import counted
from gcl_fast.records import Record, ReIDData

Broken = list[tuple[pathlib.Path, str]]


def find_broken(records: Iterable[Record], *, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Broken:
    """Decode every image fully, once, and list those that fail as (path, reason), in the order of the records.

    Arguments:
        records: their images; one that comes twice is read once.
        workers: threads (decoding does not hold the interpreter); 0 or 1: none beside the caller's.
        progress: called with (images done, images in all) after each image.
    """
    pillow()
    paths = list(dict.fromkeys(r.path for r in records))  # an image may be query and gallery at once
    broken: Broken = []

    def collect(reasons: Iterable[str | None]) -> Broken:
        for done, (path, reason) in enumerate(zip(paths, reasons, strict=True), start=1):
            if reason is not None:
                broken.append((path, reason))
            if progress is not None:
                progress(done, len(paths))
        return broken

    if workers <= 1:
        return collect(map(why_broken, paths))
    with ThreadPoolExecutor(workers) as pool:
        return collect(pool.map(why_broken, paths))


def why_broken(path: pathlib.Path) -> str | None:
    """Why an image cannot be decoded to its last row, or None where it can."""
    try:
        with open_image(path) as image:
            image.load()
            if image.mode in ("I", "F"):
                to_mode(image, "L")  # 32 bits may be refused
    except FileNotFoundError:
        return "no such file"
    except InputError as error:
        return str(error)
    except Exception as error:  # a broken file may raise nearly anything in a decoder
        empty = path.is_file() and path.stat().st_size == 0
        return "empty file" if empty else f"{type(error).__name__}: {error}".replace(str(path), path.name)
    return None


def require_readable(data: ReIDData, skip_broken: bool = False) -> ReIDData:
    """`data` if every image can be decoded; with `skip_broken` else `data` without those that cannot, and a warning that names
    them. Identities keep their numbers.

    Errors: FileError that names the images, or the split of which none is left.
    """
    broken = find_broken([*data.train, *data.query, *data.gallery])
    if not broken:
        return data
    message = name_files(
        f"{data.name}: {counted(len(broken), 'image')} cannot be read", [f"{path}: {why}" for path, why in broken]
    )
    if not skip_broken:
        raise FileError(message + "\nRepair or remove them, or give --skip-broken to go on without them.")
    warnings.warn(message + "\nGoing on without them.", stacklevel=2)
    kept = data.without(path for path, _ in broken)
    for split in ("train", "query", "gallery"):
        if getattr(data, split) and not getattr(kept, split):
            raise FileError(f"{data.name}: no image of {split} can be read\n{message}")
    return kept


def name_files(title: str, lines: Sequence[str], limit: int = 10) -> str:
    """`title`, then the first few lines, then how many more there are."""
    more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([title + ":", *(f"  {line}" for line in lines[:limit]), *more])
