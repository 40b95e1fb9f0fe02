"""Scalars and pictures of a run while it trains: history.jsonl, and the boards that show it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcl_fast.errors import FileError, InputError, MissingPackageError
from gcl_fast.files import json_text, make_folder, why_not_written, write_whole
from gcl_fast.stages.boards import Board, TensorBoard


class RunLog:
    """Scalars and pictures of one run folder.

    history.jsonl has one JSON object a line: stage, epoch, iteration, time (seconds since the stage began), scalars.
    boards: where the same is shown besides, such as `boards.TensorBoard`.
    write: False writes nothing, for all processes but the first.
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool = True, boards: Sequence[Board] = (), write: bool = True) -> None:
        self.run_dir, self.write = run_dir, write
        self.history = run_dir / "history.jsonl"
        if write:
            make_folder(run_dir)
        self.boards = [*self._tensorboard(), *boards] if tensorboard and write else list(boards) if write else []

    def _tensorboard(self) -> list[Board]:
        try:
            return [TensorBoard(self.run_dir / "events")]
        except (MissingPackageError, InputError) as error:
            print(f"no TensorBoard events, history.jsonl alone: {error}", file=sys.stderr)
            return []

    def rewind(self, stage: str, iteration: int, epochs: int) -> None:
        """Forget the lines of `stage` from `iteration` on, and of epochs beyond the first `epochs`, which were not yet planned: a
        resumed run writes them again."""
        if not self.write or not self.history.exists():
            return
        kept = []
        for line in self.history.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a kill in the middle of a write
                continue
            if entry["stage"] != stage or (entry["iteration"] < iteration and entry["epoch"] < epochs):
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
        for board in self.boards:
            board.scalars(stage, iteration, values)
            if warnings:
                board.text(f"{stage}/warnings", "\n\n".join(warnings), iteration)

    def shown(self, stage: str, iteration: int, values: Mapping[str, float]) -> None:
        """Values for the boards alone, such as what a second run would not repeat."""
        for board in self.boards:
            board.scalars(stage, iteration, values)

    def _append(self, entry: dict[str, object]) -> None:
        try:
            with open(self.history, "a") as file:
                file.write(json_text(entry))
        except OSError as error:
            raise FileError(f"cannot write {self.history}: {why_not_written(self.history, error)}") from error

    def picture(self, name: str, image: np.ndarray, iteration: int) -> None:
        """image [H, W, 3] uint8."""
        for board in self.boards:
            board.picture(name, image, iteration)

    def text(self, name: str, words: str) -> None:
        for board in self.boards:
            board.text(name, words, 0)

    def results(self, settings: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """Settings of the run beside its scores, by names such as stage3/mAP."""
        for board in self.boards:
            board.results(settings, scores)

    def close(self) -> None:
        """Once; then nothing is shown any more."""
        boards, self.boards = self.boards, []
        for board in boards:
            board.close()
