"""A run folder as the report reads it, with errors that name file and line."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from gcl_fast.errors import InputError, MissingFileError

Row = dict[str, object]
"""One line of history.jsonl."""


@dataclass
class Run:
    """A run folder in memory. Parts that the run has not written yet are empty."""

    name: str
    metrics: dict[str, object] = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    config: str = ""
    pictures: list[tuple[Path, str]] = field(default_factory=list)  # file, caption ("" without one)


def _read_object(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_history(path: Path) -> list[Row]:
    """The rows of history.jsonl; of two rows for the same step (a resumed run) the later values win.

    A last line without its end (the run was killed while writing it) is left out; any other bad line is an error.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8: {error}") from error
    rows: dict[tuple[object, ...], Row] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: expected one JSON object a line: {error}") from error
        if not isinstance(row, dict) or "stage" not in row:
            raise InputError(f"{path}, line {number}: expected an object with the key 'stage', got {line[:80]!r}")
        key = (row["stage"], row.get("epoch"), row.get("iteration"))
        rows[key] = {**rows.get(key, {}), **row}
    return list(rows.values())


def read_run(run_dir: str | os.PathLike[str]) -> Run:
    """Read a run folder; an absent folder, or one without history and metrics, is an error."""
    run_dir = Path(run_dir)
    if run_dir.is_file():
        raise MissingFileError(f"{run_dir}: expected a run folder here, found a file: give the folder of its run")
    if not run_dir.is_dir():
        raise MissingFileError(f"{run_dir}: expected a run folder here, found nothing")
    metrics, history = run_dir / "metrics.json", run_dir / "history.jsonl"
    if not metrics.is_file() and not history.is_file():
        raise MissingFileError(f"{run_dir}: expected history.jsonl or metrics.json in a run folder, found neither")
    captions = _read_object(run_dir / "pictures" / "captions.json")
    pictures = sorted(run_dir.glob("pictures/[!.]*.png"))  # a hidden one is half of what a killed run was writing
    config = run_dir / "config.yaml"
    return Run(
        name=run_dir.resolve().name,
        metrics=_read_object(metrics),
        history=read_history(history),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        pictures=[(file, str(captions.get(file.name, ""))) for file in pictures],
    )
