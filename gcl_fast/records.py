"""The values that travel through the package: one image of a person, a data set of them, a batch of them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from gcl_fast.transfer import send

Item = TypeVar("Item")
LARGEST = 2**63 - 1
"""Of a person, camera or frame: they travel as 64-bit integers."""


@dataclass(frozen=True)
class Record:
    """One image.

    path    the image file
    pid     person; in a training split relabelled 0 .. P-1 in sorted order, -1 = unknown
    camera  zero-based; below 0: not known, a number for each file
    frame   frame number within the recording, -1 = unknown
    recording  which one, where the data set has several with a clock each; "" = unknown
    """

    path: pathlib.Path
    pid: int
    camera: int
    frame: int = -1
    recording: str = ""


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread."""
    chosen = min(count, len(items))
    return [items[i * (len(items) - 1) // max(chosen - 1, 1)] for i in range(chosen)]


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split; cameras 0: not known. `unlabelled` images (pid -1) count as no identity; `distractors` are gallery
    images of people whom no query shows (Market-1501's pid 0 among them)."""

    images: int
    identities: int
    cameras: int
    unlabelled: int = 0
    distractors: int = 0


def split_statistics(records: Sequence[Record], query: Sequence[Record] | None = None) -> SplitStatistics:
    """Counts of `records`; with `query` given also how many of them show nobody in it."""
    asked = None if query is None else {r.pid for r in query}
    return SplitStatistics(
        images=len(records),
        identities=len({r.pid for r in records if r.pid >= 0}),
        cameras=len({r.camera for r in records if r.camera >= 0}),
        unlabelled=sum(r.pid < 0 for r in records),
        distractors=0 if asked is None else sum(r.pid not in asked for r in records),
    )


def table(title: str, splits: dict[str, SplitStatistics]) -> str:
    """One line a split: images, identities, cameras (-: not known), and a note where images carry no (queried) identity."""
    lines = [title, f"  {'':<8} {'images':>9} {'identities':>11} {'cameras':>8}"]
    for name, s in splits.items():
        notes = []
        if s.unlabelled:
            notes.append(f"{s.unlabelled:,} without identity")
        if s.distractors:
            notes.append(f"{s.distractors:,} distractors")
        cameras = f"{s.cameras:,}" if s.cameras or not s.images else "-"
        note = "  (" + ", ".join(notes) + ")" if notes else ""
        lines.append(f"  {name:<8} {s.images:>9,} {s.identities:>11,} {cameras:>8}{note}")
    return "\n".join(lines)


@dataclass
class ReIDData:
    """A dataset: what to train on, and the query and gallery lists to score with (both may be empty for `csv`).

    root         the folder the user gave, which is where `mesh/` is looked for
    passed_over  split -> what its folder holds beside the records and why it is not read, in words
    person_names, camera_names  what the lists call person or camera 0, 1, ... where that is text; persons: of query and gallery
    first_camera  the data set's own number of camera 0; None where it tells no cameras
    train_cameras whether it tells the training images' cameras; else all of them are 0
    """

    name: str
    root: pathlib.Path
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    passed_over: dict[str, tuple[str, ...]] = field(default_factory=dict)
    person_names: tuple[str, ...] = ()
    camera_names: tuple[str, ...] = ()
    first_camera: int | None = 1
    train_cameras: bool = True

    def caption(self, record: Record) -> str:
        """Person and camera of a test image as the data set itself calls them, a line each."""
        person = self.person_names[record.pid] if self.person_names and record.pid >= 0 else record.pid
        if self.first_camera is None or record.camera < 0:
            return f"pid {person}"
        camera = self.camera_names[record.camera] if self.camera_names else record.camera + self.first_camera
        return f"pid {person}\ncam {camera}"

    def statistics(self) -> dict[str, SplitStatistics]:
        train = split_statistics(self.train)
        return {
            "train": train if self.train_cameras else dataclasses.replace(train, cameras=0),
            "query": split_statistics(self.query),
            "gallery": split_statistics(self.gallery, self.query),
        }

    def table(self) -> str:
        """Images, identities and cameras of each split, and what was passed over, ready to print."""
        lines = [table(f"{self.name} in {self.root}", self.statistics())]
        lines += [f"  passed over in {split}: {'; '.join(words)}" for split, words in self.passed_over.items() if words]
        return "\n".join(lines)

    def without(self, paths: Iterable[pathlib.Path]) -> ReIDData:
        """The same data set without some images; identities keep their numbers."""
        left_out = set(paths)

        def kept(records: list[Record]) -> list[Record]:
            return [record for record in records if record.path not in left_out]

        return dataclasses.replace(self, train=kept(self.train), query=kept(self.query), gallery=kept(self.gallery))

    def mesh_split(self, split: str) -> list[Record]:
        """The images whose meshes lie in the folder `split`: train, or test, which serves query and gallery."""
        return list(self.train) if split == "train" else [*self.query, *self.gallery]


def relabel(records: Sequence[Record]) -> list[Record]:
    """The same records with their identities renumbered 0 .. P-1 in sorted order; -1 stays -1."""
    new = {pid: i for i, pid in enumerate(sorted({r.pid for r in records if r.pid >= 0}))}
    return [dataclasses.replace(r, pid=new.get(r.pid, -1)) for r in records]


@dataclass
class Batch:
    """One batch of training or evaluation samples.

    image       [B, 3, H, W] float32, ImageNet-normalised
    mesh        [B, 1, H, W] float32 in [-1, 1], the body in the photo's own view; None where no mesh was asked for
    mesh_novel  [B, 1, H, W] float32 in [-1, 1], the same body turned; None likewise
    pid         [B] int64, person (-1 unknown); never used for training
    camera      [B] int64, zero-based
    index       [B] int64, position in the records the loader was made from (row of the memory bank)
    yaw         [B] float32, degrees by which the body of mesh_novel is turned, or to be turned; None where no turn was asked for
    """

    image: Tensor
    mesh: Tensor | None
    mesh_novel: Tensor | None
    pid: Tensor
    camera: Tensor
    index: Tensor
    yaw: Tensor | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def to(
        self, device: torch.device | str, *, non_blocking: bool = True, memory_format: torch.memory_format = torch.preserve_format
    ) -> Batch:
        """The same batch on another device.

        Arguments:
            device: where to.
            non_blocking: do not wait for the copy: what goes to a GPU takes the way through pinned memory.
            memory_format: of the images and meshes.
        """

        def move(tensor: Tensor) -> Tensor:
            layout = memory_format if tensor.dim() == 4 else torch.preserve_format
            tensor = send(tensor, torch.device(device)) if non_blocking else tensor
            return tensor.to(device, memory_format=layout)

        return Batch(
            image=move(self.image),
            mesh=None if self.mesh is None else move(self.mesh),
            mesh_novel=None if self.mesh_novel is None else move(self.mesh_novel),
            pid=move(self.pid),
            camera=move(self.camera),
            index=move(self.index),
            yaw=None if self.yaw is None else move(self.yaw),
        )
