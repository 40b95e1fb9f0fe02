"""Files on disk, written whole: a reader, or a run that is killed at any moment, meets the old file or the new one; text in
whatever encoding a stranger's editor gave it; and which paths are one file."""

from __future__ import annotations

import codecs
import contextlib
import errno
import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from gcl_fast.errors import FileError, InputError

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

ABANDONED = 3600.0  # seconds; not by the writer's number, which says nothing of one on another machine or in a container

Content = bytes | str | Callable[[IO[bytes]], object]


def json_text(value: object, *, indent: int | None = None) -> str:
    """Plain containers as a text that every JSON reader takes, with its line end: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def file_numbers(paths: Iterable[str | os.PathLike[str]]) -> list[int]:
    """A number from 0 for each path; paths that lead to one file, through links or not, have one number."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(os.path.realpath(path), len(numbers)) for path in paths]


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder and those that it lies in; one that is there is fine. Errors: FileError that names it and the reason."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {why_not_written(Path(folder), error)}") from error
    return Path(folder)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Whether `write_whole` could write `path`, asked before long work; makes its folder, and removes what killed writers of this
    very file left in it.

    Errors: FileError that names the path and the reason.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder")
    probe = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    """Remove unfinished files of `path` that nobody has written to for long."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.\d+\.\d+\.tmp{re.escape(path.suffix)}")
    with contextlib.suppress(OSError):  # another process may remove them too
        for entry in os.scandir(path.parent):
            if name.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > ABANDONED:
                os.unlink(entry)


def write_whole(path: str | os.PathLike[str], content: Content, *, flush: bool = True) -> Path:
    """Write `path` through a file beside it, flushed to the disk and renamed; folders are made.

    Arguments:
        path: the file.
        content: bytes, text (written as UTF-8, with escapes for what has none there: bytes of a file's name), or a function that
            writes to the open binary file it is given.
        flush: wait until it is on the disk, so that even a power cut leaves a whole file. Some milliseconds: False for the many
            files of a command that can make them again.

    Returns: the path. The last of several writers wins; each file is one writer's alone.
    Errors: FileError (an OSError) that names the path and the reason, such as a full disk; nothing is left beside the old file.
        What `content` raises passes through, with the same clean-up.
    """
    with unfinished_beside(path) as unfinished, unfinished.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    return Path(path)


@contextlib.contextmanager
def unfinished_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where to write what is to become `path`: it takes that place when the block ends well, and is removed when it does not.

    For what must be written by name, or checked before it counts; else `write_whole`. Errors: as there.
    """
    path = Path(path)
    unfinished = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise FileError(f"cannot write {path}: {why_not_written(path, error)}") from error
        raise


def why_not_written(path: Path, error: OSError) -> str:
    """The system's reason, with what is free where it is too little."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    return f"{reason} ({mib(free_space(path))} free there); make room, then go on"


def free_space(path: Path) -> int:
    """Bytes free on the disk where `path` is, or will be; a large number where the system does not say."""
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 2**62


def mib(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**20:,.1f} MiB"


def _unfinished(path: Path) -> Path:
    """The file beside `path` that this thread writes."""
    return path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}.tmp{path.suffix}")


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Errors: OSError; InputError naming the file where it is no text.
    """
    return decoded(Path(path).read_bytes(), path)


def decoded(content: bytes, path: str | os.PathLike[str]) -> str:
    """The text of a file's content; `path` is what errors call it. As `read_text`."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:4]:  # ASCII letters in UTF-16 without a mark
        encoding = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-16"):
            raise InputError(f"{path} is damaged: it begins as {encoding.upper()} and goes on as something else") from error
        text = content.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    if "\0" in text:
        raise InputError(f"{path} is not a text file: save it as UTF-8")
    return text
