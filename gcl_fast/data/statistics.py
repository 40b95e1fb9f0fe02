"""Counts of a dataset's splits, as numbers and as a table a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcl_fast.records import Record


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split. `unlabelled` images (pid -1) count as no identity; `distractors` are gallery images of
    people whom no query shows (Market-1501's pid 0 among them)."""

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
        cameras=len({r.camera for r in records}),
        unlabelled=sum(r.pid < 0 for r in records),
        distractors=0 if asked is None else sum(r.pid not in asked for r in records),
    )


def table(title: str, splits: dict[str, SplitStatistics]) -> str:
    """One line a split: images, identities, cameras, and a note where some images carry no (queried) identity."""
    lines = [title, f"  {'':<8} {'images':>9} {'identities':>11} {'cameras':>8}"]
    for name, s in splits.items():
        notes = []
        if s.unlabelled:
            notes.append(f"{s.unlabelled:,} without identity")
        if s.distractors:
            notes.append(f"{s.distractors:,} distractors")
        note = "  (" + ", ".join(notes) + ")" if notes else ""
        lines.append(f"  {name:<8} {s.images:>9,} {s.identities:>11,} {s.cameras:>8,}{note}")
    return "\n".join(lines)
