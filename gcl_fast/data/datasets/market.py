"""Market-1501 and DukeMTMC-reID: three folders of images whose names say person, camera and frame."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

from gcl_fast.data.datasets.folders import Place, find_place, image_files, listing, passed_over
from gcl_fast.errors import InputError
from gcl_fast.progress import counted
from gcl_fast.records import LARGEST, Record, ReIDData, relabel

_, QUERY, GALLERY = NEEDS = ("bounding_box_train", "query", "bounding_box_test")
SPLITS = ("train", "query", "gallery")
PLACES = {
    "market1501": ("market1501/Market-1501-v15.09.15", "market1501", "Market-1501-v15.09.15", "."),
    "dukemtmc": ("dukemtmc-reid/DukeMTMC-reID", "dukemtmc-reid", "DukeMTMC-reID", "."),
}
# 0002_c1s1_000451_03.jpg (Market-1501), 0001_c7_f0106449.jpg (DukeMTMC-reID)
NAME = re.compile(r"((?:^-)?\d+)_c(\d+)")  # a sign only where the name begins with it: 2021-03-0001_c1 is person 1
SEQUENCE = re.compile(r"_c\d+s(\d+)_")
FRAME = re.compile(r"_c\d+(?:s\d+)?_f?(\d+)")
JUNK = -1  # a bad detection: never used


def read_market(name: str, root: str | os.PathLike[str]) -> ReIDData:
    """Read `market1501` or `dukemtmc` below `root` (either root style, or the dataset folder itself).

    Images with pid -1 (junk) are skipped; pid 0 (Market-1501's distractors) stays in the gallery; cameras become
    zero-based; training identities are relabelled in sorted order.
    """
    root = pathlib.Path(root).expanduser()
    folder, _ = find_place(name, root, [Place(p, NEEDS) for p in PLACES[name]])
    (train, query, gallery), notes = zip(*(read_folder(name, folder / split) for split in NEEDS), strict=True)
    return ReIDData(name, root, relabel(on_one_clock(train)), query, gallery, dict(zip(SPLITS, notes, strict=True)))


def on_one_clock(records: list[Record]) -> list[Record]:
    """The records with frame numbers that go on from one sequence of a camera to the next: Market-1501 counts each (c1s1,
    c1s2 ...) from 0. A sequence begins where the last image of the one before it was taken, as in JVTC's lists."""
    sequences = [SEQUENCE.search(record.path.name) for record in records]
    last: dict[tuple[int, int], int] = {}
    for record, sequence in zip(records, sequences, strict=True):
        if sequence and record.frame >= 0:
            key = record.camera, int(sequence[1])
            last[key] = max(last.get(key, 0), record.frame)
    moved = []
    for record, sequence in zip(records, sequences, strict=True):
        before = sum(n for (camera, s), n in last.items() if sequence and camera == record.camera and s < int(sequence[1]))
        moved.append(dataclasses.replace(record, frame=record.frame + before) if before and record.frame >= 0 else record)
    return moved


def read_folder(name: str, folder: pathlib.Path) -> tuple[list[Record], tuple[str, ...]]:
    """Records of one folder in the order of their file names, junk left out, identities as in the names; what was left out."""
    every = [parse(name, path) for path in image_files(folder)]
    records = [r for r in every if r.pid != JUNK]
    notes = passed_over(folder)
    if len(records) < len(every):
        notes = (f"{counted(len(every) - len(records), 'image')} of person -1 (junk)", *notes)
    if not records:
        why = f"; passed over: {'; '.join(notes)}" if notes else ""
        raise InputError(f"{name}: {folder} holds no images of people; it holds {listing(folder)}{why}")
    return records, notes


def parse(name: str, path: pathlib.Path) -> Record:
    """Person, zero-based camera and frame (-1 where the name has none) from a file name."""
    match = NAME.search(path.name)
    if not match or int(match[2]) < 1:
        example = "0002_c1s1_000451_03.jpg" if name == "market1501" else "0001_c7_f0106449.jpg"
        raise InputError(f"{name}: {path} must be named <pid>_c<camera, from 1>..., such as {example}")
    if max(abs(int(match[1])), int(match[2])) > LARGEST:
        raise InputError(f"{name}: {path}: person and camera must be at most {LARGEST}")
    frame = FRAME.search(path.name)
    number = int(frame[1]) if frame else -1
    return Record(path, pid=int(match[1]), camera=int(match[2]) - 1, frame=number if number <= LARGEST else -1)
