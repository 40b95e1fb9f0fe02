"""A user's own images, listed in CSV files."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gcl_fast.data.datasets.folders import check_folder, listing
from gcl_fast.errors import InputError, MissingFileError
from gcl_fast.files import file_numbers, read_text
from gcl_fast.progress import counted
from gcl_fast.records import LARGEST, Record, ReIDData, relabel

COLUMNS = "path, pid, camera, frame"
# 12_3 is a name, though int() takes it for 123; tables with gaps are often written with 12.0 for 12
WHOLE = re.compile(r"([+-]?\d{1,40})(?:\.0+)?")


@dataclass(frozen=True)
class _Line:
    """One line of a file as it stands there; place: which, for errors; camera: None where the file has no such column."""

    place: str
    path: pathlib.Path
    pid: str
    camera: str | None
    frame: int


def read_csv_dataset(root: str | os.PathLike[str]) -> ReIDData:
    """Read `<root>/train.csv` and, where they exist, `query.csv` and `gallery.csv` (both or neither).

    Columns, by header, in any order: `path` (relative to `root`, or absolute), which alone is enough to train; `pid` (in
    `train.csv` it may be missing, empty or -1 = unknown: training never uses it; elsewhere -1 = junk, skipped), `camera`
    (optional), `frame` (integer, optional). Other columns are passed over. Persons are whole numbers from 0 (also as 12.0) or any
    text, cameras too: where one of a column is text, all are read as text, and numbered in sorted order. Train identities are
    relabelled in sorted order.

    Scoring leaves out a gallery image of the query's own person and camera. Without cameras it leaves out the query's very file
    alone: each file of query and gallery has an unknown camera of its own, below 0 (training images have camera 0).
    `query.csv` and `gallery.csv` must both have the column or both lack it, and give a file that is in both the same camera.
    """
    root = pathlib.Path(root).expanduser()
    check_folder("csv: dataset root (--root)", root)
    if not (root / "train.csv").is_file():
        raise MissingFileError(
            f"csv: expected {root / 'train.csv'} with columns {COLUMNS} (path alone is enough); {root} holds {listing(root)}; "
            "for a folder of photos without lists: --dataset folder"
        )
    train, test = _read(root / "train.csv", root, pid_needed=False), {}
    there = [n for n in ("query", "gallery") if (root / f"{n}.csv").is_file()]
    if len(there) == 1:
        other = "gallery.csv" if there == ["query"] else "query.csv"
        raise MissingFileError(f"csv: {root} holds {there[0]}.csv but not {other}: scoring needs both, training neither")
    for name in there:
        test[name] = _read(root / f"{name}.csv", root, pid_needed=True)
    if test and (test["query"][0].camera is None) != (test["gallery"][0].camera is None):
        has, lacks = ("query.csv", "gallery.csv") if test["query"][0].camera is not None else ("gallery.csv", "query.csv")
        raise InputError(f"csv: {root / has} has a column camera and {root / lacks} has none: give both or neither")

    shown = [line for part in test.values() for line in part]
    lines = [*train, *shown]
    cameras, camera_names = _numbers("camera", [(line.place, line.camera) for line in lines if line.camera is not None], low=0)
    train_pids, _ = _numbers("pid", [(line.place, line.pid) for line in train if line.pid], low=-1)
    test_pids, person_names = _numbers("pid", [(line.place, line.pid) for line in shown], low=-1)

    unknown = {line.path: -1 - number for line, number in zip(shown, file_numbers(line.path for line in shown), strict=True)}
    _check_cameras(shown, unknown, cameras)

    def records(part: Sequence[_Line], pids: dict[str, int], unknown: dict[pathlib.Path, int]) -> list[Record]:
        numbered = [(line, unknown.get(line.path, 0) if line.camera is None else cameras[line.camera]) for line in part]
        return [Record(line.path, pids.get(line.pid, -1), camera, line.frame) for line, camera in numbered]

    query, gallery = (records(test.get(name, []), test_pids, unknown) for name in ("query", "gallery"))
    junk = {name: sum(r.pid < 0 for r in part) for name, part in (("query", query), ("gallery", gallery))}
    for name, part in (("query", query), ("gallery", gallery)):
        if part and junk[name] == len(part):
            raise _empty(root / f"{name}.csv")
    return ReIDData(
        "csv",
        root,
        relabel(records(train, train_pids, {})),
        [r for r in query if r.pid >= 0],
        [r for r in gallery if r.pid >= 0],
        {name: (f"{n:,} lines of person -1 (junk)",) if n else () for name, n in junk.items() if name in test},
        person_names=person_names,
        camera_names=camera_names,
        first_camera=0 if cameras else None,
        train_cameras=train[0].camera is not None,
    )


def _read(file: pathlib.Path, root: pathlib.Path, *, pid_needed: bool) -> list[_Line]:
    """The lines of one file in its order."""
    with io.StringIO(read_text(file), newline="") as text:
        reader = csv.DictReader(text, skipinitialspace=True)
        header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        missing = [c for c in ("path", *(["pid"] if pid_needed else [])) if c not in header]
        if missing:
            there = ", ".join(header) or "empty"
            raise InputError(f"csv: {file} lacks the column {' and '.join(missing)}; its header is {there}{_other_mark(header)}")
        twice = [c for c in COLUMNS.split(", ") if header.count(c) > 1]
        if twice:
            raise InputError(f"csv: {file} has the column {' and '.join(twice)} twice; its header is {', '.join(header)}")
        reader.fieldnames = header
        lines = []
        for row in _rows(reader, file):
            where = f"csv: {file}, line {reader.line_num}"
            if any(row.get(None) or ()):  # what lies beyond the header's columns
                fields = f"{counted(len(header), 'field')} ({', '.join(header)})"
                raise InputError(
                    f"{where}: expected at most {fields}, got {len(header) + len(row[None])}; "
                    'what holds a comma needs quotes around it ("a,b.jpg")'
                )
            path, pid = _text(row, "path"), _text(row, "pid")
            camera = _text(row, "camera") if "camera" in header else None
            if not path:
                raise InputError(f"{where}: path must name an image, got nothing")
            if len(path.splitlines()) > 1:  # the rest of the list would be one broken image
                raise InputError(f"{where}: path must name an image, got {path[:40]!r} ...; is a quote left open?")
            if camera == "":
                raise InputError(f"{where}: camera must be a whole number from 0 or a name, got ''")
            if pid_needed and not pid:
                raise InputError(f"{where}: pid must be a whole number, a name, or -1 for junk, got ''")
            lines.append(_Line(where, root / path, pid, camera, _integer(where, "frame", _text(row, "frame") or "-1", low=-1)))
    if not lines:
        raise _empty(file)
    return lines


def _other_mark(header: Sequence[str]) -> str:
    """'; columns are parted by commas, not ...' for a header as table programs of some countries write it; else empty."""
    marks = {";": "semicolons", "\t": "tabs"}
    other = next((mark for mark in marks if any(mark in column for column in header)), "")
    return f"; columns are parted by commas, not {marks[other]}" if other else ""


def _rows(reader: csv.DictReader[str], file: pathlib.Path) -> Iterator[dict[Any, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"csv: {file}, near line {reader.line_num}: {error}; is a quote left open?") from error


def _check_cameras(lines: Sequence[_Line], files: dict[pathlib.Path, int], cameras: dict[str, int]) -> None:
    """One file, one camera: else a query's own file, under another camera, would count as a match of it."""
    first: dict[int, _Line] = {}
    for line in lines:
        other = first.setdefault(files[line.path], line)
        if line.camera is None or other.camera is None:
            continue
        if cameras[line.camera] != cameras[other.camera]:
            place = other.place.removeprefix("csv: ")
            raise InputError(
                f"{line.place}: camera must be {other.camera!r}, as {place} has it of the same file, got {line.camera!r}"
            )


def _empty(file: pathlib.Path) -> InputError:
    return InputError(f"csv: {file} lists no images; expected one a line under the columns {COLUMNS}")


def _text(row: dict[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _numbers(column: str, values: Iterable[tuple[str, str]], *, low: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """What each text of a column is as a number, and the names by these numbers where it is no column of numbers.

    values: (place, text); -1 stays -1 where `low` allows it.
    """
    values = list(dict.fromkeys(values))
    if all(WHOLE.fullmatch(text) for _, text in values):
        return {text: _integer(place, column, text, low=low) for place, text in values}, ()
    unknown = {"-1": -1} if low < 0 else {}
    names = sorted({text for _, text in values} - set(unknown))
    return {**unknown, **{name: number for number, name in enumerate(names)}}, tuple(names)


def _integer(where: str, column: str, text: str, *, low: int) -> int:
    whole = WHOLE.fullmatch(text)
    value = int(whole[1]) if whole else low - 1
    if not low <= value <= LARGEST:
        raise InputError(f"{where}: {column} must be an integer from {low} to {LARGEST}, got {text!r}")
    return value
