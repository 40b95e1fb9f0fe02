"""A user's own images, listed in CSV files."""

from __future__ import annotations

import csv
import io
import os
import pathlib

from gcl_fast.data.datasets.folders import check_folder, listing
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import read_text
from gcl_fast.records import LARGEST, Record, ReIDData, relabel

COLUMNS = "path, pid, camera, frame"


def read_csv_dataset(root: str | os.PathLike[str]) -> ReIDData:
    """Read `<root>/train.csv` and, where they exist, `query.csv` and `gallery.csv` (both or neither).

    Columns, by header, in any order: `path` (relative to `root`, or absolute), `pid` (integer; in `train.csv` it may
    be missing, empty or -1 = unknown: training never uses it; elsewhere -1 = junk, skipped), `camera` (integer from
    0, optional), `frame` (integer, optional). Other columns are passed over. Train identities are relabelled in
    sorted order.

    Scoring leaves out a gallery image of the query's own person and camera. Without cameras nothing can be left
    out, so queries are given camera 0 and gallery images camera 1 (training images camera 0); `query.csv` and
    `gallery.csv` must both have the column or both lack it.
    """
    root = pathlib.Path(root).expanduser()
    check_folder("csv: dataset root", root)
    if not (root / "train.csv").is_file():
        raise MissingFileError(f"csv: expected {root / 'train.csv'} with columns {COLUMNS}; {root} holds {listing(root)}")
    train, _, _ = _read(root / "train.csv", root, camera=0, pid_needed=False)
    passed_over: dict[str, tuple[str, ...]] = {}
    there = [n for n in ("query.csv", "gallery.csv") if (root / n).is_file()]
    if len(there) == 1:
        other = "gallery.csv" if there == ["query.csv"] else "query.csv"
        raise MissingFileError(f"csv: {root} holds {there[0]} but not {other}: scoring needs both, training neither")
    query: list[Record] = []
    gallery: list[Record] = []
    if there:
        query, query_cameras, passed_over["query"] = _read(root / "query.csv", root, camera=0, pid_needed=True)
        gallery, gallery_cameras, passed_over["gallery"] = _read(root / "gallery.csv", root, camera=1, pid_needed=True)
        if query_cameras != gallery_cameras:
            has, lacks = ("query.csv", "gallery.csv") if query_cameras else ("gallery.csv", "query.csv")
            raise InputError(f"csv: {root / has} has a column camera and {root / lacks} has none: give both or neither")
    return ReIDData("csv", root, relabel(train), query, gallery, passed_over)


def _read(file: pathlib.Path, root: pathlib.Path, *, camera: int, pid_needed: bool) -> tuple[list[Record], bool, tuple[str, ...]]:
    """Records of one file in its order, whether it has a camera column (`camera` is used where it has none), and what it lists
    that is left out."""
    with io.StringIO(read_text(file), newline="") as text:
        reader = csv.DictReader(text, skipinitialspace=True)
        header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        missing = [c for c in ("path", *(["pid"] if pid_needed else [])) if c not in header]
        if missing:
            there = ", ".join(header) or "empty"
            raise InputError(f"csv: {file} lacks the column {' and '.join(missing)}; its header is {there}")
        reader.fieldnames = header
        records, junk = [], 0
        for row in reader:
            where = f"csv: {file}, line {reader.line_num}"
            path = (row["path"] or "").strip()
            if not path:
                raise InputError(f"{where}: path must name an image, got nothing")
            pid = _integer(where, row, "pid", low=-1, absent=None if pid_needed else -1)
            if pid < 0 and pid_needed:
                junk += 1
                continue
            cam = _integer(where, row, "camera", low=0, absent=None) if "camera" in header else camera
            records.append(Record(root / path, pid, cam, _integer(where, row, "frame", low=-1, absent=-1)))
    if not records:
        raise InputError(f"csv: {file} lists no images; expected one a line under the columns {COLUMNS}")
    return records, "camera" in header, (f"{junk:,} lines of person -1 (junk)",) if junk else ()


def _integer(where: str, row: dict[str, str | None], column: str, *, low: int, absent: int | None) -> int:
    text = (row.get(column) or "").strip()
    if not text and absent is not None:
        return absent
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= LARGEST:
        raise InputError(f"{where}: {column} must be an integer from {low} to {LARGEST}, got {text!r}")
    return value
