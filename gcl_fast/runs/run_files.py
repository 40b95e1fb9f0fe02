"""The files that a run writes, and their removal: nothing else in its folder is ever touched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

STAGES = ("stage1", "stage2", "stage3", "control")
# Below the run folder, with what an interrupted write may leave beside each.
WRITTEN = (
    *("config.yaml", "metrics.json", "history.jsonl", "report.html"),
    *(f"{stage}/{name}.pt" for stage in STAGES for name in ("last", "best")),
    *(f"pictures/{stage}_*.png" for stage in STAGES),
    "events/events.out.tfevents.*",
)


def files_of_run(run_dir: Path) -> Iterator[Path]:
    """What a run has written in its folder."""
    for pattern in WRITTEN:
        folder, _, name = pattern.rpartition("/")
        stem, _, suffix = name.rpartition(".")
        for candidate in (name, f".{stem}.*.tmp.{suffix}"):
            yield from sorted(path for path in (run_dir / folder).glob(candidate) if path.is_file() or path.is_symlink())


def last_iterations(run_dir: Path) -> dict[str, int]:
    """The last iteration of each stage that history.jsonl tells of; a line that a kill cut off is passed over."""
    last: dict[str, int] = {}
    history = run_dir / "history.jsonl"
    for line in history.read_text(encoding="utf-8", errors="replace").splitlines() if history.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            row = json.loads(line)
            last[str(row["stage"])] = int(row["iteration"])
    return last


def remove_unfinished(run_dir: Path) -> None:
    """Remove the checkpoints that a killed run was writing, each as large as a whole one; for who holds the folder."""
    for stage in STAGES:
        for path in (run_dir / stage).glob(".*.tmp.pt"):
            path.unlink(missing_ok=True)


def remove_run(run_dir: Path) -> list[str]:
    """Remove what a run wrote, and the folders that are empty then. Returns what stays, by name."""
    for path in files_of_run(run_dir):
        path.unlink(missing_ok=True)
    for folder in (*STAGES, "pictures", "events", "."):
        with contextlib.suppress(OSError):  # something else is in it
            (run_dir / folder).rmdir()
    return sorted(path.name for path in run_dir.iterdir()) if run_dir.is_dir() else []
