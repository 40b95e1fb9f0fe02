"""Scalars and pictures of a run while it trains: history.jsonl, TensorBoard events."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gcl_fast.errors import FileError
from gcl_fast.files import json_text, why_not_written, write_whole
from gcl_fast.packages import missing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Scalars and pictures of one run folder.

    history.jsonl has one JSON object a line: stage, epoch, iteration, time (seconds since the stage began), scalars.
    write: False writes nothing, for all processes but the first.
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool = True, write: bool = True) -> None:
        self.run_dir, self.write = run_dir, write
        self.history = run_dir / "history.jsonl"
        if write:
            run_dir.mkdir(parents=True, exist_ok=True)
        self.writer = self._open_tensorboard() if tensorboard and write else None

    def _open_tensorboard(self) -> SummaryWriter | None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            reason = missing("tensorboard", "writing TensorBoard events", error)
            print(f"no TensorBoard events, history.jsonl alone: {reason}", file=sys.stderr)
            return None
        return SummaryWriter(self.run_dir / "events")

    def rewind(self, stage: str, iteration: int) -> None:
        """Forget the lines of `stage` from `iteration` on: a resumed run writes them again."""
        if not self.write or not self.history.exists():
            return
        kept = []
        for line in self.history.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a kill in the middle of a write
                continue
            if entry["stage"] != stage or entry["iteration"] < iteration:
                kept.append(line)
        write_whole(self.history, "".join(line + "\n" for line in kept))

    def scalars(
        self, stage: str, epoch: int, iteration: int, seconds: float, values: dict[str, float], warnings: Sequence[str] = ()
    ) -> None:
        """Write values; warnings, in words, stand in the same line under the key "warnings", and among TensorBoard's texts."""
        if not self.write:
            return
        entry = {"stage": stage, "epoch": epoch, "iteration": iteration, "time": round(seconds, 3), **values}
        self._append({**entry, "warnings": list(warnings)} if warnings else entry)
        if self.writer is not None and warnings:
            self.writer.add_text(f"{stage}/warnings", "\n\n".join(warnings), iteration)
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{stage}/{name}", value, iteration)

    def _append(self, entry: dict[str, object]) -> None:
        try:
            with open(self.history, "a") as file:
                file.write(json_text(entry))
        except OSError as error:
            raise FileError(f"cannot write {self.history}: {why_not_written(self.history, error)}") from error

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        """image [H, W, 3] uint8."""
        if self.writer is not None:
            self.writer.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
