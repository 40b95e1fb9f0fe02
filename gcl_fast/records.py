"""One image of a person, and a dataset of them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from gcl_fast.data.statistics import SplitStatistics, split_statistics, table


@dataclass(frozen=True)
class Record:
    """One image.

    path    the image file
    pid     person; in a training split relabelled 0 .. P-1 in sorted order, -1 = unknown
    camera  zero-based
    frame   frame number within the recording, -1 = unknown
    """

    path: pathlib.Path
    pid: int
    camera: int
    frame: int = -1


@dataclass
class ReIDData:
    """A dataset: what to train on, and the query and gallery lists to score with (both may be empty for `csv`).

    `root` is the folder the user gave, which is where `mesh/` is looked for.
    """

    name: str
    root: pathlib.Path
    train: list[Record]
    query: list[Record]
    gallery: list[Record]

    def statistics(self) -> dict[str, SplitStatistics]:
        return {
            "train": split_statistics(self.train),
            "query": split_statistics(self.query),
            "gallery": split_statistics(self.gallery, self.query),
        }

    def table(self) -> str:
        """Images, identities and cameras of each split, ready to print."""
        return table(f"{self.name} in {self.root}", self.statistics())


def relabel(records: Sequence[Record]) -> list[Record]:
    """The same records with their identities renumbered 0 .. P-1 in sorted order; -1 stays -1."""
    new = {pid: i for i, pid in enumerate(sorted({r.pid for r in records if r.pid >= 0}))}
    return [dataclasses.replace(r, pid=new.get(r.pid, -1)) for r in records]
