"""The results of gpu-check on disk: one JSON line for each part and number, appended and flushed as soon as it is there.

The file is the state too: a second run reads it and leaves out what is there already. Lines:

    {"kind": "begun", "key": ...}                           a number's measurement has begun
    {"kind": "number", "key": ..., "status": ..., ...}      it has ended: ok, failed or left_out (with `why`)
    {"kind": "part", "key": ..., "status": ..., ...}        a part other than numbers has ended
    {"kind": "forgotten", "key": ...}                       it is to be done again

each with the identity (device, driver, versions, source) and the commit that it belongs to. A kill loses the number that was
being measured; a torn last line is passed over.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Records:
    """The lines of one device's file. Several processes may append to it, one at a time."""

    def __init__(self, path: Path, identity: Mapping[str, Any], commit: str = "unknown") -> None:
        self.path, self.identity, self.commit = path, dict(identity), commit
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, kind: str, key: str, **what: Any) -> Line:
        """Append a line; it is on the disk when this returns."""
        line = {"kind": kind, "key": key, **what, "time": round(time.time(), 3), "commit": self.commit, **self.identity}
        text = json.dumps(_finite(line), allow_nan=False) + "\n"
        with self.path.open("a+b") as file:
            file.seek(0, os.SEEK_END)
            torn = file.tell() > 0 and _last_byte(file) != b"\n"  # a run killed while it wrote
            file.write((b"\n" if torn else b"") + text.encode())
            file.flush()
            os.fsync(file.fileno())
        return line

    def lines(self) -> list[Line]:
        """Every whole line, of any identity, in order."""
        return read_lines(self.path)

    def mine(self) -> list[Line]:
        """Those of this identity."""
        return [line for line in self.lines() if all(line.get(name) == value for name, value in self.identity.items())]

    def ended(self) -> dict[str, Line]:
        """Key -> its last line of this identity, of parts and numbers that have ended and were not forgotten since."""
        found: dict[str, Line] = {}
        for line in self.mine():
            if line["kind"] == "forgotten":
                found.pop(line["key"], None)
            elif line["kind"] in ("part", "number"):
                found[line["key"]] = line
        return found

    def cut(self) -> set[str]:
        """Numbers of this identity that began and never ended: what a kill or a crash took."""
        waiting: set[str] = set()
        for line in self.mine():
            if line["kind"] == "begun":
                waiting.add(line["key"])
            else:
                waiting.discard(line["key"])
        return waiting

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def read_lines(path: Path) -> list[Line]:
    found = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except ValueError:  # torn by a kill
            continue
        if isinstance(line, dict) and {"kind", "key"} <= line.keys():
            found.append(line)
    return found


def latest(lines: list[Line]) -> dict[str, Line]:
    """Key -> the last line of a part or number that has ended, of any identity: what a table shows."""
    found: dict[str, Line] = {}
    for line in lines:
        if line["kind"] in ("part", "number"):
            found.pop(line["key"], None)  # the order of a table is that of the last run
            found[line["key"]] = line
    return found


def write_whole(path: Path, text: str) -> None:
    """Through a file beside it, renamed: a reader meets the old file or the new one. (gcl_fast.files needs a build.)"""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    byte: bytes = file.read(1)
    return byte


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, (list, tuple)) else value
