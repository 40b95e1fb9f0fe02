"""The folder of a world: whose it is, where an unfinished one is kept, and what is said of a finished one."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gcl_fast.errors import FolderInUseError
from gcl_fast.files import make_folder, write_whole
from gcl_fast.progress import counted

MARKER = "world.json"  # written last: a folder without it is no finished world
UNFINISHED = ".unfinished-world"  # in the folder beside it while a run is writing


@dataclass(frozen=True)
class WorldSummary:
    """What was written. out: the dataset root to give to `load_dataset`; layout; images by split; people and cameras;
    truth: how many images have true novel views; created: False when the same world was already there."""

    out: Path
    layout: str
    train_images: int
    query_images: int
    gallery_images: int
    train_ids: int
    test_ids: int
    cameras: int
    truth: int
    created: bool = True

    def __str__(self) -> str:
        state = "written to" if self.created else "already in"
        return (
            f"{self.layout} world {state} {self.out}: {counted(self.train_images, 'training image')} of {self.train_ids} people, "
            f"{counted(self.query_images, 'query')} and {counted(self.gallery_images, 'gallery image')} "
            f"of {self.test_ids} others, "
            f"{counted(self.cameras, 'camera')}, true novel views of {counted(self.truth, 'image')}"
        )


def existing_world(out: Path, parameters: dict[str, Any]) -> WorldSummary | None:
    """The summary of this very world where `out` holds it; None where `out` is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    marker = out / MARKER
    if not marker.is_file():
        raise FolderInUseError(f"write_world: out must be a new or empty folder, or a world; {out} has no {MARKER}")
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        old, facts = content["parameters"], content["summary"]
    except (ValueError, KeyError, TypeError) as error:
        raise FolderInUseError(f"write_world: {marker} does not describe a world: {error!r}") from error
    if old != parameters:
        differing = [f"{k}={old.get(k)!r} (wanted {v!r})" for k, v in parameters.items() if old.get(k) != v]
        raise FolderInUseError(f"write_world: {out} holds another world, with {', '.join(differing)}; delete it or name another")
    return WorldSummary(out=out, created=False, **facts)


def partial_folder(out: Path) -> Path:
    """A fresh folder beside `out`; what a killed run left there is removed."""
    partial = out.absolute().with_name(out.name + ".partial")
    if partial.exists():
        if not (partial / UNFINISHED).is_file():
            raise FolderInUseError(f"write_world: {partial} is where the unfinished world goes but holds something else; move it")
        shutil.rmtree(partial)
    make_folder(partial)
    (partial / UNFINISHED).touch()
    return partial


def finish(partial: Path, parameters: dict[str, Any], summary: WorldSummary) -> None:
    """Mark the unfinished folder as this world and move it to its place."""
    facts = {k: v for k, v in asdict(summary).items() if k not in ("out", "created")}
    (partial / UNFINISHED).unlink()
    write_whole(partial / MARKER, json.dumps({"parameters": parameters, "summary": facts}, indent=1) + "\n")
    if summary.out.exists():
        summary.out.rmdir()  # empty, as checked
    partial.rename(summary.out)
