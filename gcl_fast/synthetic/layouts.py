"""Layouts: where each image and mesh of a world lies, in the three published layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gcl_fast.files import write_whole
from gcl_fast.meshes.sources import FOLDERS
from gcl_fast.synthetic.plan import Entry

MOST_CAMERAS = {"market1501": 9, "dukemtmc": 9, "msmt17": 99}  # as many as the file names can say
VALIDATION_EVERY = 8  # of the MSMT17 training images, one in so many is listed in list_val.txt


@dataclass(frozen=True)
class Layout:
    """Folders of one layout, relative to the world's root."""

    name: str

    @property
    def images(self) -> PurePosixPath:
        folders = {"market1501": "market1501", "dukemtmc": "dukemtmc-reid/DukeMTMC-reID", "msmt17": "msmt17/MSMT17_V1"}
        return PurePosixPath(folders[self.name])

    def meshes(self, split: str) -> PurePosixPath:
        return PurePosixPath("mesh", FOLDERS[self.name], "train" if split == "train" else "test")

    def folder(self, split: str) -> PurePosixPath:
        if self.name == "msmt17":
            return self.images / ("train" if split == "train" else "test")
        return self.images / {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}[split]

    def file_names(self, entries: Sequence[Entry]) -> list[str]:
        """Image file of each entry relative to its split's folder; no two are the same."""
        if self.name == "msmt17":
            return self._msmt_names(entries)
        taken: dict[str, int] = {}
        names = []
        for entry in entries:
            pid = f"{entry.pid:04d}" if entry.pid >= 0 else str(entry.pid)
            camera, frame = entry.shot.camera + 1, entry.shot.frame
            stem = f"{pid}_c{camera}s1_{frame:06d}" if self.name == "market1501" else f"{pid}_c{camera}_f{frame:07d}"
            box = taken[stem] = taken.get(stem, 0) + 1
            if self.name == "market1501" or box > 1:
                stem += f"_{box:02d}"
            names.append(stem + ".jpg")
        return names

    def _msmt_names(self, entries: Sequence[Entry]) -> list[str]:
        number = {side: _ranks({e.pid for e in entries if (e.split == "train") == side}) for side in (True, False)}
        taken: dict[int, int] = {}
        names = []
        for entry in entries:
            index = taken[entry.pid] = taken.get(entry.pid, -1) + 1
            pid = f"{number[entry.split == 'train'][entry.pid]:04d}"
            names.append(f"{pid}/{pid}_{index:03d}_{entry.shot.camera + 1:02d}_0303noon_{entry.shot.frame:04d}_0.jpg")
        return names

    def write_lists(self, root: Path, entries: Sequence[Entry], names: Sequence[str]) -> None:
        """MSMT17's list files: `path pid` lines, identities counted from 0 in train and test each."""
        if self.name != "msmt17":
            return
        lines: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
        for entry, name in zip(entries, names, strict=True):
            split = entry.split
            if split == "train" and (len(lines["train"]) + len(lines["val"])) % VALIDATION_EVERY == VALIDATION_EVERY - 1:
                split = "val"
            lines[split].append(f"{name} {int(name.split('/')[0])}")
        for split, content in lines.items():
            write_whole(root / self.images / f"list_{split}.txt", "".join(line + "\n" for line in content))


def _ranks(pids: set[int]) -> dict[int, int]:
    return {pid: rank for rank, pid in enumerate(sorted(pids))}
