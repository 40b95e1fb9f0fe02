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
        for candidate in (pattern, _unfinished(pattern)):
            yield from sorted(path for path in run_dir.glob(candidate) if path.is_file() or path.is_symlink())


def _unfinished(pattern: str) -> str:
    """What an interrupted write leaves beside the files of a pattern."""
    folder, slash, name = pattern.rpartition("/")
    stem, _, suffix = name.rpartition(".")
    return f"{folder}{slash}.{stem}.*.tmp.{suffix}"


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
    """Remove what a killed run was writing, checkpoints as large as whole ones among it; for who holds the folder. The report's
    stays: `gcl-fast report`, which does not hold the folder, may be writing it."""
    for pattern in WRITTEN:
        if pattern != "report.html":
            for path in run_dir.glob(_unfinished(pattern)):
                path.unlink(missing_ok=True)


def remove_run(run_dir: Path) -> list[str]:
    """Remove what a run wrote, and the folders that are empty then. Returns what stays, by name."""
    for path in files_of_run(run_dir):
        path.unlink(missing_ok=True)
    for folder in (*STAGES, "pictures", "events", "."):
        with contextlib.suppress(OSError):  # something else is in it
            (run_dir / folder).rmdir()
    return sorted(path.name for path in run_dir.iterdir()) if run_dir.is_dir() else []
