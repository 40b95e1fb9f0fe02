"""`doubts.csv`: which bodies of a split may be wrong, and why."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from gcl_fast.errors import FileError
from gcl_fast.files import write_whole

HEADER = ["image", "doubt"]


def read_doubts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Mesh key -> reason; empty where there is no such file. Errors: FileError where it cannot be read."""
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"cannot read {path}: {error}; remove it, the meshes stay") from error
    return {row[0]: row[1] for row in rows[1:] if len(row) == 2}


def write_doubts(path: str | os.PathLike[str], doubts: Mapping[str, str]) -> None:
    """The same, whole; keys sorted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(sorted(doubts.items()))
    write_whole(path, text.getvalue(), flush=False)
