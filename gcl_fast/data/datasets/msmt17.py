"""MSMT17, versions 1 and 2: list files of `path pid`, cameras and frames in the file names."""

from __future__ import annotations

import os
import pathlib

from gcl_fast.data.datasets.folders import Place, find_place
from gcl_fast.errors import InputError
from gcl_fast.files import read_text
from gcl_fast.records import LARGEST, Record, ReIDData, relabel

LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
VERSIONS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}
EXAMPLE = "0367_010_10_0303noon_0606_2.jpg"


def read_msmt17(root: str | os.PathLike[str]) -> ReIDData:
    """Read MSMT17 below `root`: `msmt17/MSMT17_V1/` or `msmt17/MSMT17_V2/`, or either folder itself; V1 if both.

    `list_val.txt` is merged into the training images, which unsupervised training is free to use.
    """
    root = pathlib.Path(root).expanduser()
    folders = [(f"{above}{version}", version) for above in ("msmt17/", "") for version in VERSIONS]
    folders += [(folder, version) for folder in ("msmt17", ".") for version in VERSIONS]
    folder, place = find_place("msmt17", root, [Place(f, (*VERSIONS[v], *LISTS)) for f, v in folders])
    train_folder, test_folder = (folder / n for n in place.needs[:2])
    train = read_list(folder / "list_train.txt", train_folder) + read_list(folder / "list_val.txt", train_folder, empty=True)
    query, gallery = (read_list(folder / f"list_{n}.txt", test_folder) for n in ("query", "gallery"))
    return ReIDData("msmt17", root, relabel(train), query, gallery)


def read_list(file: pathlib.Path, images: pathlib.Path, *, empty: bool = False) -> list[Record]:
    """Records of one list file, in its order; paths are below `images`."""
    records = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        *before, pid = line.rsplit(maxsplit=1)
        path = before[0].strip() if before else ""
        fields = pathlib.PurePosixPath(path).stem.split("_")
        camera = fields[2] if len(fields) > 2 else ""
        if not (path and pid.isdecimal() and int(pid) <= LARGEST and camera.isdecimal() and 1 <= int(camera) <= LARGEST):
            raise InputError(f"msmt17: {file}, line {number}: expected '<folder>/{EXAMPLE} <pid>', got {line.strip()!r}")
        # 0367_010_10_0303noon_0606_2: person, number, camera, recording, frame in it, number
        frame = int(fields[4]) if len(fields) > 4 and fields[4].isdecimal() else -1
        frame = frame if frame <= LARGEST else -1
        recording = fields[3] if frame >= 0 else ""
        records.append(Record(images / path, pid=int(pid), camera=int(camera) - 1, frame=frame, recording=recording))
    if not records and not empty:
        raise InputError(f"msmt17: {file} lists no images; expected lines such as '0367/{EXAMPLE} 367'")
    return records
