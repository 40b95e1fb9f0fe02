"""NumPy's files and zip archives from strangers: what they claim is compared with what they have before anything is allocated."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

FREELY = 64 << 20
"""Bytes that a small archive may unpack to; more only at most RATIO times its own size."""
RATIO = 100


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Errors: ValueError where an archive of `size` bytes unpacks to more than its content can honestly be."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(FREELY, RATIO * size):
        raise ValueError(f"it is {size:,} bytes and claims to unpack to {unpacked:,}, as no honest file does")


def check_zip(path: str | os.PathLike[str]) -> None:
    """`check_unpacked` of a file that another library is about to read; anything that is no zip passes."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, os.path.getsize(path))


@contextlib.contextmanager
def _told_as_value_error() -> Iterator[None]:
    """Parsers and decompressors meet a damaged file with errors of many kinds."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def read_array(file: IO[bytes], size: int, objects: Callable[[IO[bytes]], object] | None = None) -> object:
    """One array of NumPy's format.

    Arguments:
        file: open at its beginning.
        size: bytes that there are.
        objects: reads an array of Python objects, which is a pickle; None: refused.

    Errors: ValueError: damaged, or more than arrays.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        if objects is None:
            raise ValueError("an array of Python objects, which is a pickle")
        return objects(file)
    wanted = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or wanted > size:
        raise ValueError(f"it ends early: its header says {wanted:,} bytes, there are {size:,}")
    data = file.read(wanted)
    if len(data) != wanted:
        raise ValueError("it ends early")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")


def read_npy(path: str | os.PathLike[str], objects: Callable[[IO[bytes]], object] | None = None) -> object:
    """The array of a .npy file. Errors: as `read_array`, and OSError."""
    with _told_as_value_error(), Path(path).open("rb") as file:
        return read_array(file, os.fstat(file.fileno()).st_size, objects)


def read_npz(
    path: str | os.PathLike[str], objects: Callable[[IO[bytes]], object] | None = None, keys: Container[str] | None = None
) -> dict[str, Any]:
    """The arrays of a .npz file by name, None for those that are not among `keys`.

    Errors: as `read_array`, and OSError.
    """
    content: dict[str, Any] = {}
    with _told_as_value_error(), zipfile.ZipFile(path) as archive:
        check_unpacked(archive, os.path.getsize(path))
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            content[name] = None
            if keys is None or name in keys:
                with archive.open(entry) as file:
                    content[name] = read_array(file, entry.file_size, objects)
    return content
